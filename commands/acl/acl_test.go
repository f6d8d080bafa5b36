package acl

import (
	"strings"
	"testing"
)

func testUsers() *Users {
	return NewUsers(NewCatalogue([]Command{
		{Name: "push", Parent: -1, Categories: []string{"write"}},
		{Name: "client", Parent: -1},
		{Name: "client|id", Parent: 1, Categories: []string{"read"}},
		{Name: "client|kill", Parent: 1, Categories: []string{"admin"}},
	}, func(pattern, name string) bool {
		return pattern == "*" || pattern == name
	}))
}

func words(text string) (list [][]byte) {
	for _, word := range strings.Fields(text) {
		list = append(list, []byte(word))
	}
	return list
}

// A user who may only look must not be able to take, and one right must not stand in for the other.
func TestReadAndWriteAreTwoRights(t *testing.T) {
	r, err := testUsers().Make(words("%R~a %W~b ~c %R~d %W~d %R~*"))
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]Access{"a": Read, "b": Read | Write, "c": Read | Write, "d": Read | Write, "other": Read} {
		for _, access := range []Access{Read, Write} {
			if r.MayAccess([]byte(key), access) != (want&access != 0) {
				t.Errorf("%s: access %d", key, access)
			}
		}
	}
	if r.MayAccess([]byte("a"), Read|Write) || r.MayAccess([]byte("b"), Read|Write) || !r.MayAccess([]byte("d"), Read|Write) {
		t.Error("read and write together must come from one pattern, as in Redis")
	}
	if !r.MayAccessAll(Read) || r.MayAccessAll(Write) {
		t.Error("access to all queues")
	}
}

// What is written to the ACL file must make the same rights again, or a restart would change who may do what.
func TestRulesMakeTheSameRightsAgain(t *testing.T) {
	users := testUsers()
	for _, c := range []struct{ rules, allowed string }{
		{"", ""},
		{"on >x +@all -client|kill ~*", "push client client|id"},
		{"+client -client|kill +@write", "push client client|id"},
		{"+client|kill -client", ""},
		{"-@admin +@admin -@read +client|id", "client|id client|kill"},
		{"+@all -@all +push", "push"},
		{"nopass %R~a %W~b +@all ~*", "push client client|id client|kill"},
		{"on +push reset", ""},
	} {
		r, err := users.Make(words(c.rules))
		if err != nil {
			t.Fatalf("%s: %v", c.rules, err)
		}
		d, ok := SplitLine([]byte("user u " + r.String()))
		if !ok {
			t.Fatal(r.String())
		}
		again, err := users.Make(d.Rules)
		if err != nil || again.String() != r.String() || again.All() != r.All() || again.NoPass() != r.NoPass() {
			t.Errorf("%s: %s becomes %v (%v)", c.rules, r, again, err)
			continue
		}
		for i, command := range users.Catalogue().Commands {
			want := strings.Contains(" "+c.allowed+" ", " "+command.Name+" ")
			if r.MayRun(i) != want || again.MayRun(i) != want {
				t.Errorf("%s: %s allowed %v, again %v", c.rules, command.Name, r.MayRun(i), again.MayRun(i))
			}
		}
	}
}

// A deleted user's connections hold the pointer until they are closed: it must not be worth anything.
func TestDeletedUserMayDoNothing(t *testing.T) {
	users := testUsers()
	if err := users.Set([]byte("u"), words("on >x +@all ~*")); err != nil {
		t.Fatal(err)
	}
	u := users.Authenticate([]byte("u"), []byte("x"))
	if u == nil || !u.Rights().All() || users.Authenticate([]byte("u"), []byte("y")) != nil || users.Authenticate([]byte("v"), []byte("x")) != nil {
		t.Fatal("authentication")
	}
	if _, err := users.Delete([][]byte{[]byte("u")}); err != nil {
		t.Fatal(err)
	}
	if u.Rights().All() || u.Rights().MayRun(0) || u.Rights().MayAccess([]byte("a"), Read) {
		t.Error("it may still do something")
	}
}
