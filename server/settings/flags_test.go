package settings

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// parseAll runs the flags as cmd/quail does: one default command that has them all, and a file.
func parseAll(t *testing.T, file string, args ...string) (*Values, error) {
	t.Helper()
	flags := NewFlags()
	var grammar struct {
		Serve struct{ kong.Plugins } `cmd:"" default:"withargs"`
	}
	grammar.Serve.Plugins = kong.Plugins{flags.Struct()}
	options := []kong.Option{Groups(), kong.Exit(func(int) { t.Fatal("exit") })}
	if file != "" {
		path := filepath.Join(t.TempDir(), "quail.yaml")
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		resolver, err := LoadFile(path)
		if err != nil {
			return nil, err
		}
		options = append(options, kong.Resolvers(resolver))
	}
	parser, err := kong.New(&grammar, options...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parser.Parse(args); err != nil {
		return nil, err
	}
	return New(flags.Given())
}

// A server that listens where the file says although the operator's flag says otherwise may be open to the world.
func TestPrecedence(t *testing.T) {
	const file = "max-clients: 3\n"
	for _, c := range []struct {
		name, env, file string
		args            []string
		want            int64
	}{
		{"default", "", "", nil, 10_000},
		{"file over default", "", file, nil, 3},
		{"environment over file", "4", file, nil, 4},
		{"flag over environment", "4", file, []string{"--max-clients", "5"}, 5},
		{"flag over file", "", file, []string{"--max-clients=5"}, 5},
		{"flag with the command's name", "4", file, []string{"serve", "--max-clients=5"}, 5},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.env != "" {
				t.Setenv("QUAIL_MAX_CLIENTS", c.env)
			}
			v, err := parseAll(t, c.file, c.args...)
			if err != nil {
				t.Fatal(err)
			}
			if got := v.Int(MaxClients); got != c.want {
				t.Errorf("got %d, want %d", got, c.want)
			}
			if isDefault := c.want == 10_000; v.IsDefault(MaxClients.Setting) != isDefault {
				t.Error("IsDefault")
			}
		})
	}
}

// Container tools set variables to nothing; that must neither stop the start nor take a password away.
func TestEmptyVariableIsNone(t *testing.T) {
	t.Setenv("QUAIL_MAX_CLIENTS", "")
	t.Setenv("QUAIL_REQUIREPASS", "")
	v, err := parseAll(t, "requirepass: sesame")
	if err != nil {
		t.Fatal(err)
	}
	if v.Int(MaxClients) != 10_000 || v.Text(RequirePass) != "sesame" {
		t.Error(v.Int(MaxClients), v.Text(RequirePass))
	}
}

func TestEverySettingIsAFlagAndAVariable(t *testing.T) {
	for _, s := range All() {
		args := []string{"--" + s.Name + "=" + s.Default}
		if v, err := parseAll(t, "", args...); err != nil || v.IsDefault(s) {
			t.Errorf("%v: %v", args, err)
		}
		t.Run(s.Env(), func(t *testing.T) {
			t.Setenv(s.Env(), s.Default)
			if v, err := parseAll(t, ""); err != nil || v.IsDefault(s) != (s.Default == "") {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestFile(t *testing.T) {
	v, err := parseAll(t, `
# A comment.
listen: 127.0.0.1:7000
requirepass: "0123"
auto-create: false
journal-bytes: 512mb
timeout: 5000
`)
	if err != nil {
		t.Fatal(err)
	}
	if v.Text(Listen) != "127.0.0.1:7000" || v.Text(RequirePass) != "0123" || v.Bool(AutoCreate) ||
		v.Bytes(Journal) != 512*mb || v.Millis(IdleTimeout) != 5000 {
		t.Error(v.Match("*"))
	}
	if v, err := parseAll(t, `{"max-clients": 7, "auto-create": "no"}`); err != nil || v.Int(MaxClients) != 7 || v.Bool(AutoCreate) {
		t.Errorf("JSON: %v", err)
	}
	if _, err := parseAll(t, "# nothing\n"); err != nil {
		t.Errorf("empty file: %v", err)
	}
}

// A misspelt line in a file that is passed over in silence is a setting that somebody believes in.
func TestFileErrors(t *testing.T) {
	for file, want := range map[string]string{
		"max-client: 5":                  "max-client: there is no such setting; was max-clients meant?",
		"serve:\n  listen: x":            "serve: there is no such setting",
		"max-clients: many":              `max-clients: got "many"; allowed is a whole number`,
		"max-clients: 1.5":               `max-clients: got "1.5"; allowed is a whole number`,
		"max-clients: [1]":               `max-clients: got "[1]"; allowed is a whole number`,
		"max-clients:":                   `max-clients: got ""; allowed is a whole number`,
		"data: 0123":                     "data: got \"83\"; write it in quotes",
		"log-level: yes":                 "log-level: got \"yes\"; ",
		"max-clients: 5\n\tx: 1":         "yaml: line 2",
		"max-clients: 5\nmax-clients: 6": `mapping key "max-clients" already defined`,
	} {
		_, err := parseAll(t, file)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q:\n got  %v\n want %s", file, err, want)
		}
	}
	if _, err := LoadFile(filepath.Join(t.TempDir(), "none.yaml")); err == nil || !strings.Contains(err.Error(), "none.yaml") {
		t.Error(err)
	}
}

// The error of a start that was refused ends up in logs and tickets.
func TestErrorsOfAFileShowNoValue(t *testing.T) {
	for _, text := range []string{
		"requirepass canary", "canary", "'canary'", "requirepass: *canary", "requirepass: *ca'n'canary", "requirepass: !!int canary", "requirepass: !!binary canary_",
		"requirepass: [canary]", "requirepass: {a: canary}", "requirepas: canary", "requirepass: @canary", "requirepass: canary: x", "requirepass: \"canary",
		"requirepass: &canary", "- canary", "requirepass: x\nrequirepass: canary", "requirepass: <<: canary", "requirepass: |canary", "%canary", "requirepass: !canary!x canary",
	} {
		_, err := load([]byte(text))
		if err == nil {
			continue
		}
		if strings.Contains(err.Error(), "cana") {
			t.Errorf("%q: %v", text, err)
		}
	}
}
