package vfs

// A file system in memory that remembers what a power cut could take away.
//
// Every file has two contents: the one that reads see, and the one that was synced; a bitmap says in which sectors of
// 512 bytes they may differ. Every directory has two sets of names in the same way: Lossy keeps the synced names, and a
// list of the changes (link, unlink, rename) since their directory was last synced. Crash takes the synced state and
// throws dice for the rest: each un-synced sector and each un-synced change of names is there or not, independent of the
// others. That is harsher than any real file system, which keeps some order; so what survives here survives there.
// In particular Sync of a file does not make its name durable: only SyncDir does.

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"syscall"
	"time"
)

// ErrCrashed is what a Lossy file system and its open files return after Crash was called on it.
var ErrCrashed = errors.New("the power is off")

// Lossy is a file system in memory that loses, in Crash, what was not synced. The zero value is not usable.
type Lossy struct {
	mu      sync.Mutex // guards everything below and every node; there is no IO to hold it during
	root    *node
	pending []change // un-synced changes of names, oldest first
	dice    *rand.Rand
	crashed bool
	// capacity bounds the sizes of all files together; 0: nothing does. See lossyspace.go.
	capacity int64
}

// node is a file or a directory.
type node struct {
	dir     bool
	mode    os.FileMode
	modTime time.Time

	// Of a directory: the names that reads see, and those that are durable.
	names   map[string]*node
	durable map[string]*node

	// Of a file: see lossyfile.go.
	content
	locked *lossyFile
}

// change is one un-synced change of names. A rename has both sides and happens as a whole or not at all.
type change struct {
	fromDir  *node // nil: nothing is taken away
	fromName string
	toDir    *node // nil: nothing is put
	toName   string
	target   *node
}

// NewLossy makes an empty file system, with a root directory that is also the working directory. The seed decides what
// each Crash leaves, so a failing test can be run again.
func NewLossy(seed uint64) *Lossy {
	return &Lossy{root: newDir(0o755), dice: rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15))}
}

func newDir(perm os.FileMode) *node {
	return &node{dir: true, mode: os.ModeDir | perm.Perm(), names: map[string]*node{}, durable: map[string]*node{}}
}

// Crash cuts the power. It returns the file system as it is found afterwards, everything in it durable; this one and
// all its open files return ErrCrashed from then on. The seed of the new one comes from this one's dice.
func (l *Lossy) Crash() *Lossy {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.crashed = true
	keep := l.keepRate()
	for _, c := range l.pending {
		if l.dice.Float64() < keep {
			c.apply(func(n *node) map[string]*node { return n.durable })
		}
	}
	after := NewLossy(l.dice.Uint64())
	after.capacity = l.capacity
	copied := map[*node]*node{l.root: after.root}
	l.copyDurable(l.root, after.root, copied)
	return after
}

// Kill frees the locks that a process held which was killed: the kernel keeps what it wrote, synced or not. The files that it had open must
// not be used any more.
func (l *Lossy) Kill() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.root.unlock()
}

func (n *node) unlock() {
	n.locked = nil
	for _, child := range n.names {
		child.unlock()
	}
}

// Rot flips one bit of a file, on the disk and for those who read. An error means that there is no such byte.
func (l *Lossy) Rot(name string, offset int64, bit uint) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, err := l.find("rot", name)
	if err != nil {
		return err
	}
	if n.dir || offset >= int64(min(len(n.live), len(n.synced))) {
		return &os.PathError{Op: "rot", Path: name, Err: syscall.EINVAL}
	}
	n.live[offset] ^= 1 << bit
	n.synced[offset] ^= 1 << bit
	return nil
}

// keepRate is how likely an un-synced change survives. Nothing, everything and the dice for each one: all three find
// mistakes that the others hide.
func (l *Lossy) keepRate() float64 {
	switch l.dice.IntN(4) {
	case 0:
		return 0
	case 1:
		return 1
	default:
		return l.dice.Float64()
	}
}

// copyDurable copies what survived below from, in the order of names, so that equal seeds give equal results.
func (l *Lossy) copyDurable(from, to *node, copied map[*node]*node) {
	for _, name := range sortedNames(from.durable) {
		child := from.durable[name]
		twin, done := copied[child]
		if !done {
			twin = &node{dir: child.dir, mode: child.mode, modTime: child.modTime}
			copied[child] = twin
			if child.dir {
				twin.names, twin.durable = map[string]*node{}, map[string]*node{}
				l.copyDurable(child, twin, copied)
			} else {
				twin.content = child.content.crash(l.dice, l.keepRate())
			}
		}
		to.names[name], to.durable[name] = twin, twin
	}
}

func sortedNames(names map[string]*node) []string {
	sorted := make([]string, 0, len(names))
	for name := range names {
		sorted = append(sorted, name)
	}
	sort.Strings(sorted)
	return sorted
}

func (c *change) apply(names func(*node) map[string]*node) {
	if c.fromDir != nil {
		delete(names(c.fromDir), c.fromName)
	}
	if c.toDir != nil {
		names(c.toDir)[c.toName] = c.target
	}
}

// change makes a change of names visible and remembers that it is not durable.
func (l *Lossy) change(c change) {
	c.apply(func(n *node) map[string]*node { return n.names })
	l.pending = append(l.pending, c)
}

// split walks to name's directory. Relative names start at the root.
func (l *Lossy) split(op, name string) (dir *node, base string, err error) {
	if l.crashed {
		return nil, "", &os.PathError{Op: op, Path: name, Err: ErrCrashed}
	}
	parts := strings.Split(strings.Trim(filepath.ToSlash(filepath.Clean(name)), "/"), "/")
	dir = l.root
	for _, part := range parts[:len(parts)-1] {
		next := dir.names[part]
		if next == nil {
			return nil, "", &os.PathError{Op: op, Path: name, Err: syscall.ENOENT}
		}
		if !next.dir {
			return nil, "", &os.PathError{Op: op, Path: name, Err: syscall.ENOTDIR}
		}
		dir = next
	}
	return dir, parts[len(parts)-1], nil
}

// find is the node at name.
func (l *Lossy) find(op, name string) (*node, error) {
	dir, base, err := l.split(op, name)
	if err != nil {
		return nil, err
	}
	if base == "." || base == "" {
		return l.root, nil
	}
	n := dir.names[base]
	if n == nil {
		return nil, &os.PathError{Op: op, Path: name, Err: syscall.ENOENT}
	}
	return n, nil
}

// Open implements FS.
func (l *Lossy) Open(name string) (File, error) { return l.OpenFile(name, os.O_RDONLY, 0) }

// OpenFile implements FS.
func (l *Lossy) OpenFile(name string, flag int, perm os.FileMode) (File, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, err := l.find("open", name)
	switch {
	case err != nil && (flag&os.O_CREATE == 0 || !errors.Is(err, fs.ErrNotExist)):
		return nil, err
	case err != nil:
		dir, base, err := l.split("open", name)
		if err != nil {
			return nil, err
		}
		n = &node{mode: perm.Perm(), modTime: time.Now()}
		l.change(change{toDir: dir, toName: base, target: n})
	case flag&os.O_CREATE != 0 && flag&os.O_EXCL != 0:
		return nil, &os.PathError{Op: "open", Path: name, Err: syscall.EEXIST}
	case n.dir && flag&(os.O_WRONLY|os.O_RDWR|os.O_TRUNC) != 0:
		return nil, &os.PathError{Op: "open", Path: name, Err: syscall.EISDIR}
	}
	f := &lossyFile{fs: l, node: n, name: name, flag: flag}
	if flag&os.O_TRUNC != 0 {
		n.truncate(0)
	}
	return f, nil
}

// Mkdir implements FS.
func (l *Lossy) Mkdir(name string, perm os.FileMode) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mkdir(name, perm)
}

func (l *Lossy) mkdir(name string, perm os.FileMode) error {
	dir, base, err := l.split("mkdir", name)
	if err != nil {
		return err
	}
	if base == "." || base == "" || dir.names[base] != nil {
		return &os.PathError{Op: "mkdir", Path: name, Err: syscall.EEXIST}
	}
	l.change(change{toDir: dir, toName: base, target: newDir(perm)})
	return nil
}

// MkdirAll implements FS.
func (l *Lossy) MkdirAll(name string, perm os.FileMode) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mkdirAll(filepath.Clean(name), perm)
}

func (l *Lossy) mkdirAll(name string, perm os.FileMode) error {
	n, err := l.find("mkdir", name)
	if err == nil {
		if !n.dir {
			return &os.PathError{Op: "mkdir", Path: name, Err: syscall.ENOTDIR}
		}
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := l.mkdirAll(filepath.Dir(name), perm); err != nil {
		return err
	}
	return l.mkdir(name, perm)
}

// Remove implements FS.
func (l *Lossy) Remove(name string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, err := l.find("remove", name)
	if err != nil {
		return err
	}
	if n == l.root {
		return &os.PathError{Op: "remove", Path: name, Err: syscall.EBUSY}
	}
	if n.dir && len(n.names) > 0 {
		return &os.PathError{Op: "remove", Path: name, Err: syscall.ENOTEMPTY}
	}
	dir, base, _ := l.split("remove", name)
	l.change(change{fromDir: dir, fromName: base})
	return nil
}

// RemoveAll implements FS.
func (l *Lossy) RemoveAll(name string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, err := l.find("unlinkat", name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	l.clear(n)
	if n != l.root {
		dir, base, _ := l.split("unlinkat", name)
		l.change(change{fromDir: dir, fromName: base})
	}
	return nil
}

func (l *Lossy) clear(n *node) {
	for _, name := range sortedNames(n.names) {
		l.clear(n.names[name])
		l.change(change{fromDir: n, fromName: name})
	}
}

// Rename implements FS.
func (l *Lossy) Rename(oldName, newName string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	fail := func(err error) error {
		return &os.LinkError{Op: "rename", Old: oldName, New: newName, Err: err}
	}
	fromDir, from, err := l.split("rename", oldName)
	if err != nil {
		return fail(errors.Unwrap(err))
	}
	toDir, to, err := l.split("rename", newName)
	if err != nil {
		return fail(errors.Unwrap(err))
	}
	n, err := l.find("rename", oldName)
	if err != nil {
		return fail(errors.Unwrap(err))
	}
	if n == l.root || to == "." || to == "" {
		return fail(syscall.EBUSY)
	}
	switch there := toDir.names[to]; {
	case there != nil && there.dir:
		return fail(syscall.EEXIST) // as os.Rename, which replaces no directory
	case there != nil && n.dir:
		return fail(syscall.ENOTDIR)
	}
	if fromDir != toDir || from != to {
		l.change(change{fromDir: fromDir, fromName: from, toDir: toDir, toName: to, target: n})
	}
	return nil
}

// ReadDir implements FS.
func (l *Lossy) ReadDir(name string) ([]os.DirEntry, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, err := l.find("open", name)
	if err != nil {
		return nil, err
	}
	if !n.dir {
		return nil, &os.PathError{Op: "readdirent", Path: name, Err: syscall.ENOTDIR}
	}
	entries := make([]os.DirEntry, 0, len(n.names))
	for _, child := range sortedNames(n.names) {
		entries = append(entries, fs.FileInfoToDirEntry(n.names[child].info(child)))
	}
	return entries, nil
}

// Stat implements FS.
func (l *Lossy) Stat(name string) (os.FileInfo, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, err := l.find("stat", name)
	if err != nil {
		return nil, err
	}
	return n.info(filepath.Base(name)), nil
}

// SyncDir implements FS. A rename between two directories becomes durable as a whole with either of them.
func (l *Lossy) SyncDir(name string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, err := l.find("sync", name)
	if err != nil {
		return err
	}
	if !n.dir {
		return &os.PathError{Op: "sync", Path: name, Err: syscall.ENOTDIR}
	}
	rest := l.pending[:0]
	for _, c := range l.pending {
		if c.fromDir == n || c.toDir == n {
			c.apply(func(n *node) map[string]*node { return n.durable })
		} else {
			rest = append(rest, c)
		}
	}
	clear(l.pending[len(rest):])
	l.pending = rest
	return nil
}

// nodeInfo is a node as os.FileInfo.
type nodeInfo struct {
	name    string
	size    int64
	mode    os.FileMode
	modTime time.Time
	node    *node
}

func (n *node) info(name string) os.FileInfo {
	return nodeInfo{name: name, size: int64(len(n.live)), mode: n.mode, modTime: n.modTime, node: n}
}

func (i nodeInfo) Name() string       { return i.name }
func (i nodeInfo) Size() int64        { return i.size }
func (i nodeInfo) Mode() os.FileMode  { return i.mode }
func (i nodeInfo) ModTime() time.Time { return i.modTime }
func (i nodeInfo) IsDir() bool        { return i.mode.IsDir() }
func (i nodeInfo) Sys() any           { return i.node }
