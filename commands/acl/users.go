package acl

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// Default is who every connection is that names no other.
const Default = "default"

// User is one user. Connections keep the pointer; the rights behind it change.
type User struct {
	name   string
	rights atomic.Pointer[Rights]
}

// Name is how the user authenticates.
func (u *User) Name() string { return u.name }

// Rights are what the user may do now; a deleted user's are none.
func (u *User) Rights() *Rights { return u.rights.Load() }

func (u *User) line() string { return "user " + u.name + " " + u.Rights().String() }

// Users are all users of a server.
type Users struct {
	catalogue *Catalogue
	def       *User

	mu     sync.RWMutex     // guards byName, and serialises changes of rights; never held during IO
	byName map[string]*User // always with the default user
}

// NewUsers makes the default user alone, who needs no password and may do everything.
func NewUsers(c *Catalogue) *Users {
	u := &Users{catalogue: c, def: &User{name: Default}}
	rights, err := fresh(c).with([][]byte{[]byte("on"), []byte("nopass"), []byte("~*"), []byte("+@all")})
	if err != nil {
		panic(err) // these rules hold for every catalogue
	}
	u.def.rights.Store(rights)
	u.byName = map[string]*User{Default: u.def}
	return u
}

// Catalogue is what there is to allow.
func (u *Users) Catalogue() *Catalogue { return u.catalogue }

// Default is the user of connections that name no other.
func (u *Users) Default() *User { return u.def }

// Lookup finds a user; nil if there is none.
func (u *Users) Lookup(name []byte) *User {
	u.mu.RLock()
	defer u.mu.RUnlock()
	return u.byName[string(name)]
}

// Authenticate gives the user if the password is right and the user enabled, else nil. It hashes the password and compares
// with every digest of the user, and with one of nobody if there is no such user, so that time tells neither.
func (u *Users) Authenticate(name, password []byte) *User {
	got := sha256.Sum256(password)
	user := u.Lookup(name)
	rights := nobody
	if user != nil {
		rights = user.Rights()
	}
	right := subtle.ConstantTimeCompare(got[:], nobodysHash[:]) & 0
	for i := range rights.hashes {
		right |= subtle.ConstantTimeCompare(got[:], rights.hashes[i][:])
	}
	if !rights.enabled || !rights.noPass && right == 0 {
		return nil
	}
	return user
}

var (
	nobody      = &Rights{}
	nobodysHash [sha256.Size]byte
)

// SetPassword is the setting requirepass: the default user's only password, or, if it is empty, none is asked for.
func (u *Users) SetPassword(password string) {
	rules := [][]byte{[]byte("resetpass"), []byte(">" + password)}
	if password == "" {
		rules = [][]byte{[]byte("nopass")}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if rights, err := u.def.Rights().with(rules); err == nil {
		u.def.rights.Store(rights)
	}
}

// Set applies rules to a user, all or none, and makes the user if there is none. A *RuleError names the first that does not
// fit.
func (u *Users) Set(name []byte, rules [][]byte) error {
	if err := CheckName(name); err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	user := u.byName[string(name)]
	rights := fresh(u.catalogue)
	if user != nil {
		rights = user.Rights()
	} else if len(u.byName) >= UsersMax {
		return fmt.Errorf("there are %d users already, which is the limit; delete some with ACL DELUSER", UsersMax)
	}
	if len(rules) > 0 {
		var err error
		if rights, err = rights.with(rules); err != nil {
			return err
		}
	}
	if user == nil {
		user = &User{name: string(name)}
		u.byName[user.name] = user
	}
	user.rights.Store(rights)
	return nil
}

// ErrDefault: the default user stays.
var ErrDefault = errors.New("The 'default' user cannot be removed")

// Delete removes users and returns the names of those that were there. Connections that act as one may do nothing more.
func (u *Users) Delete(names [][]byte) (deleted []string, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, name := range names {
		if string(name) == Default {
			return nil, ErrDefault
		}
	}
	for _, name := range names {
		if user := u.byName[string(name)]; user != nil {
			delete(u.byName, user.name)
			user.rights.Store(fresh(u.catalogue))
			deleted = append(deleted, user.name)
		}
	}
	return deleted, nil
}

// Lines describe all users as an ACL file does, sorted by name.
func (u *Users) Lines() []string {
	var lines []string
	for _, user := range u.sorted() {
		lines = append(lines, user.line())
	}
	return lines
}

// Names are those of all users, sorted.
func (u *Users) Names() []string {
	var names []string
	for _, user := range u.sorted() {
		names = append(names, user.name)
	}
	return names
}

func (u *Users) sorted() []*User {
	u.mu.RLock()
	defer u.mu.RUnlock()
	list := make([]*User, 0, len(u.byName))
	for _, user := range u.byName {
		list = append(list, user)
	}
	slices.SortFunc(list, func(a, b *User) int { return strings.Compare(a.name, b.name) })
	return list
}

// Definition is one user of an ACL file.
type Definition struct {
	Name  []byte
	Rules [][]byte
}

// Make gives the rights that the rules make of a new user.
func (u *Users) Make(rules [][]byte) (*Rights, error) {
	if len(rules) == 0 {
		return fresh(u.catalogue), nil
	}
	return fresh(u.catalogue).with(rules)
}

// Replace puts others in the place of all users, and returns the names of those that are gone or have other rights now: their
// connections are to be closed. The default user's stay, with the new rights; without one among the new users it stays as it was.
func (u *Users) Replace(all map[string]*Rights) (changed []string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for name, user := range u.byName {
		rights, stays := all[name]
		switch {
		case name == Default:
		case !stays:
			delete(u.byName, name)
			user.rights.Store(fresh(u.catalogue))
			changed = append(changed, name)
		case rights.String() != user.Rights().String():
			changed = append(changed, name)
		}
	}
	for name, rights := range all {
		user := u.byName[name]
		if user == nil {
			user = &User{name: name}
			u.byName[name] = user
		}
		user.rights.Store(rights)
	}
	slices.Sort(changed)
	return changed
}

// SplitLine cuts a line of an ACL file into its name and rules; false if it does not begin with the word user and a name.
func SplitLine(line []byte) (d Definition, ok bool) {
	words := bytes.FieldsFunc(line, isSpace)
	if len(words) < 2 || string(words[0]) != "user" {
		return d, false
	}
	return Definition{Name: words[1], Rules: words[2:]}, true
}
