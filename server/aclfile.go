package server

// The ACL file: who may come in, one user a line, in the words of ACL LIST and of Redis's own ACL files.
//
//	# Quail ACL file. The last line must be its checksum; after editing by hand remove this line and the last one.
//	user default off resetkeys -@all
//	user shop on #9f86d0… ~orders* -@all +@produce
//	# checksum sha256 4f0c… of all lines above
//
// A damaged rule could be a valid one that grants more: ~orders1 and ~orders* differ in one byte. So a file that ACL SAVE
// wrote says in its first line that a checksum must be in the last. Each of the two lines is enough to have all bytes
// checked, so one damaged byte, or any cut, is found wherever it is. A file without both is one that a person wrote: it is
// taken as it is, with a warning in the log.

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"quail/commands/acl"
	"quail/server/settings"
	"quail/wal/vfs"
)

const (
	aclFileHead     = "# Quail ACL file. The last line must be its checksum; after editing by hand remove this line and the last one."
	aclChecksumMark = "# checksum sha256 "

	// aclFileBytesMax bounds what is read: far more than acl.UsersMax users with a few patterns each take.
	aclFileBytesMax = 64 << 20
)

// ACLFile reads and writes the users of a server. It is safe for use by several goroutines.
type ACLFile struct {
	fs    vfs.FS
	path  string
	users *acl.Users
	// password is the setting requirepass, for a file that does not say what the default user may do.
	password   func() string
	hasDefault atomic.Bool // see HasDefault

	mu sync.Mutex // one Load or Save at a time; held during their IO, and by nothing else
}

// NewACLFile keeps users in the file at path.
func NewACLFile(fs vfs.FS, path string, users *acl.Users, password func() string) *ACLFile {
	return &ACLFile{fs: fs, path: path, users: users, password: password}
}

// Load replaces all users by those of the file, or changes nothing. The error names the file and every line that is wrong.
// Changed are the users that are gone or may do something else now; checked says whether the file had a checksum.
func (f *ACLFile) Load() (changed []string, checked bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	content, err := f.read()
	if err != nil {
		return nil, false, err
	}
	content, checked, err = f.verify(content)
	if err != nil {
		return nil, checked, err
	}
	all, err := f.parse(content)
	if err != nil {
		return nil, checked, err
	}
	if len(all) == 0 && len(f.users.Lines()) > 1 {
		return nil, checked, fmt.Errorf("%s names no user, and all that there are would be gone: it seems to have been emptied; to have it so, write what the user default may do", f.path)
	}
	_, said := all[acl.Default]
	if err := f.settleDefault(all); err != nil {
		return nil, checked, err
	}
	f.hasDefault.Store(said)
	return f.users.Replace(all), checked, nil
}

// tryPassword refuses a new requirepass where it would let nobody in, or only until the file is read again.
func (f *ACLFile) tryPassword(*settings.Values) (apply func(), err error) {
	if f.HasDefault() {
		return nil, errors.New("the aclfile has the user default, and it wins over requirepass; change the password with ACL SETUSER default resetpass >…, " +
			"and keep it with ACL SAVE")
	}
	return func() {}, nil
}

func (f *ACLFile) read() ([]byte, error) {
	file, err := f.fs.Open(f.path)
	if err != nil {
		return nil, fmt.Errorf("open the ACL file: %w", err)
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, aclFileBytesMax+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the ACL file %s: %w", f.path, err)
	case len(content) > aclFileBytesMax:
		return nil, fmt.Errorf("%s is larger than %d bytes, which no ACL file is", f.path, aclFileBytesMax)
	}
	return content, nil
}

// verify checks the checksum of a file that has one or should have one, and gives what it covers.
func (f *ACLFile) verify(content []byte) (covered []byte, checked bool, err error) {
	last := bytes.LastIndexByte(bytes.TrimSuffix(content, []byte("\n")), '\n') + 1
	rest, marked := strings.CutPrefix(string(content[last:]), aclChecksumMark)
	headed := bytes.HasPrefix(content, []byte(aclFileHead+"\n"))
	if !marked && !headed {
		return content, false, nil
	}
	if !marked || rest != aclChecksum(content[:last])+"\n" {
		return nil, true, fmt.Errorf("%s is damaged: its checksum is missing or does not fit. If it was edited by hand, remove the first line and the "+
			"last one, which are comments; if not, put back a copy, since a damaged rule may grant what nobody granted", f.path)
	}
	return content[:last], true, nil
}

func aclChecksum(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}

// parse gives the rights by name, or an error with every line that is wrong, in Redis's words.
func (f *ACLFile) parse(content []byte) (map[string]*acl.Rights, error) {
	all := map[string]*acl.Rights{}
	var wrong []string
	for i, line := range bytes.Split(content, []byte("\n")) {
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		d, ok := acl.SplitLine(line)
		if !ok {
			wrong = append(wrong, fmt.Sprintf("%s:%d should start with user keyword followed by the username.", f.path, i+1))
			continue
		}
		name := string(d.Name)
		if err := acl.CheckName(d.Name); err != nil {
			wrong = append(wrong, fmt.Sprintf("%s:%d: %v.", f.path, i+1, err))
			continue
		}
		if _, twice := all[name]; twice {
			wrong = append(wrong, fmt.Sprintf("WARNING: Duplicate user '%s' found on line %d.", name, i+1))
			continue
		}
		rights, err := f.users.Make(d.Rules)
		if err != nil {
			wrong = append(wrong, fmt.Sprintf("%s:%d: %s.", f.path, i+1, ruleMistake(err)))
		}
		all[name] = rights
	}
	if len(all) > acl.UsersMax {
		wrong = append(wrong, fmt.Sprintf("%s has more than %d users.", f.path, acl.UsersMax))
	}
	if len(wrong) > 0 {
		return nil, errors.New(strings.Join(wrong[:min(len(wrong), mistakesShownMax)], " "))
	}
	return all, nil
}

// mistakesShownMax bounds the error of a file that is something else altogether.
const mistakesShownMax = 20

// ruleMistake shows a rule as ACL LOAD of Redis does, but no password.
func ruleMistake(err error) string {
	var rule *acl.RuleError
	if !errors.As(err, &rule) {
		return err.Error()
	}
	shown := rule.Rule
	if shown != "" && strings.IndexByte("><#!", shown[0]) >= 0 {
		shown = shown[:1] + "(redacted)"
	}
	return fmt.Sprintf("Error in applying operation '%s': %v", shown, rule.Err)
}

// settleDefault wants it said what a connection without a name may do: a file that was emptied, or cut, must not open the
// server.
func (f *ACLFile) settleDefault(all map[string]*acl.Rights) error {
	rights, said := all[acl.Default]
	password := f.password()
	switch {
	case !said && password == "":
		return fmt.Errorf("%s has no line for the user default, and requirepass is empty: add \"user default off\", or what it may do", f.path)
	case !said:
		open, err := f.users.Make([][]byte{[]byte("on"), []byte(">" + password), []byte("~*"), []byte("+@all")})
		if err != nil {
			return err
		}
		all[acl.Default] = open
	case rights.Open() && password != "":
		return fmt.Errorf("%s lets the user default in without a password, but requirepass is set: remove one of them", f.path)
	}
	return nil
}

// HasDefault reports whether the file, as it was loaded or saved last, says what the default user may do, and so requirepass does not.
func (f *ACLFile) HasDefault() bool { return f.hasDefault.Load() }

// Save writes all users aside, syncs, and renames, so that a crash leaves the old file or the new one. Nobody but the
// owner may read it.
func (f *ACLFile) Save() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	content := []byte(aclFileHead + "\n" + strings.Join(f.users.Lines(), "\n") + "\n")
	content = slices.Concat(content, []byte(aclChecksumMark+aclChecksum(content)+"\n"))
	aside := f.path + ".new"
	if err := f.write(aside, content); err != nil {
		f.fs.Remove(aside)
		return fmt.Errorf("write %s: %w", aside, err)
	}
	if err := f.fs.Rename(aside, f.path); err != nil {
		f.fs.Remove(aside)
		return fmt.Errorf("put %s in the place of %s: %w", aside, f.path, err)
	}
	f.hasDefault.Store(true) // all users are in it
	if err := f.fs.SyncDir(filepath.Dir(f.path)); err != nil {
		return fmt.Errorf("sync the directory of %s, so that after a power cut the old file may be there: %w", f.path, err)
	}
	return nil
}

func (f *ACLFile) write(name string, content []byte) error {
	if err := f.fs.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err // what a crash left may have another mode
	}
	file, err := f.fs.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	if err == nil {
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}

// aclCommands is the file as ACL LOAD and ACL SAVE see it.
type aclCommands struct {
	server *Server
	file   *ACLFile
}

func (a aclCommands) Save() error { return a.file.Save() }

// Load also closes the connections of users that changed; the default user's stay, as in Redis.
func (a aclCommands) Load() error {
	changed, checked, err := a.file.Load()
	if err != nil {
		return err
	}
	if !checked {
		a.server.cfg.Log.Warn().Str("file", a.file.path).Msg("the ACL file has no checksum, so damage to it would not be noticed; ACL SAVE writes one")
	}
	admin{a.server}.killUsers(changed)
	return nil
}
