package commands

// ACL: users and what they may do. The rules are in package acl; here are the commands.

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"time"

	"quail/commands/acl"
)

// ACLFile is where the users are kept.
type ACLFile interface {
	// Load replaces all users by those of the file, or changes nothing; the connections of users that changed are closed.
	Load() error
	// Save writes all users to the file in one step.
	Save() error
}

var flagsACL = FlagAdmin | FlagNoScript | FlagLoading | FlagStale

var aclCommand = &Spec{
	Name:    "ACL",
	Summary: "Manage users and what they may do",
	Group:   GroupServer,
	Reply:   "Depends on the subcommand.",
	Flags:   flagsACL,
	Subcommands: []*Spec{aclCat, aclDelUser, aclDryRun, aclGenPass, aclGetUser, aclList, aclLoad, aclLog, aclSave, aclSetUser, aclUsers,
		aclWhoAmI, helpSpec()},
}

var aclCat = &Spec{
	Name:    "CAT",
	Summary: "List the categories, or the commands of one",
	Reply:   "array of names.",
	Args:    []Arg{{Name: "category", Optional: true}},
	Flags:   FlagNoScript | FlagLoading | FlagStale,
	Run:     runACLCat,
}

func runACLCat(c *Call) {
	if len(c.Args) == 2 {
		var names []string
		for _, s := range specs {
			names = append(names, s.categories...)
		}
		slices.Sort(names)
		stringArray(c.W, slices.Compact(names))
		return
	}
	if len(c.Args) > 3 {
		c.wrongArity()
		return
	}
	names, ok := c.Env.Users.Catalogue().Category(strings.ToLower(string(c.Args[2])))
	if !ok {
		c.W.Error("ERR", "Unknown category '"+cText(c.Args[2])+"'")
		return
	}
	stringArray(c.W, names)
}

var aclDelUser = &Spec{
	Name:    "DELUSER",
	Summary: "Delete users and close their connections",
	Reply:   "integer: how many there were.",
	Args:    []Arg{{Name: "username", Multiple: true}},
	Flags:   flagsACL,
	Run:     runACLDelUser,
}

func runACLDelUser(c *Call) {
	deleted, err := c.Env.Users.Delete(c.Args[2:])
	if err != nil {
		c.ReplyErr(err)
		return
	}
	if len(deleted) > 0 {
		c.Env.Server.KillClients(func(info ClientInfo) bool { return slices.Contains(deleted, info.User) })
	}
	c.W.Int(int64(len(deleted)))
}

var aclDryRun = &Spec{
	Name:    "DRYRUN",
	Summary: "Tell whether a user may run a command, without running it",
	Reply:   "OK, or why not.",
	Args:    []Arg{{Name: "username"}, {Name: "command"}, {Name: "arg", Optional: true, Multiple: true}},
	Flags:   flagsACL,
	Run:     runACLDryRun,
}

func runACLDryRun(c *Call) {
	user, words := c.Env.Users.Lookup(c.Args[2]), c.Args[3:]
	if user == nil {
		c.W.Error("ERR", "User '"+cText(c.Args[2])+"' not found")
		return
	}
	s := Lookup(words[0])
	if s != nil && len(s.Subcommands) > 0 && len(words) > 1 {
		s = s.Subcommand(words[1])
	}
	switch {
	case s == nil:
		c.W.Error("ERR", "Command '"+cText(words[0])+"' not found")
		return
	case s.arity >= 0 && len(words) != s.arity, len(words) < -s.arity:
		c.W.Error("ERR", "wrong number of arguments for '"+s.fullName+"' command")
		return
	}
	switch d, is := s.denied(user.Rights(), words); {
	case !is:
		c.W.OK()
	case d.reason == "command":
		c.W.BulkString("This user has no permissions to run the '" + d.object + "' command")
	default:
		c.W.BulkString("This user has no permissions to access the '" + d.object + "' key")
	}
}

var aclGenPass = &Spec{
	Name:    "GENPASS",
	Summary: "Make a password that nobody can guess",
	Reply:   "text: hexadecimal digits.",
	Args:    []Arg{{Name: "bits", Type: ArgInteger, Optional: true, Min: 1, Max: genPassBitsMax, Text: "Default: 256. Rounded up to whole digits."}},
	Flags:   FlagNoScript | FlagLoading | FlagStale,
	Run:     runACLGenPass,
}

// genPassBitsMax is Redis's.
const genPassBitsMax = 4096

func runACLGenPass(c *Call) {
	bits := int64(256)
	if len(c.Args) > 3 {
		c.wrongArity()
		return
	}
	if len(c.Args) == 3 {
		n, ok := parseInteger(c.Args[2])
		switch {
		case !ok:
			c.W.Error("ERR", errNotInteger)
			return
		case n < 1 || n > genPassBitsMax:
			c.W.Error("ERR", "ACL GENPASS argument must be the number of bits for the output password, a positive number up to 4096")
			return
		}
		bits = n
	}
	digits := (bits + 3) / 4
	secret := make([]byte, (digits+1)/2)
	rand.Read(secret)
	c.W.BulkString(hex.EncodeToString(secret)[:digits])
}

var aclGetUser = &Spec{
	Name:    "GETUSER",
	Summary: "Tell a user's rules",
	Reply:   "map: flags, passwords (SHA-256 digests), commands, keys; channels and selectors are empty. Null if there is no such user.",
	Args:    []Arg{{Name: "username"}},
	Flags:   flagsACL,
	Run:     runACLGetUser,
}

func runACLGetUser(c *Call) {
	user := c.Env.Users.Lookup(c.Args[2])
	if user == nil {
		c.W.NullArray()
		return
	}
	rights := user.Rights()
	c.W.Map(6)
	c.W.BulkString("flags")
	simpleSet(c.W, rights.Flags(), "")
	c.W.BulkString("passwords")
	stringArray(c.W, rights.Passwords())
	for _, pair := range [][2]string{{"commands", rights.Commands()}, {"keys", rights.Keys()}, {"channels", ""}} {
		c.W.BulkString(pair[0])
		c.W.BulkString(pair[1])
	}
	c.W.BulkString("selectors")
	c.W.Array(0)
}

var aclList = &Spec{
	Name:    "LIST",
	Summary: "List all users as the ACL file has them",
	Reply:   "array of lines.",
	Flags:   flagsACL,
	Run:     func(c *Call) { stringArray(c.W, c.Env.Users.Lines()) },
}

const errNoACLFile = "This Quail instance is not configured to use an ACL file. You may want to specify users via the ACL SETUSER command " +
	"and then set aclfile and restart in order to store users in it."

var aclLoad = &Spec{
	Name:    "LOAD",
	Summary: "Replace all users by those of the ACL file, or none if it has errors",
	Reply:   "OK.",
	Notes:   []string{"Connections of users that are gone, or have other rules now, are closed; those of the default user stay."},
	Flags:   flagsACL,
	Run: func(c *Call) {
		c.withACLFile(ACLFile.Load, func(err error) string {
			return err.Error() + " WARNING: ACL errors detected, no change to the previously active ACL rules was performed"
		})
	},
}

var aclSave = &Spec{
	Name:    "SAVE",
	Summary: "Write all users to the ACL file",
	Reply:   "OK, when the file is on the disk.",
	Flags:   flagsACL,
	Run: func(c *Call) {
		c.withACLFile(ACLFile.Save, func(err error) string {
			return "There was an error trying to save the ACLs: " + err.Error()
		})
	},
}

func (c *Call) withACLFile(do func(ACLFile) error, word func(error) string) {
	if c.Env.ACLFile == nil {
		c.W.Error("ERR", errNoACLFile)
		return
	}
	if err := do(c.Env.ACLFile); err != nil {
		c.W.Error("ERR", word(err))
		return
	}
	c.W.OK()
}

var aclLog = &Spec{
	Name:    "LOG",
	Summary: "List refused authentications, commands and queues, the latest first",
	Reply:   "array of maps, or OK for RESET.",
	Args:    []Arg{{Name: "operation", Display: "count | RESET", Optional: true, Text: "Default: 10."}},
	Flags:   flagsACL,
	Run:     runACLLog,
}

func runACLLog(c *Call) {
	most := int64(10)
	if len(c.Args) > 3 {
		c.wrongArity()
		return
	}
	if len(c.Args) == 3 {
		if equalFold(c.Args[2], "RESET") {
			c.Env.Refusals.reset()
			c.W.OK()
			return
		}
		n, ok := parseInteger(c.Args[2])
		if !ok {
			c.W.Error("ERR", errNotInteger)
			return
		}
		most = min(max(n, 0), refusalsMax)
	}
	list, now := c.Env.Refusals.list(int(most)), time.Now()
	c.W.Array(len(list))
	for _, r := range list {
		c.W.Map(10)
		c.W.BulkString("count")
		c.W.Int(r.count)
		for _, pair := range [][2]string{{"reason", r.reason}, {"context", "toplevel"}, {"object", r.object}, {"username", r.user}} {
			c.W.BulkString(pair[0])
			c.W.BulkString(pair[1])
		}
		c.W.BulkString("age-seconds")
		c.W.Double(now.Sub(r.updated).Seconds())
		c.W.BulkString("client-info")
		c.W.BulkString(r.client)
		c.W.BulkString("entry-id")
		c.W.Int(r.id)
		c.W.BulkString("timestamp-created")
		c.W.Int(r.created.UnixMilli())
		c.W.BulkString("timestamp-last-updated")
		c.W.Int(r.updated.UnixMilli())
	}
}

var aclSetUser = &Spec{
	Name:    "SETUSER",
	Summary: "Make a user, or change one by further rules, all of them or none",
	Reply:   "OK.",
	Notes: []string{"Rules: `on` `off` `nopass` `resetpass` `>password` `<password` `#sha256` `!sha256` `~pattern` `%R~pattern` `%W~pattern` " +
		"`%RW~pattern` `allkeys` `resetkeys` `+command` `-command` `+command|subcommand` `+@category` `-@category` `allcommands` `nocommands` `reset`. " +
		"A change holds at once, for connections of that user too. ACL SAVE makes it last."},
	Args:  []Arg{{Name: "username"}, {Name: "rule", Optional: true, Multiple: true}},
	Flags: flagsACL,
	Run:   runACLSetUser,
}

func runACLSetUser(c *Call) {
	err := c.Env.Users.Set(c.Args[2], c.Args[3:])
	var rule *acl.RuleError
	switch {
	case errors.As(err, &rule):
		c.W.Error("ERR", "Error in ACL SETUSER modifier '"+cText([]byte(rule.Rule))+"': "+rule.Err.Error())
	case err != nil:
		c.ReplyErr(err)
	default:
		c.W.OK()
	}
}

var aclUsers = &Spec{
	Name:    "USERS",
	Summary: "List the names of all users",
	Reply:   "array of names.",
	Flags:   flagsACL,
	Run:     func(c *Call) { stringArray(c.W, c.Env.Users.Names()) },
}

var aclWhoAmI = &Spec{
	Name:    "WHOAMI",
	Summary: "Tell whom this connection acts as",
	Reply:   "text: a user's name.",
	Flags:   FlagNoScript | FlagLoading | FlagStale,
	Run:     func(c *Call) { c.W.BulkString(c.Conn.User()) },
}
