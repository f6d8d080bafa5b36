package commands

// The table of all commands, one line each, in the order of docs/commands.md. A command that is not here does not exist.

import "quail/commands/acl"

//go:generate go test -run TestPageIsFresh -update .

// table is filled at start and never changed. It is not initialised where it is declared because COMMAND's functions read
// it, which the compiler would see as a circle.
var (
	table  []*Spec
	byName map[string]*Spec // keys in upper case
	// specs are all commands and subcommands, at the place of their counters in Stats.
	specs []*Spec
	// catalogue is the same for the rules of users.
	catalogue *acl.Catalogue
)

// nameBytesMax is the longest command name plus some; longer words are unknown at once.
const nameBytesMax = 32

func init() {
	table = []*Spec{
		qpush,
		qpushex,

		qlock,
		qunlock,
		qconsume,
		qack,
		qnack,
		qextend,

		qcreate,
		qconfig,
		qdel,
		qlist,
		qlen,
		qinfo,
		qpeek,
		qget,
		qrem,
		qpurge,
		qpause,
		qresume,
		qredrive,

		dbsize,
		del,
		exists,
		keys,
		llen,
		scan,
		ttl,
		typeOf,

		aclCommand,
		auth,
		client,
		echo,
		hello,
		ping,
		quit,
		reset,
		selectDB,

		command,
		config,
		info,
		monitor,
		qbackup,
		shutdown,
		slowlog,
		timeNow,
	}
	byName = make(map[string]*Spec, len(table))
	for _, s := range table {
		s.prepare(nil)
		byName[s.Name] = s
		specs = append(specs, s)
		specs = append(specs, s.Subcommands...)
	}
	for i, s := range specs {
		s.ordinal = i
	}
	catalogue = newCatalogue()
}

// Table lists all commands in the order of docs/commands.md; not to be changed.
func Table() []*Spec { return table }

// Lookup finds a command by its name in any case; nil if there is none. It does not allocate.
func Lookup(name []byte) *Spec {
	if len(name) > nameBytesMax {
		return nil
	}
	var upper [nameBytesMax]byte
	for i, b := range name {
		if 'a' <= b && b <= 'z' {
			b -= 'a' - 'A'
		}
		upper[i] = b
	}
	return byName[string(upper[:len(name)])]
}

// FlagsOf are the flags of the command of that name, 0 for an unknown one.
func FlagsOf(name []byte) Flags {
	if s := Lookup(name); s != nil {
		return s.Flags
	}
	return 0
}

// Borrows reports whether the command of that name keeps nothing of its words; see FlagBorrows.
func Borrows(name []byte) bool {
	s := Lookup(name)
	return s != nil && s.Flags&FlagBorrows != 0
}

// Subcommand finds a subcommand by its own word in any case.
func (s *Spec) Subcommand(word []byte) *Spec {
	for _, sub := range s.Subcommands {
		if equalFold(word, sub.Name) {
			return sub
		}
	}
	return nil
}

// lookupFull finds what COMMAND INFO and DOCS are asked for: a command, or a subcommand as client|id.
func lookupFull(name []byte) *Spec {
	for i, b := range name {
		if b != '|' {
			continue
		}
		if container := Lookup(name[:i]); container != nil {
			return container.Subcommand(name[i+1:])
		}
		return nil
	}
	return Lookup(name)
}
