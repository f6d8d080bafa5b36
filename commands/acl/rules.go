package acl

// The rule language, as Redis 7 has it, without selectors, channels and first arguments: what each word does, and the
// words that a user's rights are written in.

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Why a rule is refused, in Redis's words where Redis has such a rule.
var (
	ErrSyntax         = errors.New("Syntax error")
	ErrUnknown        = errors.New("Unknown command or category name in ACL")
	ErrHash           = errors.New("The password hash must be exactly 64 characters and contain only lowercase hexadecimal characters")
	ErrNoSuchPassword = errors.New("The password you are trying to remove from the user does not exist")
	ErrUselessPattern = errors.New("Adding a pattern after the * pattern (or the 'allkeys' flag) is not valid and does not have any effect. " +
		"Try 'resetkeys' to start with an empty list of patterns")
	ErrTooMany = errors.New("Too many passwords, patterns or command rules for one user, or a pattern of more than 1000 bytes")
)

// RuleError tells which rule could not be applied.
type RuleError struct {
	Rule string
	Err  error
}

func (e *RuleError) Error() string { return "'" + e.Rule + "': " + e.Err.Error() }

func (e *RuleError) Unwrap() error { return e.Err }

// with gives the rights after some more rules, or the first rule that cannot be; the receiver stays as it is.
func (r *Rights) with(rules [][]byte) (*Rights, error) {
	next := *r
	next.hashes, next.rules = slices.Clone(r.hashes), slices.Clone(r.rules)
	next.commands, next.patterns = slices.Clone(r.commands), slices.Clone(r.patterns)
	for _, rule := range rules {
		if err := next.apply(string(rule)); err != nil {
			return nil, &RuleError{string(rule), err}
		}
	}
	if len(next.hashes) > PasswordsMax || len(next.patterns) > PatternsMax || len(next.rules) > RulesMax {
		return nil, &RuleError{string(rules[len(rules)-1]), ErrTooMany}
	}
	next.all = next.allKeys && !slices.ContainsFunc(next.catalogue.numbers(), func(i int) bool { return !next.MayRun(i) })
	return &next, nil
}

func (c *Catalogue) numbers() []int {
	all := make([]int, len(c.Commands))
	for i := range all {
		all[i] = i
	}
	return all
}

// apply is one rule. Nothing is undone after an error: the caller throws the copy away.
func (r *Rights) apply(rule string) error {
	switch strings.ToLower(rule) {
	case "on":
		r.enabled = true
	case "off":
		r.enabled = false
	case "nopass":
		r.noPass, r.hashes = true, nil
	case "resetpass":
		r.noPass, r.hashes = false, nil
	case "allkeys", "~*":
		r.allKeys, r.patterns = true, nil
	case "resetkeys":
		r.allKeys, r.patterns = false, nil
	case "allcommands", "+@all":
		r.everyCommand("+@all")
	case "nocommands", "-@all":
		r.everyCommand("-@all")
	case "reset":
		*r = *fresh(r.catalogue)
	case "allchannels", "resetchannels", "&*", "sanitize-payload", "skip-sanitize-payload", "clearselectors":
		// Redis writes these into its files. Quail has neither channels nor payloads nor selectors, so they grant nothing.
	default:
		return r.applyPrefixed(rule)
	}
	return nil
}

func (r *Rights) applyPrefixed(rule string) error {
	if rule == "" {
		return ErrSyntax
	}
	switch rest := rule[1:]; rule[0] {
	case '>':
		r.addHash(sha256.Sum256([]byte(rest)))
	case '<':
		return r.removeHash(sha256.Sum256([]byte(rest)))
	case '#', '!':
		hash, err := parseHash(rest)
		if err != nil {
			return err
		}
		if rule[0] == '!' {
			return r.removeHash(hash)
		}
		r.addHash(hash)
	case '~':
		return r.addPattern(rest, Read|Write)
	case '%':
		return r.addAccess(rest)
	case '+', '-':
		return r.applyCommand(rule[0] == '+', strings.ToLower(rest))
	default:
		return ErrSyntax
	}
	return nil
}

func parseHash(text string) (hash [sha256.Size]byte, err error) {
	if len(text) != hex.EncodedLen(len(hash)) || text != strings.ToLower(text) {
		return hash, ErrHash
	}
	if _, err := hex.Decode(hash[:], []byte(text)); err != nil {
		return hash, ErrHash
	}
	return hash, nil
}

func (r *Rights) addHash(hash [sha256.Size]byte) {
	r.noPass = false
	if !slices.Contains(r.hashes, hash) {
		r.hashes = append(r.hashes, hash)
	}
}

func (r *Rights) removeHash(hash [sha256.Size]byte) error {
	i := slices.Index(r.hashes, hash)
	if i < 0 {
		return ErrNoSuchPassword
	}
	r.hashes = slices.Delete(r.hashes, i, i+1)
	return nil
}

// addAccess is %R~glob, %W~glob or %RW~glob.
func (r *Rights) addAccess(rest string) error {
	letters, glob, ok := strings.Cut(rest, "~")
	var access Access
	for _, letter := range strings.ToUpper(letters) {
		switch letter {
		case 'R':
			access |= Read
		case 'W':
			access |= Write
		default:
			return ErrSyntax
		}
	}
	if !ok || access == 0 {
		return ErrSyntax
	}
	if access == Read|Write && glob == "*" {
		r.allKeys, r.patterns = true, nil
		return nil
	}
	return r.addPattern(glob, access)
}

func (r *Rights) addPattern(glob string, access Access) error {
	switch {
	case r.allKeys:
		return ErrUselessPattern
	case strings.ContainsFunc(glob, isSpace):
		return ErrSyntax
	case len(glob) > PatternBytesMax:
		return ErrTooMany
	}
	for i := range r.patterns {
		if r.patterns[i].glob == glob {
			r.patterns[i].access |= access
			return nil
		}
	}
	r.patterns = append(r.patterns, pattern{glob, access})
	return nil
}

func (r *Rights) everyCommand(rule string) {
	r.rules = []string{rule}
	for i := range r.catalogue.Commands {
		r.setBit(i, rule[0] == '+')
	}
}

// applyCommand is +name, +container|subcommand or +@category, or the same with a minus.
func (r *Rights) applyCommand(allow bool, name string) error {
	sign := map[bool]string{true: "+", false: "-"}[allow]
	if category, is := strings.CutPrefix(name, "@"); is {
		members, known := r.catalogue.categories[category]
		if !known {
			return ErrUnknown
		}
		for _, i := range members {
			r.setBit(i, allow)
		}
		r.keepRule(sign+name, func(earlier string) bool { return earlier == name })
		return nil
	}
	command, known := r.catalogue.byName[name]
	if !known {
		return ErrUnknown
	}
	r.setBit(command, allow)
	for i := range r.catalogue.Commands {
		if r.catalogue.Commands[i].Parent == command {
			r.setBit(i, allow)
		}
	}
	r.keepRule(sign+name, func(earlier string) bool { return earlier == name || strings.HasPrefix(earlier, name+"|") })
	return nil
}

// keepRule notes a rule and forgets the earlier ones that it makes void. The first, +@all or -@all, stays.
func (r *Rights) keepRule(rule string, void func(earlier string) bool) {
	kept := r.rules[:1]
	for _, earlier := range r.rules[1:] {
		if !void(earlier[1:]) {
			kept = append(kept, earlier)
		}
	}
	r.rules = append(kept, rule)
}

// Flags are the words that ACL GETUSER answers with.
func (r *Rights) Flags() []string {
	flags := []string{"off"}
	if r.enabled {
		flags[0] = "on"
	}
	if r.noPass {
		flags = append(flags, "nopass")
	}
	return flags
}

// Passwords are the digests in hexadecimal digits.
func (r *Rights) Passwords() []string {
	list := make([]string, len(r.hashes))
	for i, hash := range r.hashes {
		list[i] = hex.EncodeToString(hash[:])
	}
	return list
}

// Commands are the rules that say what may run.
func (r *Rights) Commands() string { return strings.Join(r.rules, " ") }

// Keys are the rules that say what may be used.
func (r *Rights) Keys() string {
	if r.allKeys {
		return "~*"
	}
	var words []string
	for _, p := range r.patterns {
		words = append(words, [...]string{Read: "%R~", Write: "%W~", Read | Write: "~"}[p.access]+p.glob)
	}
	return strings.Join(words, " ")
}

// String writes the rights as rules that make them again.
func (r *Rights) String() string {
	words := r.Flags()
	for _, password := range r.Passwords() {
		words = append(words, "#"+password)
	}
	if keys := r.Keys(); keys != "" {
		words = append(words, keys)
	} else {
		words = append(words, "resetkeys")
	}
	return strings.Join(append(words, r.Commands()), " ")
}

// CheckName refuses names that an ACL file could not hold.
func CheckName(name []byte) error {
	if bytes.ContainsFunc(name, isSpace) {
		return errors.New("Usernames can't contain spaces or null characters")
	}
	if len(name) > 0 && strings.IndexByte("><#!", name[0]) >= 0 {
		// Where the name was forgotten a password stands in its place, and would be shown to everybody as a name.
		return errors.New("Usernames can't begin with one of > < # !")
	}
	if len(name) == 0 || len(name) > NameBytesMax {
		return fmt.Errorf("Usernames have 1 to %d bytes", NameBytesMax)
	}
	return nil
}

// isSpace is what separates words in an ACL file. Other spaces of Unicode are parts of words.
func isSpace(c rune) bool { return c == 0 || c == ' ' || '\t' <= c && c <= '\r' }
