// Package seglog is the log of one queue: its records in segment files, as tidwall/wal lays them out, with everything
// around that library which a queue's log must be able to rely on (see the list in tidwall.go).
//
// A log is a directory of segments. A segment is named by the LSN of its first record, in 20 decimal digits, and holds
// records one after the other:
//
//	┌────────────────────────┬──────────────────────────────────┬────────────────────────┬─────
//	│ length of the record,  │ record (package record): header  │ length of the record   │ …
//	│ unsigned varint        │ with CRC32C and LSN, meta, body  │                        │
//	└────────────────────────┴──────────────────────────────────┴────────────────────────┴─────
//
// A segment is full as soon as it has SegmentBytes bytes, and the next one begins with the next LSN. Only the last one,
// the tail, is ever written. So the LSNs in a log have no gap, and a segment's last LSN is the next one's name minus one.
// When most records of old segments are not needed any more, Rewrite replaces those segments by one that leaves them out.
//
// The log is written behind the journal and is not durable by itself: Sync is called at checkpoints. A checkpoint states
// the first and the last LSN that the log must hold, and Open brings the log to exactly that last one: records after it
// are in the journal and will be appended again, so they are removed, torn or whole. A record at or below it that is
// damaged or missing is corruption: Open changes nothing then, and says where.
//
//	log.go      the contract: Log, Config, Report, errors
//	inspect.go  reads a directory and plans what Open must do, without changing anything
//	repair.go   carries the plan out
//	scan.go     walks the records of a segment, and finds its last one
//	core.go     what both implementations share: segments, Append, Sync, Close, the final error
//	cut.go      CutFront
//	read.go     Read, and the sparse index that lets it start anywhere
//	rewrite.go  Rewrite: segments of mostly dead records become small
//	span.go     the file of a rewritten segment: its name and its header
//	tidwall.go  writes through tidwall/wal
//	sim.go      writes through the vfs alone, for tests that fail or lose writes
package seglog

import (
	"errors"
	"fmt"

	"quail/wal/vfs"
)

// Log is one queue's log. Append and CutFront are for one goroutine, the background writer; Sync may run beside them in
// another, and Read in any number. All take turns where they must, so a mistake there costs time and not records.
//
// Every error but ErrOutOfRange, ErrClosed, and a lack of descriptors in Prepare, Sync and Read (vfs.OutOfDescriptors) is final: the
// log is in an unknown state, each later call returns the same error, and only Close and a new Open help. A failed write or sync is never tried again: after it the kernel may call
// pages clean that never reached the disk, so a second try could succeed and prove nothing.
type Log interface {
	// First is the LSN of the first record that the log holds, or Last()+1 if it holds none. It may be lower than what
	// was asked for with CutFront, since only whole segments go.
	First() uint64
	// Last is the LSN of the last record, First()-1 if there is none.
	Last() uint64
	// Prepare opens what Append needs, which does so itself if nobody did: a log that is only read takes neither a descriptor nor the memory of
	// its last segment.
	Prepare() error
	// Append writes records, encoded by package record, that continue at Last()+1 and carry the log's incarnation. They
	// are readable when it returns, and durable after the next Sync. The slices are not kept.
	Append(records [][]byte) error
	// Sync makes everything appended before the call durable: every segment written since the last Sync, then the
	// directory if names changed in it.
	Sync() error
	// CutFront says that records below first, at most Last()+1, are not needed any more. Segments that hold only such
	// records are removed, durably; if first is Last()+1, all are. No record is copied. Errors: ErrOutOfRange.
	CutFront(first uint64) error
	// Read appends consecutive records to dst, from LSN from on: as many as fit in maxBytes of encoded records, but at
	// least one, up to Last() or a record that Rewrite has left out. From Last()+1 it reads nothing. Every record is checked:
	// CRC32C, LSN, incarnation. The returned slices are the caller's; records next to each other may share memory, so keeping
	// one can keep others.
	// Errors: ErrOutOfRange if from is below First(), above Last()+1, or was left out; *CorruptError.
	Read(from uint64, maxBytes int, dst [][]byte) ([][]byte, error)
	// ReadInto is Read into memory that the arena lends.
	ReadInto(arena *Arena, from uint64, maxBytes int, dst [][]byte) ([][]byte, error)
	// Sealed appends what is known of the segments that end at or below upTo and may be rewritten: all but the tail, as far
	// as they are synced.
	Sealed(upTo uint64, dst []Sealed) []Sealed
	// Rewrite replaces the consecutive sealed segments that hold the records from first to last by one that holds, of them,
	// only those in live, which rises. From then on reading one of the others is ErrOutOfRange. It runs beside all other
	// calls, one at a time. No error is final: what was there stays in force.
	// What nobody needs is not read, but for what must be walked over to find what is live.
	// Errors: ErrOutOfRange if that is not what sealed segments hold; *CorruptError, if what is walked over is none, or a
	// record of live is damaged or missing; those of the file system.
	Rewrite(first, last uint64, live []uint64) error
	// Stats tells the size of the log.
	Stats() Stats
	// Close frees the descriptors. It returns the error that ended the log, if one did.
	Close() error
}

// Config says where a log is and whose it is.
type Config struct {
	// FS does every file operation but tidwall/wal's own. Open needs one that shows the real files, such as vfs.OS.
	FS vfs.FS
	// Dir is the log's directory; it is made if it is missing.
	Dir string
	// Incarnation must stand in every record: a segment of a deleted queue is noticed even when its LSNs fit.
	Incarnation uint64
	// SegmentBytes is the size at which a segment is full. The tail segment is held in memory by tidwall/wal, about two
	// and a half times over, so 256 KB to 4 MB are sensible. 0 means SegmentBytesDefault. It may change from Open to Open.
	SegmentBytes int
	// DamagedDir is where the bytes of a torn tail are copied before they are cut; "" discards them. A copy of the same
	// segment and offset replaces the one before, so their number is bounded.
	DamagedDir string
}

// SegmentBytesDefault is the size of a full segment if Config does not say.
const SegmentBytesDefault = 1 << 20

// Stats is the size of a log.
type Stats struct {
	// Segments is the number of segment files, at least 1.
	Segments int
	// Bytes is their size together.
	Bytes int64
	// TailBytes is the size of the last one, which tidwall/wal keeps in memory, two to three times over; 0 as long as nothing was appended.
	TailBytes int64
	// Rewritten is how many of the segments hold only what was live when they were rewritten.
	Rewritten int
}

// Sealed is a segment that is not written any more.
type Sealed struct {
	First, Last uint64
	// Bytes is the size of its file.
	Bytes int64
	// Marked: places in it are known, so that a few of its records are found without reading all of it.
	Marked bool
	// Rewritten segments know how many records they still hold, and the size of their bodies.
	Rewritten bool
	Records   int
	BodyBytes int64
}

// Report tells what Open found and did, for the caller's event listener. All zero: the log was as it should be.
type Report struct {
	// Created: there was no segment, and an empty one was made.
	Created bool
	// FrontSegments and FrontBytes are what an unfinished CutFront had left: whole segments below first.
	FrontSegments int
	FrontBytes    int64
	// CutRecords and CutBytes are whole, valid records after last, removed because the journal has them.
	CutRecords uint64
	CutBytes   int64
	// TornBytes is how many bytes after last were no valid records, Torn where they were: the last segment first.
	TornBytes int64
	Torn      []TornPart
	// Leftovers are files of an unfinished truncation by tidwall/wal itself that were completed or removed.
	Leftovers []string
}

// TornPart is the end of a segment that was no valid records.
type TornPart struct {
	File          string // the segment
	Offset, Bytes int64
	SavedAs       string // its copy in Config.DamagedDir; "" if none was asked for
}

// Errors that do not end the log.
var (
	// ErrOutOfRange: the LSN is not in the log.
	ErrOutOfRange = errors.New("LSN is outside the log")
	// ErrClosed: Close was called.
	ErrClosed = errors.New("log is closed")
)

// CorruptError says that the log does not hold what it must, and where that was noticed.
type CorruptError struct {
	// File is the path of the segment, or of the directory if a whole segment is missing.
	File string
	// Offset is the byte in File where what should be there is not.
	Offset int64
	// LSN is the record that was expected there; 0 if that is not known.
	LSN uint64
	// Reason says what is wrong.
	Reason string
	// Err is the underlying error, if there is one.
	Err error
}

// Error names file and offset first, since that is where a person will look.
func (e *CorruptError) Error() string {
	s := fmt.Sprintf("corrupt log: %s at offset %d", e.File, e.Offset)
	if e.LSN != 0 {
		s += fmt.Sprintf(", LSN %d", e.LSN)
	}
	s += ": " + e.Reason
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns Err.
func (e *CorruptError) Unwrap() error { return e.Err }

// Open opens the log in cfg.Dir over tidwall/wal and brings it to what the checkpoint says: it must hold all records
// from first to last. last = first-1 means none; then the directory may be missing. Whatever follows last is removed, so
// Last() is last afterwards; if it was not whole, valid records, it is copied to cfg.DamagedDir before. The log may begin
// below first, not above.
//
// The segment with last is read and checked up to it, so a record at or below last that is damaged there is a
// *CorruptError at once; of each older segment only the last record is looked at, which proves that none is missing or
// short, and the rest is checked when it is read. With an error nothing was changed on disk, unless it came from a file
// operation; then Open can be called again.
func Open(cfg Config, first, last uint64) (Log, Report, error) {
	return open(cfg, first, last, newTidwallWriter)
}

// OpenSim is Open, with the same files, wholly through cfg.FS. It syncs only in Sync, where tidwall/wal also does so
// when a segment is full: a test that loses writes shall not be helped by that.
func OpenSim(cfg Config, first, last uint64) (Log, Report, error) {
	return open(cfg, first, last, newSimWriter)
}
