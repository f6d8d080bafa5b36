package wal

// Damage on the disk: every bit of a segment, a journal file, a checkpoint and the store's identity is flipped; journal and
// queue logs are cut at every byte of their end, and overwritten with zeros and garbage from there. The store must
// open with exactly what is still there, or say which file is damaged and where.

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"quail/wal/record"
	"quail/wal/seglog"
	"quail/wal/vfs"
)

// image is a whole data directory in memory.
type image map[string][]byte

func takeImage(t *testing.T, fs vfs.FS, dir string) image {
	t.Helper()
	img := image{}
	entries, err := fs.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if e.IsDir() {
			for p, data := range takeImage(t, fs, path) {
				img[p] = data
			}
			continue
		}
		if img[path], err = readAll(fs, path); err != nil {
			t.Fatal(err)
		}
	}
	return img
}

// disk makes a file system of the image.
func (img image) disk(t *testing.T) *vfs.Lossy {
	lossy := vfs.NewLossy(1)
	for path, data := range img {
		if err := lossy.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			t.Fatal(err)
		}
		f, err := lossy.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o640)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(data, 0); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	return lossy
}

// with is a copy of img in which one file is replaced.
func (img image) with(path string, data []byte) image {
	out := image{}
	for p, d := range img {
		out[p] = d
	}
	out[path] = data
	return out
}

// clone copies what verify changes.
func (w *world) clone() *world {
	c := newWorld()
	c.idMax = w.idMax
	for id := range w.deleted {
		c.deleted[id] = true
	}
	for id, q := range w.queues {
		c.queues[id] = &life{first: q.first, records: q.records, sums: q.sums, commits: slices.Clone(q.commits), found: q.found}
	}
	return c
}

// sample is a store with a few queues, checkpointed segments, and journal behind the checkpoint.
type sample struct {
	cfg     Config
	w       *world
	img     image
	journal string           // the newest file with groups
	segment string           // a sealed, checkpointed segment
	tail    string           // the tail segment of the same queue
	synced  map[string]int64 // sizes at the checkpoint
}

// newSample makes one. With a crash at the end the last group has no end mark, otherwise it has. Whether there is time and
// room for the mark is decided by the clock and the sizes, so it may take a few tries.
func newSample(t *testing.T, journalFileBytes int64, segmentBytes, bodyBytes int, crash bool) *sample {
	t.Helper()
	for try := range uint64(50) {
		p := trySample(t, journalFileBytes, segmentBytes, bodyBytes, crash, try)
		data := p.img[p.journal]
		starts, _ := groupStarts(t, p, data)
		if len(starts) < 3 {
			continue
		}
		if g, err := parseGroup(data[starts[len(starts)-1]:], p.id(t), sequenceOf(data)); err == nil && (g.flags == flagEndMark) != crash {
			return p
		}
	}
	t.Fatal("no good sample")
	return nil
}

func trySample(t *testing.T, journalFileBytes int64, segmentBytes, bodyBytes int, crash bool, seed uint64) *sample {
	t.Helper()
	lossy := vfs.NewLossy(5)
	p := &sample{w: newWorld(), cfg: testConfig(lossy, "data"), synced: map[string]int64{}}
	p.cfg.JournalFileBytes, p.cfg.JournalBytes, p.cfg.SegmentBytes = journalFileBytes, 1<<20, segmentBytes
	s, _, err := p.w.open(p.cfg, 0)
	if err != nil {
		t.Fatal(err)
	}
	dice := rand.New(rand.NewPCG(1, seed))
	push := func(q *life, bytes int) {
		for bytes > 0 {
			body := randomBody(dice, bodyBytes)
			bytes -= len(body) + record.HeaderBytes
			q.commit(s, record.Record{Kind: kindPut, Body: body}, record.Record{Kind: kindPut})
			if err := q.last.Wait(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for range 3 {
		if _, err := p.w.create(s); err != nil {
			t.Fatal(err)
		}
	}
	queues := p.w.alive()
	push(queues[0], segmentBytes*2+segmentBytes/2)
	push(queues[1], 2*bodyBytes)
	if err := s.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	p.cfg.FS = nil
	for path, data := range takeImage(t, lossy, "data/queues") {
		p.synced[path] = int64(len(data))
	}
	// The journal file that is looked at is begun, filled to its end, and has all its groups behind the checkpoint.
	for range 2 {
		used := s.journal.written.Load()
		for s.journal.written.Load() < used+journalFileBytes/2 {
			for _, q := range queues {
				push(q, bodyBytes/2)
			}
		}
	}
	if crash { // an image is taken of the page cache, when nothing is under way but before the end mark
		p.img = takeImage(t, lossy, "data")
		s.Abandon()
	} else {
		s.Abandon()
		p.img = takeImage(t, lossy, "data")
	}
	p.find(t, s, queues[0])
	return p
}

// find notes which files are of interest.
func (p *sample) find(t *testing.T, s *Store, q *life) {
	var newest uint64
	for path, data := range p.img {
		if filepath.Ext(path) == ".journal" {
			if h, err := parseFileHeader(data[:blockBytes], s.id); err == nil && h.sequence > newest {
				p.journal, newest = path, h.sequence
			}
		}
		if filepath.Dir(path) == s.logDir(q.log.Incarnation()) && len(data) > 0 {
			if p.segment == "" || path < p.segment {
				p.segment = path
			}
			if path > p.tail {
				p.tail = path
			}
		}
	}
	if p.journal == "" || p.segment == "" || p.tail == p.segment {
		t.Fatalf("no good sample: %+v", p)
	}
}

// reopen opens the damaged image and returns what came of it; err is nil if everything that was acknowledged is there.
func (p *sample) reopen(t *testing.T, path string, damaged []byte, w *world) (Recovery, error) {
	cfg := p.cfg
	cfg.FS = p.img.with(path, damaged).disk(t)
	s, rec, err := w.open(cfg, 0)
	if err == nil {
		s.Abandon()
	}
	return rec, err
}

// garbled: words twice, or none where a reason belongs.
var garbled = regexp.MustCompile(`<nil>|group \d+: group \d|record \d+: record \d`)

// clear reports whether err is an error that tells a person where to look.
func clearError(err error, path string) error {
	var inJournal *CorruptError
	var inLog *seglog.CorruptError
	switch {
	case errors.Is(err, errWrong):
		return err
	case errors.As(err, &inJournal) || errors.As(err, &inLog):
		if text := err.Error(); !strings.Contains(text, filepath.Base(path)) || !strings.Contains(text, "at offset ") {
			return fmt.Errorf("the error does not say where: %w", err)
		} else if garbled.MatchString(text) {
			return fmt.Errorf("the error is garbled: %w", err)
		}
		return nil
	}
	return fmt.Errorf("an unclear error: %w", err)
}

// eachBit calls f with every byte that is one bit away from data, which is changed in place.
func eachBit(t *testing.T, data []byte, f func(bit int)) {
	step := 1
	if testing.Short() {
		step = 31
	}
	for bit := 0; bit < 8*len(data); bit += step {
		data[bit/8] ^= 1 << (bit % 8)
		f(bit)
		data[bit/8] ^= 1 << (bit % 8)
		if t.Failed() {
			t.Fatalf("bit %d of byte %d", bit%8, bit/8)
		}
	}
}

// sizes of the samples for the tests that flip every bit: small ones normally, those of production's order with QUAIL_LONG=1.
func sampleSizes() (journalFileBytes int64, segmentBytes, bodyBytes int) {
	if os.Getenv("QUAIL_LONG") == "1" {
		return 64 << 10, 16 << 10, 2000
	}
	return 4 << 10, 1 << 10, 300
}

// Without this rot in the journal is taken for a torn tail: acknowledged messages vanish without a word.
func TestEveryBitOfJournal(t *testing.T) {
	p := newSample(t, first(sampleSizes), second(sampleSizes), third(sampleSizes), false)
	data := slices.Clone(p.img[p.journal])
	starts, end := groupStarts(t, p, data)
	part := data[:end] // what an earlier life of the file left behind it is nobody's
	errs := 0
	eachBit(t, part, func(bit int) {
		if _, err := p.reopen(t, p.journal, data, p.w.clone()); err != nil {
			errs++
			if err := clearError(err, p.journal); err != nil {
				t.Error(err)
			}
		}
	})
	if want := 8 * int(starts[len(starts)-1]); errs < want && !testing.Short() {
		t.Errorf("%d of %d flipped bits before the last end mark were reported", errs, want)
	}
}

// The last group before its end mark may be torn: it is cut as a whole, copied aside and reported.
func TestEveryBitOfLastGroup(t *testing.T) {
	p := newSample(t, 6<<10, 1<<10, 300, true)
	data := slices.Clone(p.img[p.journal])
	starts, _ := groupStarts(t, p, data)
	last := starts[len(starts)-1]
	g, err := parseGroup(data[last:], p.id(t), sequenceOf(data))
	if err != nil {
		t.Fatal(err)
	}
	lost := lastCommit(p.w)
	eachBit(t, data[last:last+g.span], func(bit int) {
		w := p.w.clone()
		forget(w, lost)
		rec, err := p.reopen(t, p.journal, data, w)
		if err != nil {
			t.Error(err)
			return
		}
		if int64(bit/8) >= groupHeaderBytes+int64(len(g.payload))+endMarkBytes {
			return // padding: the group is whole
		}
		if rec.Torn == nil || rec.Torn.Offset != last || rec.Torn.SavedAs == "" {
			t.Errorf("the cut group was not reported: %+v", rec.Torn)
		}
	})
}

// Without this a flipped bit in a body is delivered.
func TestEveryBitOfSegment(t *testing.T) {
	p := newSample(t, first(sampleSizes), second(sampleSizes), third(sampleSizes), true)
	data := slices.Clone(p.img[p.segment])
	eachBit(t, data, func(bit int) {
		_, err := p.reopen(t, p.segment, data, p.w.clone())
		if err == nil {
			t.Error("nothing was noticed")
		} else if err := clearError(err, p.segment); err != nil {
			t.Error(err)
		}
	})
}

// Without this a queue's state is wrong after a restart, or the whole queue is gone.
func TestEveryBitOfCheckpoint(t *testing.T) {
	p := newSample(t, 6<<10, 1<<10, 300, false)
	found := 0
	for path := range p.img {
		if ext := filepath.Ext(path); ext != ".base" && ext != ".delta" && filepath.Base(path) != "STORE" {
			continue
		}
		found++
		data := slices.Clone(p.img[path])
		eachBit(t, data, func(bit int) {
			_, err := p.reopen(t, path, data, p.w.clone())
			if err == nil {
				t.Error("nothing was noticed")
			} else if err := clearError(err, path); err != nil {
				t.Error(err)
			}
		})
	}
	if found < 2 {
		t.Fatal("no checkpoint")
	}
}

func (p *sample) id(t *testing.T) storeID {
	return storeID(p.img["data/STORE"][12:28])
}

func sequenceOf(file []byte) uint64 {
	var seq uint64
	for i := 7; i >= 0; i-- {
		seq = seq<<8 | uint64(file[32+i])
	}
	return seq
}

// groupStarts lists where the groups of a file begin, and where the last one ends.
func groupStarts(t *testing.T, p *sample, data []byte) (starts []int64, end int64) {
	t.Helper()
	for pos := int64(blockBytes); pos < int64(len(data)); {
		g, err := parseGroup(data[pos:], p.id(t), sequenceOf(data))
		if err != nil {
			return starts, pos
		}
		starts = append(starts, pos)
		pos += g.span
	}
	return starts, int64(len(data))
}

// lastCommit is the newest commit of all; every commit had a group of its own.
func lastCommit(w *world) *Future {
	// The last queue of alive was pushed to last.
	queues := w.alive()
	q := queues[len(queues)-1]
	return q.commits[len(q.commits)-1].future
}

// forget takes the acknowledgement of a group back.
func forget(w *world, f *Future) {
	pending := NewFuture()
	for _, q := range w.queues {
		for i := range q.commits {
			if q.commits[i].future == f {
				q.commits[i].future = pending
			}
		}
	}
}

func first(f func() (int64, int, int)) int64 { a, _, _ := f(); return a }
func second(f func() (int64, int, int)) int  { _, b, _ := f(); return b }
func third(f func() (int64, int, int)) int   { _, _, c := f(); return c }

// tails calls f with data cut at every byte of its last 4 KB before end, and with zeros and garbage from there on.
func tails(t *testing.T, data []byte, end int, f func(at int, damaged []byte, how string)) {
	step := 1
	if os.Getenv("QUAIL_LONG") != "1" {
		step = 3
	}
	if testing.Short() {
		step = 97
	}
	garbage := make([]byte, len(data))
	dice := rand.New(rand.NewPCG(3, 4))
	for i := range garbage {
		garbage[i] = byte(dice.Uint32())
	}
	for at := max(0, end-4096); at < end; at += step {
		f(at, data[:at], "cut")
		zeros := make([]byte, len(data))
		copy(zeros, data[:at])
		f(at, zeros, "zeros")
		f(at, append(slices.Clone(data[:at]), garbage[at:]...), "garbage")
		if t.Failed() {
			t.Fatalf("from byte %d on", at)
		}
	}
}

// Without this a torn journal loses groups before the tear, keeps half a group, or does not open at all.
func TestJournalTails(t *testing.T) {
	p := newSample(t, 24<<10, 4<<10, 300, true)
	data := p.img[p.journal]
	starts, end := groupStarts(t, p, data)
	if end < 5000 {
		t.Fatalf("only %d bytes of groups", end)
	}
	tails(t, data, int(end), func(at int, damaged []byte, how string) {
		w := p.w.clone()
		if how == "cut" { // a crash makes no file shorter: its size was durable before it was begun
			if _, err := p.reopen(t, p.journal, damaged, w); err == nil {
				t.Error("a shortened file was taken for the journal's end")
			} else if err := clearError(err, p.journal); err != nil {
				t.Error(err)
			}
			return
		}
		whole := 0
		for _, start := range starts {
			g, err := parseGroup(data[start:], p.id(t), sequenceOf(data))
			if err != nil {
				t.Fatal(err)
			}
			end := int(start) + groupHeaderBytes + len(g.payload) + endMarkBytes
			if end > len(damaged) || !bytes.Equal(damaged[start:end], data[start:end]) {
				forgetGroup(t, w, &g)
			} else if g.records > 0 {
				whole++
			}
		}
		rec, err := p.reopen(t, p.journal, damaged, w)
		if err != nil {
			t.Errorf("%s: %v", how, err)
			return
		}
		if n := int(rec.Groups); n < whole {
			t.Errorf("%s: %d groups were replayed, %d of the file are whole", how, n, whole)
		}
		for id, q := range w.queues {
			for lsn := q.lsn + 1; lsn <= uint64(len(p.w.queues[id].records)); lsn++ {
				if !slices.Contains(w.lost[id], lsn) {
					t.Errorf("%s: queue %d: record %d is gone, its group is whole", how, id, lsn)
				}
			}
			for _, lsn := range w.lost[id] {
				if lsn <= q.lsn {
					t.Errorf("%s: queue %d: record %d is there, its group is not", how, id, lsn)
				}
			}
		}
	})
}

// forgetGroup takes the acknowledgement of a group's records back.
func forgetGroup(t *testing.T, w *world, g *group) {
	if err := g.each(func(raw []byte) error {
		r := record.View(raw)
		q := w.queues[r.Incarnation]
		if q == nil {
			return nil
		}
		for i := range q.commits {
			if c := &q.commits[i]; c.first <= r.LSN && r.LSN <= c.last {
				w.lost[r.Incarnation] = append(w.lost[r.Incarnation], r.LSN)
				c.future = nil
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// Without this a log that a crash left longer than the checkpoint says cannot be opened, or one that lost checkpointed
// records opens as if it had not.
func TestQueueLogTails(t *testing.T) {
	p := newSample(t, 24<<10, 8<<10, 300, true)
	data := p.img[p.tail]
	healed, refused := 0, 0
	tails(t, data, len(data), func(at int, damaged []byte, how string) {
		_, err := p.reopen(t, p.tail, damaged, p.w.clone())
		switch {
		case err == nil:
			healed++
			if int64(at) < p.synced[p.tail] && !bytes.Equal(damaged[:p.synced[p.tail]], data[:p.synced[p.tail]]) {
				t.Errorf("%s: checkpointed bytes are lost, and nothing was noticed", how)
			}
		case int64(at) >= p.synced[p.tail]:
			t.Errorf("%s behind the checkpoint: %v", how, err)
		default:
			refused++
			if err := clearError(err, p.tail); err != nil {
				t.Errorf("%s: %v", how, err)
			}
		}
	})
	if (healed == 0 || refused == 0) && !testing.Short() {
		t.Errorf("%d tails healed, %d refused: both must happen", healed, refused)
	}
}

// Without this the newest journal file takes all acknowledged groups since the last checkpoint with it, without a word: what is
// left looks like a journal that ended a file earlier.
func TestNewestJournalFileIsGone(t *testing.T) {
	p := newSample(t, 24<<10, 4<<10, 300, true)
	data := p.img[p.journal]
	older := slices.Clone(data)
	h, err := parseFileHeader(older[:blockBytes], p.id(t))
	if err != nil {
		t.Fatal(err)
	}
	h.sequence--
	h.put(older, p.id(t))
	for name, left := range map[string][]byte{
		"deleted": nil, "empty": {}, "without its header": data[:100], "never used": make([]byte, len(data)),
		"a copy from an earlier life": older,
	} {
		img := p.img.with(p.journal, left)
		if left == nil {
			delete(img, p.journal)
		}
		cfg := p.cfg
		disk := img.disk(t)
		cfg.FS = disk
		s, _, err := p.w.clone().open(cfg, 0)
		if err == nil {
			s.Abandon()
		}
		var corrupt *CorruptError
		if !errors.As(err, &corrupt) || errors.Is(err, errWrong) {
			t.Errorf("%s: %v", name, err)
		}
		for path, data := range takeImage(t, disk, "data") {
			if !bytes.Equal(img[path], data) {
				t.Errorf("%s: %s was changed", name, path)
			}
		}
	}
}

// Without this a person looks for a cut tail in the journal, or in a directory of many files.
func TestTornLogIsNamed(t *testing.T) {
	p := newSample(t, 24<<10, 8<<10, 300, true)
	var mu sync.Mutex
	var torn []TornTail
	cfg := p.cfg
	cfg.Events.TornTail = func(tail TornTail) { mu.Lock(); torn = append(torn, tail); mu.Unlock() }
	valid := p.img[p.tail][:p.synced[p.tail]]
	disk := p.img.with(p.tail, append(slices.Clone(valid), "garbage"...)).disk(t)
	cfg.FS = disk
	s, _, err := p.w.clone().open(cfg, 0)
	if err != nil {
		t.Fatal(err)
	}
	s.Abandon()
	for _, tail := range torn {
		if tail.Incarnation == 0 {
			continue
		}
		if tail.File != p.tail || tail.Offset != int64(len(valid)) || tail.Bytes != 7 {
			t.Errorf("reported: %+v", tail)
		}
		if saved, err := readAll(disk, tail.SavedAs); err != nil || string(saved) != "garbage" {
			t.Errorf("the copy has %q, %v", saved, err)
		}
		return
	}
	t.Error("nothing was reported of the log")
}
