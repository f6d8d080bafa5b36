package commands

// May this user run this call? The rights know commands by number and queues by pattern; here is what a call does to which
// queues, and how a refusal reads and is noted.

import (
	"slices"
	"strings"

	"quail/commands/acl"
)

// newCatalogue is the table as the rules of users know it.
func newCatalogue() *acl.Catalogue {
	list := make([]acl.Command, len(specs))
	for i, s := range specs {
		list[i] = acl.Command{Name: s.fullName, Parent: -1, Categories: s.categories}
		if s.parent != nil {
			list[i].Parent = s.parent.ordinal
		}
	}
	return acl.NewCatalogue(list, MatchPattern)
}

// NewUsers makes the users of a server: the default one alone, who may do everything.
func NewUsers() *acl.Users { return acl.NewUsers(catalogue) }

// accessOf turns the words of Redis's key specifications into what the rules %R and %W grant.
func accessOf(keyFlags []string) acl.Access {
	var access acl.Access
	for _, flag := range keyFlags {
		switch flag {
		case "access":
			access |= acl.Read
		case "insert", "delete", "update":
			access |= acl.Write
		}
	}
	return access
}

// denial is why a call may not run.
type denial struct {
	reason string // command or key, as ACL LOG says
	object string // which
	hint   string // what to say besides, if it is not plain
}

// denied checks a call against rights; the words begin with the command's name and are as many as it needs.
func (s *Spec) denied(rights *acl.Rights, words [][]byte) (d denial, is bool) {
	if s.Flags&FlagNoAuth != 0 || rights.All() {
		return d, false
	}
	if !rights.MayRun(s.ordinal) {
		return denial{reason: "command", object: s.fullName}, true
	}
	keys := s.KeysOf(words)
	if s.AlsoKeys != nil {
		keys = append(keys, s.AlsoKeys(words)...)
	}
	for _, key := range keys {
		if !rights.MayAccess(key.Name, accessOf(key.Flags)) {
			return denial{reason: "key", object: clipName(key.Name)}, true
		}
	}
	if s.NamesAll != nil && s.NamesAll(words) && !rights.MayAccessAll(acl.Write) {
		return denial{reason: "key", object: "*", hint: s.NamesAllHint}, true
	}
	return d, false
}

// permitted answers with NOPERM and returns false if the call may not run.
func (c *Call) permitted(rights *acl.Rights) bool {
	d, is := c.spec.denied(rights, c.Args)
	if !is {
		return true
	}
	c.Env.Stats.countRejected(c.spec)
	c.Env.Refusals.add(c, refusal{reason: d.reason, object: d.object, user: c.Conn.User()})
	if d.reason == "command" {
		c.W.Error("NOPERM", "this user has no permissions to run the '"+d.object+"' command")
	} else {
		text := "this user has no permissions to access one of the keys used as arguments"
		if d.hint != "" {
			text += "; " + d.hint
		}
		c.W.Error("NOPERM", text)
	}
	return false
}

// words is the command as a client writes it.
func (s *Spec) words() string { return strings.ReplaceAll(strings.ToUpper(s.fullName), "|", " ") }

func hasOption(words [][]byte, token string) bool {
	return slices.ContainsFunc(words[2:], func(word []byte) bool { return equalFold(word, token) })
}

// deadLetterQueueIn finds the queue that the option dead-letter-queue names among option and value: failed messages will be
// written to it, so whoever sets it must be allowed to.
func deadLetterQueueIn(pairs [][]byte) (keys []Key) {
	for ; len(pairs) >= 2; pairs = pairs[2:] {
		if equalFold(pairs[0], "DEAD-LETTER-QUEUE") && len(pairs[1]) > 0 {
			keys = append(keys, Key{pairs[1], optionKeyFlags})
		}
	}
	return keys
}
