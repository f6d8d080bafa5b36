package settings

import (
	"flag"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"quail/commands"
	"quail/queue/machine"
)

var _ commands.Settings = (*Values)(nil)

var update = flag.Bool("update", false, "write docs/config.md")

const pagePath = "../../docs/config.md"

// A stale page tells people of settings that are not there.
func TestConfigPage(t *testing.T) {
	if *update {
		if err := os.WriteFile(pagePath, []byte(Page()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	page, err := os.ReadFile(pagePath)
	if err != nil {
		t.Fatal(err)
	}
	if string(page) != Page() {
		t.Error("docs/config.md is stale; run: go generate ./server/settings")
	}
}

// A line of the table that lacks something shows as a hole in the help text, or as a default that does not start.
func TestTableIsComplete(t *testing.T) {
	name := regexp.MustCompile(`^[a-z]+(-[a-z]+)*$`)
	groups := map[string]bool{}
	for _, g := range groupTitles {
		groups[g.name] = true
	}
	for i, s := range All() {
		if !name.MatchString(s.Name) {
			t.Errorf("%s: a name is lower-case words with hyphens", s.Name)
		}
		if s.index != i || Lookup(strings.ToUpper(s.Name)) != s {
			t.Errorf("%s: not found at its place", s.Name)
		}
		if !groups[s.Group] {
			t.Errorf("%s: group %q is not shown anywhere", s.Name, s.Group)
		}
		if !strings.HasSuffix(s.Doc, ".") || strings.Contains(s.Doc, "\n") {
			t.Errorf("%s: the doc is one or more sentences on one line", s.Name)
		}
		numeric := s.Kind == KindInt || s.Kind == KindBytes || s.Kind == KindMillis
		if numeric && (s.Min >= s.Max || s.Unit == "") {
			t.Errorf("%s: needs bounds and a unit", s.Name)
		}
		if _, err := s.parse(s.Default); err != nil {
			t.Errorf("default: %v", err)
		}
	}
	if _, err := New(nil); err != nil {
		t.Errorf("the defaults do not fit together: %v", err)
	}
}

// A handle that reads another setting's value would show only under load.
func TestHandlesReadTheirOwnValue(t *testing.T) {
	v := must(New([][2]string{{"listen", "127.0.0.1:7000"}, {"max-clients", "77"}, {"max-push-bytes", "3mb"}, {"timeout", "1500"}, {"auto-create", "no"}}))
	if got := v.Text(Listen); got != "127.0.0.1:7000" {
		t.Error(got)
	}
	if got := v.Int(MaxClients); got != 77 {
		t.Error(got)
	}
	if got := v.Bytes(MaxPush); got != 3<<20 {
		t.Error(got)
	}
	if got := v.Millis(IdleTimeout); got != 1500 {
		t.Error(got)
	}
	if got := v.Duration(IdleTimeout).String(); got != "1.5s" {
		t.Error(got)
	}
	if v.Bool(AutoCreate) {
		t.Error("auto-create")
	}
	if v.IsDefault(MaxClients.Setting) || !v.IsDefault(Segment.Setting) {
		t.Error("IsDefault")
	}
}

func TestFormatBytes(t *testing.T) {
	for _, s := range All() {
		if s.Kind == KindBytes {
			for _, n := range []int64{s.Min, s.Max} {
				if got, err := machine.ParseSize(FormatBytes(n)); err != nil || got != n {
					t.Errorf("%s: %d shows as %s", s.Name, n, FormatBytes(n))
				}
			}
		}
	}
}

// An error must say which setting, what came and what is allowed, or the operator is left guessing.
func TestErrorsNameTheSetting(t *testing.T) {
	for _, c := range []struct{ name, value, want string }{
		{"max-clients", "lots", `max-clients: got "lots"; allowed is a whole number from 1 to 1000000`},
		{"max-clients", "0", `max-clients: got "0"; allowed is a whole number from 1 to 1000000`},
		{"max-push-bytes", "16", `max-push-bytes: got "16"; allowed is a size from 1kb to 256mb, such as 4096, 16kb or 1mb`},
		{"timeout", "5s", `timeout: got "5s"; allowed is whole milliseconds from 0 to 2592000000`},
		{"auto-create", "maybe", `auto-create: got "maybe"; allowed is yes or no`},
		{"log-level", "loud", `log-level: got "loud"; allowed is one of debug, info, warn, error`},
		{"listen", "6389", `listen: got "6389"; allowed is host:port, such as 127.0.0.1:6389, [::1]:6389 or 0.0.0.0:6389; port 0 takes a free one`},
		{"listen", "h:70000", `listen: got "h:70000"; allowed is host:port, such as 127.0.0.1:6389, [::1]:6389 or 0.0.0.0:6389; port 0 takes a free one`},
		{"timeout", "+5", `timeout: got "+5"; allowed is whole milliseconds from 0 to 2592000000`},
		{"max-push-bytes", "016mb", `max-push-bytes: got "016mb"; allowed is a size from 1kb to 256mb, such as 4096, 16kb or 1mb`},
		{"default-dead-letter-queue", "a b", `default-dead-letter-queue: got "a b"; allowed is a queue's name, of 1 to 200 bytes of UTF-8 without control characters or spaces, or nothing`},
		{"default-dead-letter-queue", "\xff", `default-dead-letter-queue: got "\xff"; allowed is a queue's name, of 1 to 200 bytes of UTF-8 without control characters or spaces, or nothing`},
		{"data", "", `data: got ""; allowed is any path, not an empty one`},
		{"max-client", "1", `max-client: there is no such setting; was max-clients meant?`},
		{"colour", "red", `colour: there is no such setting; CONFIG GET * and docs/config.md list all`},
		{"checkpoint-bytes", "200mb", `checkpoint-bytes: got 200mb; allowed is at most 128mb while journal-bytes is 256mb, since writes go on during a checkpoint`},
	} {
		_, err := New([][2]string{{c.name, c.value}})
		if err == nil || err.Error() != c.want {
			t.Errorf("%s %q:\n got  %v\n want %s", c.name, c.value, err, c.want)
		}
	}
	_, err := New([][2]string{{"max-clients", "x"}, {"timeout", "y"}})
	if err == nil || !strings.Contains(err.Error(), "max-clients") || !strings.Contains(err.Error(), "timeout") {
		t.Errorf("all wrong settings at once, not one a start: %v", err)
	}
}

// Half a CONFIG SET would leave a server that nobody asked for.
func TestSetIsAllOrNone(t *testing.T) {
	for _, second := range [][2]string{
		{"timeout", "never"}, {"listen", "127.0.0.1:1"}, {"nothing", "1"}, {"MAX-CLIENTS", "6"}, {"max-push-bytes", "200mb"},
	} {
		v := must(New(nil))
		before := v.Match("*")
		v.Watch(MaxClients.Setting, func() { t.Errorf("%v: changed", second) })
		if err := v.Set([][2]string{{"max-clients", "5"}, second}); err == nil {
			t.Errorf("%v: taken", second)
		}
		if !slices.Equal(before, v.Match("*")) {
			t.Errorf("%v: the other half was set", second)
		}
	}
}

// Two settings that only fit together must be settable together.
func TestSetChecksTheResultOnly(t *testing.T) {
	v := must(New(nil))
	if err := v.Set([][2]string{{"max-push-bytes", "32mb"}}); err == nil {
		t.Error("a push larger than an argument may be")
	}
	if err := v.Set([][2]string{{"max-push-bytes", "32mb"}, {"MAX-BULK-BYTES", "33mb"}}); err != nil {
		t.Error(err)
	}
	if v.Bytes(MaxPush) != 32*mb || v.Bytes(MaxBulk) != 33*mb {
		t.Error("not set")
	}
}

func TestFixedSettingsSayHow(t *testing.T) {
	err := must(New(nil)).Set([][2]string{{"data", "/elsewhere"}})
	want := "CONFIG SET failed (possibly related to argument 'data') - cannot be changed while the server runs; set it with --data, QUAIL_DATA or the configuration file, and restart"
	if err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
}

// In Redis's words, with the setting behind them that somebody may have meant who knows Redis's names.
func TestUnknownSettingReadsAsInRedis(t *testing.T) {
	for name, more := range map[string]string{"maxmemory": "", "maxclients": "; was max-clients meant?", "tls-prot": "; was tls-port meant?", "hat": ""} {
		err := must(New(nil)).Set([][2]string{{name, "1"}})
		want := "Unknown option or number of arguments for CONFIG SET - '" + name + "'" + more
		if err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// An option of a queue without a default that the operator can set would need a change of every queue.
func TestQueueDefaults(t *testing.T) {
	v := must(New([][2]string{{"default-lease", "1234"}, {"default-max-message-bytes", "2mb"}, {"default-dead-letter-queue", "morgue"}}))
	options := v.QueueDefaults()
	for o, spec := range machine.Specs {
		if !options.IsSet(machine.Option(o)) {
			t.Errorf("%s has no default", spec.Name)
		}
		if Lookup("default-"+spec.Name) != optionSettings[o] {
			t.Errorf("%s has no setting", spec.Name)
		}
	}
	if options.Get(machine.Lease, nil) != 1234 || options.Get(machine.MaxMessageBytes, nil) != 2<<20 || options.Dead != "morgue" {
		t.Error("the settings' values did not arrive")
	}
	if !must(New(nil)).QueueDefaults().Equal(machine.DefaultOptions()) {
		t.Error("the settings' own defaults differ from the machine's")
	}
	if err := v.Set([][2]string{{"default-lease", "4321"}}); err != nil {
		t.Fatal(err)
	}
	if v.QueueDefaults().Get(machine.Lease, nil) != 4321 || options.Get(machine.Lease, nil) != 1234 {
		t.Error("a change makes new options, since the old ones are shared")
	}
}

func TestWatch(t *testing.T) {
	v := must(New(nil))
	var seen []string
	v.Watch(LogLevel.Setting, func() { seen = append(seen, v.Text(LogLevel)) })
	for _, level := range []string{"DEBUG", "debug", "warn"} {
		if err := v.Set([][2]string{{"log-level", level}}); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(seen, []string{"debug", "warn"}) {
		t.Error(seen)
	}
	resets := 0
	v.OnResetStats(func() { resets++ })
	v.ResetStats()
	if resets != 1 {
		t.Error(resets)
	}
}

// A password in a log, in CONFIG GET's answer or in an error is a password that many people know.
func TestSecretsAreMasked(t *testing.T) {
	v := must(New(nil))
	if got := v.Match("requirepass"); !slices.Equal(got, [][2]string{{"requirepass", ""}}) {
		t.Error(got)
	}
	if err := v.Set([][2]string{{"requirepass", "s3cret"}}); err != nil {
		t.Fatal(err)
	}
	if got := v.Match("requirepass"); !slices.Equal(got, [][2]string{{"requirepass", Masked}}) {
		t.Error(got)
	}
	if v.Text(RequirePass) != "s3cret" {
		t.Error("the server itself must know it")
	}
	// Read all, write all back: the mask must not become the password.
	if err := v.Set(v.Match("requirepass")); err == nil || strings.Contains(err.Error(), Masked) {
		t.Error(err)
	}
	if _, err := load([]byte("requirepass: 4711")); err == nil || strings.Contains(err.Error(), "4711") {
		t.Error(err)
	}
}

func TestMatch(t *testing.T) {
	v := must(New(nil))
	for pattern, want := range map[string]int{"*": len(table), "max-cl?ents": 1, "[lm]isten": 1, "LISTEN": 1, "save": 0, "[": 0} {
		if got := len(v.Match(pattern)); got != want {
			t.Errorf("%s: %d", pattern, got)
		}
	}
	if got := v.Match("listen", "l*"); len(got) != 3 {
		t.Errorf("each setting once, whatever patterns it fits: %v", got)
	}
	if got := v.Match("journal-bytes", "auto-create"); !slices.Equal(got, [][2]string{{"auto-create", "yes"}, {"journal-bytes", "268435456"}}) {
		t.Error(got)
	}
}

func TestUnknownEnv(t *testing.T) {
	got := UnknownEnv([]string{"PATH=/", "QUAIL_LISTEN=x", "QUAIL_CONFIG=x", "QUAIL_LISTN=x", "QUAIL_SERVICE_HOST=x", "QUAIL_PORT_6389_TCP=x", "QUAIL_MAX_CLEINTS=5",
		"QUAIL_HAT=x"})
	if !slices.Equal(got, [][2]string{{"QUAIL_HAT", ""}, {"QUAIL_LISTN", "QUAIL_LISTEN"}, {"QUAIL_MAX_CLEINTS", "QUAIL_MAX_CLIENTS"}}) {
		t.Error(got)
	}
}

// Readers do not lock. Run with -race.
func TestReadDuringSet(t *testing.T) {
	v := must(New(nil))
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for range 1000 {
				if n := v.Int(MaxClients); n != 10_000 && n != 5 {
					t.Errorf("a value that nobody set: %d", n)
				}
				v.Match("*")
			}
		})
	}
	for range 100 {
		if err := v.Set([][2]string{{"max-clients", "5"}}); err != nil {
			t.Error(err)
		}
	}
	readers.Wait()
}

func must(v *Values, err error) *Values {
	if err != nil {
		panic(err)
	}
	return v
}
