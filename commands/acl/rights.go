// Package acl is who may do what: users, their passwords as SHA-256 digests, and rules in Redis's own language. It knows no
// connection and no file: the commands ask it, the server keeps the file.
//
// A user's rights are one value that never changes; a rule makes another one and swaps the pointer. So a connection keeps
// its *User, sees a change at its next command, and the check costs one load where everything is allowed.
package acl

import "crypto/sha256"

// The limits of one user and of all of them, so that no rule can fill the memory. They are far above what people write.
const (
	// UsersMax is how many users there may be.
	UsersMax = 10_000
	// NameBytesMax is the longest user name.
	NameBytesMax = 200
	// PasswordsMax is how many passwords a user may have; each costs one comparison at AUTH.
	PasswordsMax = 100
	// PatternsMax is how many key patterns a user may have; each may be tried at every command.
	PatternsMax = 1000
	// PatternBytesMax is the longest key pattern; a queue's name has at most 200 bytes.
	PatternBytesMax = 1000
	// RulesMax is how many command rules a user may have.
	RulesMax = 1000
)

// Access is what a command does to a queue: one of the bits, or both.
type Access uint8

// The kinds of access, as %R~ and %W~ grant them.
const (
	Read Access = 1 << iota
	Write
)

// Command is what the rules know of a command or subcommand. Its place in the catalogue is its number.
type Command struct {
	// Name is the full name in lower case: client|list.
	Name string
	// Parent is the number of the container, or -1.
	Parent int
	// Categories are without the @.
	Categories []string
}

// Catalogue is what there is to allow.
type Catalogue struct {
	// Commands are by number.
	Commands []Command
	// Match reports whether a queue's name fits a glob pattern.
	Match func(pattern, name string) bool

	byName     map[string]int
	categories map[string][]int
}

// NewCatalogue indexes the commands.
func NewCatalogue(commands []Command, match func(pattern, name string) bool) *Catalogue {
	c := &Catalogue{Commands: commands, Match: match, byName: map[string]int{}, categories: map[string][]int{}}
	for i, command := range commands {
		c.byName[command.Name] = i
		for _, category := range command.Categories {
			c.categories[category] = append(c.categories[category], i)
		}
	}
	return c
}

// Category lists the names of a category's commands; false if there is no such category.
func (c *Catalogue) Category(name string) (names []string, ok bool) {
	members, ok := c.categories[name]
	for _, i := range members {
		names = append(names, c.Commands[i].Name)
	}
	return names, ok
}

// pattern is one ~ rule.
type pattern struct {
	glob   string
	access Access
}

// Rights are what a user may do at one moment. They never change.
type Rights struct {
	catalogue *Catalogue
	enabled   bool
	noPass    bool
	hashes    [][sha256.Size]byte
	// rules are the command rules that make up commands, in order and without those that later ones made void.
	rules    []string
	commands []uint64 // a bit for each command
	patterns []pattern
	allKeys  bool
	// all: every command and every key. The hot path looks at nothing else.
	all bool
}

// All reports that nothing is forbidden.
func (r *Rights) All() bool { return r.all }

// Enabled reports whether the user may authenticate.
func (r *Rights) Enabled() bool { return r.enabled }

// NoPass reports whether any password is right.
func (r *Rights) NoPass() bool { return r.noPass }

// Open reports that no password is asked for.
func (r *Rights) Open() bool { return r.enabled && r.noPass }

// MayRun reports whether the command of that number is allowed.
func (r *Rights) MayRun(command int) bool {
	return r.commands[command/64]&(1<<(command%64)) != 0
}

// MayAccess reports whether the key may be used so. Read and write together must be granted by one pattern, as in Redis.
func (r *Rights) MayAccess(key []byte, access Access) bool {
	if r.allKeys {
		return true
	}
	name := string(key)
	for _, p := range r.patterns {
		if p.access&access == access && r.catalogue.Match(p.glob, name) {
			return true
		}
	}
	return false
}

// MayAccessAll reports whether all keys there may ever be may be used so.
func (r *Rights) MayAccessAll(access Access) bool {
	if r.allKeys {
		return true
	}
	for _, p := range r.patterns {
		if p.access&access == access && p.glob == "*" {
			return true
		}
	}
	return false
}

func (r *Rights) setBit(command int, allow bool) {
	if allow {
		r.commands[command/64] |= 1 << (command % 64)
	} else {
		r.commands[command/64] &^= 1 << (command % 64)
	}
}

// fresh is a new user's state, as in Redis: off, no password, nothing allowed.
func fresh(c *Catalogue) *Rights {
	return &Rights{catalogue: c, rules: []string{"-@all"}, commands: make([]uint64, (len(c.Commands)+63)/64)}
}
