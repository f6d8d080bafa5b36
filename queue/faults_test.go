package queue

// What the tests are worth: each file in testdata/faults names a fault, the edit that makes it, and the tests that must notice it.
// The edit is made in a copy of the source, so it costs some seconds each and runs only when asked for:
//
//	go test ./queue -run TestDeliberateFaults -faults -v

import (
	"flag"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
)

var faults = flag.Bool("faults", false, "break a copy of the code on purpose and see that the tests notice")

// faultArgs are for tests that would search for the shortest example, which takes long.
var faultArgs = map[string][]string{"./queue/machine": {"-rapid.nofailfile", "-rapid.shrinktime=1ms"}}

// A fault whose text is not there any more would be found out only by the long form.
func TestDeliberateFaultsFitTheCode(t *testing.T) {
	for _, archive := range faultFiles(t) {
		edit(t, "..", archive, false)()
	}
}

// faultFiles are the faults by their file's name.
func faultFiles(t *testing.T) map[string]*txtar.Archive {
	t.Helper()
	files, err := filepath.Glob("testdata/faults/*.txt")
	if err != nil || len(files) < 25 {
		t.Fatalf("%d faults, %v", len(files), err)
	}
	archives := make(map[string]*txtar.Archive)
	for _, file := range files {
		if archives[file], err = txtar.ParseFile(file); err != nil {
			t.Fatal(err)
		}
	}
	return archives
}

func TestDeliberateFaults(t *testing.T) {
	if !*faults {
		t.Skip("needs -faults")
	}
	archives := faultFiles(t)
	root, clean := copySource(t), map[string]bool{}
	for _, file := range slices.Sorted(maps.Keys(archives)) {
		archive := archives[file]
		what, list, _ := strings.Cut(string(archive.Comment), "\n")
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			var tests [][]string
			for _, line := range strings.Split(strings.TrimSpace(list), "\n") {
				tests = append(tests, strings.Fields(strings.TrimPrefix(line, "test: ")))
				if key := strings.Join(tests[len(tests)-1], " "); !clean[key] {
					if out, err := runTest(root, tests[len(tests)-1]); err != nil {
						t.Fatalf("%s fails without the fault:\n%s", key, out)
					}
					clean[key] = true
				}
			}
			undo := edit(t, root, archive, true)
			defer undo()
			for _, test := range tests {
				began := time.Now()
				out, err := runTest(root, test)
				switch {
				case err == nil:
					t.Errorf("%s\n%s did not notice", what, strings.Join(test, " "))
				case strings.Contains(out, "panic: test timed out"), !strings.Contains(out, "--- FAIL: "+test[1]) && !strings.Contains(out, "panic: "):
					t.Errorf("%s\n%s failed in another way:\n%s", what, strings.Join(test, " "), out)
				default:
					t.Logf("%s noticed it within %.1f s, compiling included", strings.Join(test, " "), time.Since(began).Seconds())
				}
			}
		})
	}
}

// copySource copies what package queue is built of into a new directory.
func copySource(t *testing.T) string {
	root := t.TempDir()
	for _, name := range []string{"go.mod", "go.sum", "queue", "wal"} {
		from := filepath.Join("..", name)
		err := filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			to := filepath.Join(root, name, strings.TrimPrefix(path, from))
			if entry.IsDir() {
				return os.MkdirAll(to, 0o755)
			}
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return os.WriteFile(to, text, 0o644)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// edit makes the fault, or only looks whether it could, and returns how to take it back. The text that it replaces must be there exactly once: else the code has
// changed, and the fault must be thought of anew.
func edit(t *testing.T, root string, archive *txtar.Archive, write bool) (undo func()) {
	t.Helper()
	if len(archive.Files) != 2 {
		t.Fatalf("%d texts; one before and one after are wanted", len(archive.Files))
	}
	name, isBefore := strings.CutPrefix(archive.Files[0].Name, "before ")
	after, isAfter := strings.CutPrefix(archive.Files[1].Name, "after ")
	if !isBefore || !isAfter || name != after {
		t.Fatalf("the texts are named %q and %q", archive.Files[0].Name, archive.Files[1].Name)
	}
	path := filepath.Join(root, filepath.FromSlash(name))
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	old, changed := strings.TrimRight(string(archive.Files[0].Data), "\n"), strings.TrimRight(string(archive.Files[1].Data), "\n")
	if n := strings.Count(string(whole), old); n != 1 {
		t.Fatalf("%s holds this text %d times, not once:\n%s", name, n, old)
	}
	if !write {
		return func() {}
	}
	if err := os.WriteFile(path, []byte(strings.Replace(string(whole), old, changed, 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := os.WriteFile(path, whole, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// runTest runs one test, named by package and name, in the copy.
func runTest(root string, test []string) (string, error) {
	args := append([]string{"test", test[0], "-count=1", "-timeout=120s", "-run=^" + test[1] + "$"}, faultArgs[test[0]]...)
	cmd := exec.Command("go", args...)
	cmd.Dir = root
	out, err := cmd.CombinedOutput()
	const most = 4000
	return string(out[:min(len(out), most)]), err
}
