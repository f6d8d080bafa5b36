// Package quail_test keeps the house in order: which folder may import which, and what only certain folders may do.
// docs and reviews forget; this does not.
package quail_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// mayImport says which folders of Quail the code of a folder may import.
// Arrows run one way: cmd → server → commands → queue → {queue/machine, wal → wal/vfs}. A folder that is not in the
// list fails the test, so that a new one gets its place here with some thought.
var mayImport = map[string][]string{
	"cmd/quail/bench":        {}, // a client as any other
	"cmd/quail":              {"cmd/quail/bench", "server", "server/metrics", "server/settings", "commands", "commands/acl", "queue", "queue/machine", "wal", "wal/seglog", "wal/vfs"},
	"server/metrics":         {"commands", "queue"},
	"server":                 {"server/metrics", "server/guard", "server/poll", "server/reply", "server/settings", "commands", "commands/acl", "commands/resp", "queue", "queue/machine", "wal/vfs"},
	"server/guard":           {"commands"},
	"server/guard/reference": {}, // a second opinion, for tests
	"server/poll":            {},
	"server/reply":           {"commands", "commands/resp", "queue"},
	"server/settings":        {"commands", "queue", "queue/machine"},
	"commands":               {"commands/acl", "commands/resp", "queue", "queue/machine"},
	"commands/acl":           {},
	"commands/resp":          {},
	"queue":                  {"queue/machine", "wal", "wal/record", "wal/seglog", "wal/vfs"},
	"queue/machine":          {},
	"wal":                    {"wal/record", "wal/seglog", "wal/vfs"},
	"wal/seglog":             {"wal/record", "wal/vfs"},
	"wal/record":             {},
	"wal/vfs":                {},
}

// onlyIn says in which folders alone, and those below them, a library may be imported, by tests too.
var onlyIn = map[string][]string{
	"github.com/rs/zerolog":     {"cmd/quail", "server"},
	"github.com/tidwall/redcon": {"server"},
	"github.com/tidwall/wal":    {"wal/seglog"},
	"github.com/alecthomas":     {"cmd/quail", "server/settings"},
}

// neverInMachine are the ways to a clock, to chance, to another goroutine or to the disk. With one of them the same
// records could give two states on two machines.
var neverInMachine = []string{"crypto/rand", "io/fs", "math/rand", "math/rand/v2", "net", "os", "runtime", "sync", "sync/atomic", "syscall", "time"}

// neverCalled are folder names that say nothing of what is inside, so that anything ends up there.
var neverCalled = []string{"util", "utils", "common", "helper", "helpers", "misc"}

// osValues are the names of package os that touch no file: flags, types and errors.
var osValues = []string{"DirEntry", "FileInfo", "FileMode", "PathError", "ErrNotExist", "ErrExist", "ErrClosed", "ErrInvalid",
	"ErrPermission", "ModeDir", "ModePerm", "O_APPEND", "O_CREATE", "O_EXCL", "O_RDONLY", "O_RDWR", "O_TRUNC", "O_WRONLY",
	"SameFile", "IsNotExist", "IsExist"}

// source is one Go file of the repository.
type source struct {
	path   string // with slashes, from the root
	folder string
	isTest bool
	file   *ast.File
}

func (s source) imports() []string {
	var paths []string
	for _, spec := range s.file.Imports {
		path, _ := strconv.Unquote(spec.Path.Value)
		paths = append(paths, path)
	}
	return paths
}

func sources(t *testing.T) []source {
	t.Helper()
	var list []source
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		hidden := strings.HasPrefix(entry.Name(), ".") && path != "."
		if entry.IsDir() {
			if hidden || entry.Name() == "testdata" {
				return fs.SkipDir
			}
			if slices.Contains(neverCalled, entry.Name()) {
				t.Errorf("%s: a folder is named after its subject, not %q", path, entry.Name())
			}
			return nil
		}
		if hidden || !strings.HasSuffix(path, ".go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		path = filepath.ToSlash(path)
		list = append(list, source{path, filepath.ToSlash(filepath.Dir(path)), strings.HasSuffix(path, "_test.go"), file})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(list) < 10 {
		t.Fatalf("only %d files found: the test looks in the wrong place", len(list))
	}
	return list
}

// An arrow against the stream, once in, makes every later change twice as wide: a queue that knows of connections
// cannot be replicated.
func TestArrows(t *testing.T) {
	for _, s := range sources(t) {
		if s.isTest || s.folder == "integration" || strings.HasPrefix(s.folder, "integration/") {
			continue // a test may look at the whole house
		}
		allowed, known := mayImport[s.folder]
		if !known {
			t.Errorf("%s: folder %s has no place in mayImport", s.path, s.folder)
		}
		for _, path := range s.imports() {
			inner, ours := strings.CutPrefix(path, "quail/")
			if ours && !slices.Contains(allowed, inner) {
				t.Errorf("%s: %s may not import %s", s.path, s.folder, inner)
			}
		}
	}
}

func TestLibrariesStayWhereTheyBelong(t *testing.T) {
	for _, s := range sources(t) {
		for _, path := range s.imports() {
			for library, folders := range onlyIn {
				inside := path == library || strings.HasPrefix(path, library+"/")
				if inside && !slices.ContainsFunc(folders, func(f string) bool { return s.folder == f || strings.HasPrefix(s.folder, f+"/") }) {
					t.Errorf("%s: %s belongs in %s only", s.path, library, strings.Join(folders, " and "))
				}
			}
		}
	}
}

func TestMachineIsPure(t *testing.T) {
	for _, s := range sources(t) {
		if s.folder != "queue/machine" || s.isTest {
			continue
		}
		for _, path := range s.imports() {
			if slices.Contains(neverInMachine, path) {
				t.Errorf("%s: the machine may not import %s; what it needs of the world comes in a record", s.path, path)
			}
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			switch n.(type) {
			case *ast.GoStmt, *ast.ChanType, *ast.SelectStmt:
				t.Errorf("%s: the machine has no goroutines and no channels", s.path)
			}
			return true
		})
	}
}

// A file operation that goes around wal/vfs is one that no failing and no forgetful file system is ever tried on.
func TestFilesGoThroughVFS(t *testing.T) {
	for _, s := range sources(t) {
		if s.isTest || s.folder == "wal/vfs" || s.folder != "wal" && !strings.HasPrefix(s.folder, "wal/") {
			continue
		}
		for _, path := range s.imports() {
			if path == "syscall" || path == "io/ioutil" || strings.HasPrefix(path, "golang.org/x/sys") {
				t.Errorf("%s: %s belongs in wal/vfs", s.path, path)
			}
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			call, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if pkg, ok := call.X.(*ast.Ident); ok && pkg.Name == "os" && !slices.Contains(osValues, call.Sel.Name) {
				t.Errorf("%s: os.%s goes around wal/vfs", s.path, call.Sel.Name)
			}
			return true
		})
	}
}
