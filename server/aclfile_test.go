package server

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"quail/commands"
	"quail/commands/acl"
	"quail/wal/vfs"
)

func noPassword() string { return "" }

// savedFile is a file that ACL SAVE wrote, with users that have every kind of rule.
func savedFile(t *testing.T) (path string, content []byte, lines []string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "users.acl")
	users := commands.NewUsers()
	for name, rules := range map[string]string{
		"default":  "off resetpass",
		"producer": "on >push %W~orders* +@produce",
		"consumer": "on >pull ~orders* %R~stats +@consume +client|id -qnack",
	} {
		var words [][]byte
		for _, rule := range strings.Fields(rules) {
			words = append(words, []byte(rule))
		}
		if err := users.Set([]byte(name), words); err != nil {
			t.Fatal(err)
		}
	}
	if err := NewACLFile(vfs.OS, path, users, noPassword).Save(); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v: others can read the digests", info.Mode())
	}
	return path, content, users.Lines()
}

// A damaged rule that grants more than was granted would open the server, and nobody would see it.
func TestRotOfTheACLFileNeverGrants(t *testing.T) {
	path, content, lines := savedFile(t)
	want := strings.Join(lines, "\n")
	load := func(damaged []byte) (*acl.Users, error) {
		if err := os.WriteFile(path, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		users := commands.NewUsers()
		_, _, err := NewACLFile(vfs.OS, path, users, noPassword).Load()
		return users, err
	}
	check := func(damaged []byte, what string, at int) {
		if users, err := load(damaged); err == nil && strings.Join(users.Lines(), "\n") != want {
			t.Fatalf("%s at byte %d was not noticed:\n%s", what, at, damaged)
		}
	}
	if users, err := load(content); err != nil || strings.Join(users.Lines(), "\n") != want {
		t.Fatalf("the file as it was saved: %v", err)
	}
	for i := range content {
		for _, other := range []byte{content[i] ^ 1, content[i] ^ 0x20, content[i] ^ 0x80, 0, '\n', ' ', '*', '+'} {
			damaged := append([]byte(nil), content...)
			damaged[i] = other
			check(damaged, "rot", i)
		}
		if _, err := load(content[:i]); err == nil {
			t.Fatalf("a file cut at byte %d was taken", i)
		}
		check(append(append([]byte(nil), content[:i]...), content[i+1:]...), "a lost byte", i)
	}
}

// All lines that are wrong are told, with their numbers, and no user changes.
func TestACLFileIsTakenWholeOrNotAtAll(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users.acl")
	for _, c := range []struct{ content, password, want string }{
		{"user default on nopass ~* +@all\nuser a on +nonesuch\nusr b\nuser c c\nuser a on\nuser\n", "",
			path + ":2: Error in applying operation '+nonesuch': Unknown command or category name in ACL. " + path +
				":3 should start with user keyword followed by the username. " + path + ":4: Error in applying operation 'c': Syntax error. " +
				"WARNING: Duplicate user 'a' found on line 5. " + path + ":6 should start with user keyword followed by the username."},
		{"", "", "has no line for the user default"},
		{"user a on >p\n", "", "has no line for the user default"},
		{"user default on nopass ~* +@all\n", "secret", "remove one of them"},
		{"user default on #secret\n", "", "'#(redacted)'"},
		{"user default on nopass ~* +@all\nuser a on\n", "", ""},
		{"user a on\n", "secret", ""},
	} {
		if err := os.WriteFile(path, []byte(c.content), 0o600); err != nil {
			t.Fatal(err)
		}
		users := commands.NewUsers()
		before := strings.Join(users.Lines(), "\n")
		_, _, err := NewACLFile(vfs.OS, path, users, func() string { return c.password }).Load()
		if c.want == "" {
			if err != nil || users.Lookup([]byte("a")) == nil || users.Default().Rights().Open() != (c.password == "") {
				t.Errorf("%q: %v", c.content, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: got %v\nwant %s", c.content, err, c.want)
		}
		if after := strings.Join(users.Lines(), "\n"); after != before {
			t.Errorf("%q changed the users to %s", c.content, after)
		}
	}
}

// A save that fails half way must leave the old file, whole.
func TestFailedSaveLeavesTheOldFile(t *testing.T) {
	for n := 1; ; n++ {
		path, content, _ := savedFile(t)
		users := commands.NewUsers()
		disk := vfs.NewFailing(vfs.OS)
		if _, _, err := NewACLFile(disk, path, users, noPassword).Load(); err != nil {
			t.Fatal(err)
		}
		if err := users.Set([]byte("another"), nil); err != nil {
			t.Fatal(err)
		}
		disk.FailAt(disk.Count()+n, errors.New("no space left"))
		err := NewACLFile(disk, path, users, noPassword).Save()
		now, readErr := os.ReadFile(path)
		if readErr != nil {
			t.Fatal(readErr)
		}
		if err == nil {
			if n < 5 || !strings.Contains(string(now), "user another") {
				t.Fatalf("failure %d was not noticed", n)
			}
			return
		}
		if string(now) != string(content) && !strings.Contains(string(now), "user another") {
			t.Fatalf("failure %d left another file:\n%s", n, now)
		}
	}
}

// Without this a file that was emptied by mistake takes all users away, and a requirepass that was out of use opens everything.
func TestEmptiedACLFileIsNotLoaded(t *testing.T) {
	path, _, lines := savedFile(t)
	users := commands.NewUsers()
	file := NewACLFile(vfs.OS, path, users, func() string { return "left over" })
	if _, _, err := file.Load(); err != nil {
		t.Fatal(err)
	}
	for _, emptied := range []string{"", "# nothing\n\n"} {
		if err := os.WriteFile(path, []byte(emptied), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, err := file.Load(); err == nil || !strings.Contains(err.Error(), "names no user") {
			t.Errorf("%q: %v", emptied, err)
		}
		if got := users.Lines(); strings.Join(got, "\n") != strings.Join(lines, "\n") {
			t.Errorf("%q: the users are %q now", emptied, got)
		}
	}
	if _, _, err := NewACLFile(vfs.OS, path, commands.NewUsers(), func() string { return "secret" }).Load(); err != nil {
		t.Errorf("at a start a file without users is the beginning of one: %v", err)
	}
}
