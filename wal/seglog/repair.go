package seglog

// Carrying out a plan of inspect.go.
//
// The power may go at any step, and of the steps done any subset may survive until the directory is synced at the end.
// That is harmless: each step only takes away what the checkpoint does not need, so Open, called again with the same
// checkpoint, finds one of the states it knows. Torn bytes are safe in their copy before they are cut.

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"quail/wal/vfs"
)

// Modes of what is created; message bodies are no one else's business.
const (
	dirPerm  = 0o750
	filePerm = 0o640
)

// repair does what p says.
func (p *plan) repair(cfg Config) (Report, error) {
	var report Report
	if p.missing {
		if err := makeDir(cfg.FS, cfg.Dir); err != nil {
			return report, fmt.Errorf("make log directory: %w", err)
		}
	}
	for i := range p.cuts {
		if err := p.cuts[i].setAside(cfg, &report); err != nil {
			return report, fmt.Errorf("copy torn tail: %w", err)
		}
	}
	for _, step := range []func(Config, *Report) error{p.finishTruncation, p.removeCovered, p.removeFront, p.cutTail, p.createFirst} {
		if err := step(cfg, &report); err != nil {
			return report, fmt.Errorf("repair log: %w", err)
		}
	}
	if p.changed() {
		if err := cfg.FS.SyncDir(cfg.Dir); err != nil {
			return report, fmt.Errorf("repair log: %w", err)
		}
	}
	return report, nil
}

// changed tells whether any name in the directory changes. Truncated files are synced for themselves.
func (p *plan) changed() bool {
	whole := false
	for i := range p.cuts {
		whole = whole || p.cuts[i].whole
	}
	return whole || p.create || len(p.temps)+len(p.replaced)+len(p.covered)+len(p.renames)+len(p.front) > 0
}

// makeDir makes a directory that is durable, with its parents.
func makeDir(fsys vfs.FS, dir string) error {
	if _, err := fsys.Stat(dir); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := filepath.Dir(dir)
	if err := makeDir(fsys, parent); err != nil {
		return err
	}
	if err := fsys.Mkdir(dir, dirPerm); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := fsys.SyncDir(parent); err != nil {
		// Whoever tries again must not find it there, and take its name for durable.
		if removeErr := fsys.Remove(dir); removeErr != nil {
			return fmt.Errorf("%v; %w", err, removeErr)
		}
		return err
	}
	return nil
}

// setAside counts what the cut takes away and copies the torn part of it.
func (c *cut) setAside(cfg Config, report *Report) error {
	report.CutRecords += c.records
	report.CutBytes += c.validEnd - c.offset
	torn := c.size - c.validEnd
	if torn == 0 {
		return nil
	}
	report.TornBytes += torn
	part := TornPart{File: filepath.Join(cfg.Dir, c.name), Offset: c.validEnd, Bytes: torn}
	if cfg.DamagedDir == "" {
		report.Torn = append(report.Torn, part)
		return nil
	}
	if err := makeDir(cfg.FS, cfg.DamagedDir); err != nil {
		return err
	}
	part.SavedAs = filepath.Join(cfg.DamagedDir, fmt.Sprintf("%d-%s-%d.torn", cfg.Incarnation, segmentName(c.first), c.validEnd))
	if err := copyPart(cfg.FS, part.SavedAs, part.File, part.Offset, torn); err != nil {
		return err
	}
	report.Torn = append(report.Torn, part)
	return cfg.FS.SyncDir(cfg.DamagedDir)
}

// copyPart copies size bytes of a file, from offset on, into a new file, and syncs it.
func copyPart(fsys vfs.FS, to, from string, offset, size int64) (err error) {
	src, err := fsys.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := fsys.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, filePerm)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := dst.Close(); err == nil {
			err = closeErr
		}
	}()
	if _, err := io.Copy(dst, io.NewSectionReader(src, offset, size)); err != nil {
		return err
	}
	return dst.Sync()
}

func (p *plan) finishTruncation(cfg Config, report *Report) error {
	for _, names := range [][]string{p.temps, p.replaced} {
		for _, name := range names {
			if err := cfg.FS.Remove(filepath.Join(cfg.Dir, name)); err != nil {
				return err
			}
		}
	}
	for _, f := range p.renames {
		if err := cfg.FS.Rename(filepath.Join(cfg.Dir, f.name), filepath.Join(cfg.Dir, f.rename)); err != nil {
			return err
		}
		report.Leftovers = append(report.Leftovers, f.name)
	}
	report.Leftovers = append(report.Leftovers, p.temps...)
	return nil
}

func (p *plan) removeFront(cfg Config, report *Report) error {
	for _, f := range p.front {
		if err := cfg.FS.Remove(filepath.Join(cfg.Dir, f.finalName())); err != nil {
			return err
		}
		report.FrontSegments++
		report.FrontBytes += f.size
	}
	return nil
}

// cutTail removes whole segments from the last one down, and then cuts the tail in place: it keeps its inode, so no
// descriptor can be left that points to a file which is not the tail any more.
func (p *plan) cutTail(cfg Config, _ *Report) error {
	for i := range p.cuts {
		c := &p.cuts[i]
		name := filepath.Join(cfg.Dir, c.finalName())
		if c.whole {
			if err := cfg.FS.Remove(name); err != nil {
				return err
			}
		} else if err := truncate(cfg.FS, name, c.offset); err != nil {
			return err
		}
	}
	return nil
}

// truncate cuts a file, durably.
func truncate(fsys vfs.FS, name string, size int64) (err error) {
	f, err := fsys.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := f.Close(); err == nil {
			err = closeErr
		}
	}()
	if err := f.Truncate(size); err != nil {
		return err
	}
	return f.Sync()
}

// removeCovered removes what a rewritten segment stands for. Its own name must be durable before.
func (p *plan) removeCovered(cfg Config, report *Report) error {
	if len(p.covered) == 0 {
		return nil
	}
	if err := cfg.FS.SyncDir(cfg.Dir); err != nil {
		return err
	}
	for _, name := range p.covered {
		if err := cfg.FS.Remove(filepath.Join(cfg.Dir, name)); err != nil {
			return err
		}
	}
	report.Leftovers = append(report.Leftovers, p.covered...)
	return nil
}

// createFirst makes the empty segment of a log without records, or of one whose last segment is not to be appended to, so
// that it can begin at any LSN: tidwall/wal by itself begins at 1.
func (p *plan) createFirst(cfg Config, report *Report) error {
	if !p.create {
		return nil
	}
	report.Created = true
	return createEmpty(cfg.FS, filepath.Join(cfg.Dir, segmentName(p.segments[len(p.segments)-1].first)))
}

// createEmpty makes an empty file; its name is durable once the directory is synced.
func createEmpty(fsys vfs.FS, name string) error {
	f, err := fsys.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, filePerm)
	if err != nil {
		return err
	}
	return f.Close()
}
