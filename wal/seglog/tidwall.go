package seglog

// Writing through tidwall/wal. What experiments showed it to do, and where that is dealt with:
//
//	no checksum                           every read and check decodes the record (scan.go)
//	torn tail: Open fails, leaks          inspect.go and repair.go cut it before the library sees it
//	no second descriptor: Open leaks      tidwallWriter.spare looks for two before
//	zeroed tail: phantom entries          a record is never empty (package record), so the same
//	missing or short segment: panics      inspect.go checks each segment's end against the next one's name
//	missing first segment: accepted       inspect.go is told the first LSN
//	two processes                         the data directory is locked by the owner of all logs (vfs.File.Lock)
//	failed write or sync, then success    core.fail: any error is final
//	directory never synced                core.Sync, cut.go, repair.go
//	reads and writes wait for its sync    NoSync; core.syncSegment has its own descriptor, read.go too
//	a stale own descriptor                opened by name for each use; the tail is cut in place
//	cold concurrent reads race            nothing is read through it
//	syncs at segment change and Close     only the background writer calls it
//	keeps its largest batch for ever      batches are pooled, and dropped when large
//	keeps whole segments in memory        the tail only: its cache is cleared when a segment is full
//	TruncateFront copies                  cut.go never calls it
//	Options are written to                a fresh value for each Open; AllowEmpty, so the last record can go
//	begins at LSN 1                       repair.go makes the first, empty segment

import (
	"fmt"
	"path/filepath"
	"sync"

	"github.com/tidwall/wal"
)

// batchBytesMax is the largest batch that goes back to the pool.
const batchBytesMax = 2 << 20

var batches = sync.Pool{New: func() any { return new(wal.Batch) }}

// tidwallWriter writes through one wal.Log, which is nil between close and reopen.
type tidwallWriter struct {
	cfg  Config
	log  *wal.Log
	tail int64 // bytes in the tail segment, to know when the library begins another
}

func newTidwallWriter(cfg Config) writer { return &tidwallWriter{cfg: cfg} }

// options are fresh for each Open, because Open writes its defaults into them.
func (w *tidwallWriter) options() *wal.Options {
	return &wal.Options{
		NoSync:           true,
		SegmentSize:      w.cfg.SegmentBytes,
		LogFormat:        wal.Binary,
		SegmentCacheSize: 1,
		NoCopy:           true,
		AllowEmpty:       true,
		DirPerms:         dirPerm,
		FilePerms:        filePerm,
	}
}

// reopen opens the library's log and checks that it sees the same end.
func (w *tidwallWriter) reopen(tail *segment, last uint64) (err error) {
	if err := w.spare(tail); err != nil {
		return fmt.Errorf("open log %s: %w", w.cfg.Dir, err)
	}
	if w.log, err = wal.Open(w.cfg.Dir, w.options()); err != nil {
		w.log = nil
		return fmt.Errorf("open log %s: %w", w.cfg.Dir, err)
	}
	w.tail = tail.size
	got, err := w.log.LastIndex()
	if err != nil {
		return fmt.Errorf("open log %s: %w", w.cfg.Dir, err)
	}
	if got != last {
		return fmt.Errorf("open log %s: tidwall/wal ends it at LSN %d instead of %d", w.cfg.Dir, got, last)
	}
	return nil
}

// spare makes sure that there are two descriptors: the library opens the tail once to write and once to read, and leaks the first if the second
// fails.
func (w *tidwallWriter) spare(tail *segment) error {
	for range 2 {
		file, err := w.cfg.FS.Open(filepath.Join(w.cfg.Dir, tail.name()))
		if err != nil {
			return err
		}
		defer file.Close()
	}
	return nil
}

func (w *tidwallWriter) append(lsn uint64, records [][]byte) error {
	batch := batches.Get().(*wal.Batch)
	batch.Clear()
	size := 0
	for i, rec := range records {
		batch.Write(lsn+uint64(i), rec)
		size += len(rec)
	}
	err := w.log.WriteBatch(batch)
	if size <= batchBytesMax {
		batch.Clear()
		batches.Put(batch)
	}
	if err != nil {
		return err
	}
	if w.filled(records) {
		return w.log.ClearCache()
	}
	return nil
}

// filled keeps count of the tail, and tells whether a segment became full in a write.
func (w *tidwallWriter) filled(records [][]byte) bool {
	full := int64(w.cfg.SegmentBytes)
	filled := w.tail > full
	if filled {
		w.tail = 0
	}
	for _, rec := range records {
		w.tail += int64(prefixLen(len(rec)) + len(rec))
		if w.tail >= full {
			w.tail, filled = 0, true
		}
	}
	return filled
}

// close closes the library's log. It syncs first, and if that fails leaves the descriptor open, so it is asked twice; the
// first error counts. A descriptor that is left even then goes with the garbage collection of the log.
func (w *tidwallWriter) close() error {
	if w.log == nil {
		return nil
	}
	err := w.log.Close()
	if err != nil {
		_ = w.log.Close() // the sync of this one proves nothing; it is for the descriptor
	}
	w.log = nil
	return err
}
