package settings

// The table as a kong grammar, and the configuration file as a resolver for it. Kong's own order would let the file
// win over the environment; here a flag wins over the environment, that over the file, that over the default.

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/alecthomas/kong"
	kongyaml "github.com/alecthomas/kong-yaml"
	"gopkg.in/yaml.v3"
)

// Flags are the settings as fields of a struct that kong fills.
type Flags struct {
	settings []*Setting
	fields   reflect.Value // pointer to a struct of *string, nil where nobody gave a value
}

// NewFlags makes a flag of each of the settings; of all of them if none is named.
func NewFlags(which ...*Setting) *Flags {
	if len(which) == 0 {
		which = table
	}
	fields := make([]reflect.StructField, len(which))
	for i, s := range which {
		fields[i] = reflect.StructField{
			Name: fmt.Sprintf("F%d", i),
			Type: reflect.TypeFor[*string](),
			Tag:  reflect.StructTag(s.tag()),
		}
	}
	return &Flags{settings: slices.Clone(which), fields: reflect.New(reflect.StructOf(fields))}
}

// tag is the setting in kong's words.
func (s *Setting) tag() string {
	placeholder := strings.ToUpper(strings.NewReplacer(" or ", "|").Replace(s.Kind.String()))
	switch s.Kind {
	case KindInt:
		placeholder = "N"
	case KindBytes:
		placeholder = "SIZE"
	case KindMillis:
		placeholder = "MS"
	case KindChoice:
		placeholder = strings.Join(s.Choices, "|")
	}
	help := strings.ReplaceAll(s.Doc, "`", "")
	if s.Default != "" {
		help += " Default: " + s.Default + "."
	}
	tag := fmt.Sprintf("name:%q help:%q env:%q placeholder:%q group:%q", s.Name, help, s.Env(), placeholder, s.Group)
	return strings.ReplaceAll(tag, "$", "$$") // kong would put variables in
}

// Struct is what kong embeds or takes as a command's plugin.
func (f *Flags) Struct() any { return f.fields.Interface() }

// Given lists name and text of every setting that a flag, the environment or the file gave.
func (f *Flags) Given() [][2]string {
	var given [][2]string
	for i, s := range f.settings {
		field := f.fields.Elem().Field(i)
		if field.IsNil() {
			continue
		}
		text := field.Elem().String()
		if variable, set := os.LookupEnv(s.Env()); text == "" && set && variable == "" {
			continue // kong took the empty variable for a value
		}
		given = append(given, [2]string{s.Name, text})
	}
	return given
}

// Groups are the headings of the help text.
func Groups() kong.Groups {
	groups := kong.Groups{}
	for _, g := range groupTitles {
		groups[g.name] = g.title + ":"
	}
	return groups
}

// groupTitles are the groups of the table in the order of the docs.
var groupTitles = []struct{ name, title string }{
	{"server", "Server"},
	{"connections", "Connections"},
	{"tls", "TLS"},
	{"queues", "Queues"},
	{"disk", "Disk"},
	{"defaults", "Queue options of queues that do not set them"},
}

// LoadFile reads a configuration file: YAML (so JSON too), a setting a line, `name: value`. A name that is no setting,
// or a value that YAML reads as something else than was written, is an error.
func LoadFile(path string) (kong.Resolver, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("configuration file: %w", err)
	}
	resolver, err := load(text)
	if err != nil {
		return nil, fmt.Errorf("configuration file %s: %w", path, err)
	}
	return resolver, nil
}

func load(text []byte) (kong.Resolver, error) {
	given := map[string]any{}
	if err := yaml.Unmarshal(text, &given); err != nil && !errors.Is(err, io.EOF) {
		return nil, hideValues(err)
	}
	if err := checkFile(given); err != nil {
		return nil, err
	}
	file, err := kongyaml.Loader(bytes.NewReader(text))
	if err != nil {
		return nil, hideValues(err)
	}
	return kong.ResolverFunc(func(ctx *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
		s := byName[flag.Name]
		if s == nil {
			return nil, nil // --config, --help
		}
		// An empty variable is none: container tools make one of every name that they know no value for.
		if os.Getenv(s.Env()) != "" {
			return nil, nil
		}
		// The path of the application rather than of the command: the file has no section for the command's name.
		raw, err := file.Resolve(ctx, &kong.Path{App: ctx.Model}, flag)
		if raw == nil || err != nil {
			return nil, err
		}
		return s.fromFile(raw)
	}), nil
}

// quoted is what the YAML library repeats of a file in its errors: a password that begins with a star, for example, as the name of an anchor.
var quoted = regexp.MustCompile("`.*`|'.*'")

// hideValues leaves the line and the reason of an error.
func hideValues(err error) error {
	return fmt.Errorf("%s; each line is \"name: value\", and a text with special characters belongs in quotes", quoted.ReplaceAllString(err.Error(), "(hidden)"))
}

// checkFile finds every entry of a file that is no setting or does not read as one.
func checkFile(given map[string]any) error {
	names := make([]string, 0, len(given))
	for name := range given {
		names = append(names, name)
	}
	slices.Sort(names)
	var errs []error
	for _, name := range names {
		s := byName[name]
		if s == nil {
			errs = append(errs, unknown(name))
		} else if _, err := s.fromFile(given[name]); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// fromFile turns a YAML value back into the text that a flag would have. A number where a text belongs is refused:
// YAML reads the password 0123 as 83, and only quotes keep it.
func (s *Setting) fromFile(raw any) (string, error) {
	isText := s.Kind == KindText || s.Kind == KindChoice
	switch v := raw.(type) {
	case string:
		return v, nil
	case bool:
		if s.Kind == KindBool {
			return map[bool]string{true: "yes", false: "no"}[v], nil
		}
	case int:
		if !isText {
			return strconv.Itoa(v), nil
		}
	case int64:
		if !isText {
			return strconv.FormatInt(v, 10), nil
		}
	}
	got, rule := "", ""
	if raw != nil {
		got = fmt.Sprint(raw)
	}
	if isText {
		rule = "write it in quotes"
	}
	return "", s.misfit(got, rule)
}

// otherEnv are the variables of commands that are clients, and of --config.
var otherEnv = []string{"QUAIL_CONFIG", "QUAIL_USER", "QUAIL_PASSWORD", "QUAIL_CLIENT_CACERT", "QUAIL_CLIENT_CERT", "QUAIL_CLIENT_KEY"}

// UnknownEnv lists the variables of an environment (os.Environ) that look like a setting of Quail and are none. Those
// that Kubernetes makes for a service called quail are left out. Second in each is the variable that may have been meant, or "".
func UnknownEnv(environ []string) [][2]string {
	known := map[string]bool{}
	for _, name := range otherEnv {
		known[name] = true
	}
	for _, s := range table {
		known[s.Env()] = true
	}
	var unknown [][2]string
	for _, line := range environ {
		name, _, _ := strings.Cut(line, "=")
		if !strings.HasPrefix(name, "QUAIL_") || known[name] ||
			strings.HasPrefix(name, "QUAIL_SERVICE_") || strings.HasPrefix(name, "QUAIL_PORT") {
			continue
		}
		near := meant(strings.ReplaceAll(strings.TrimPrefix(name, "QUAIL_"), "_", "-"))
		if s := byName[near]; s != nil {
			near = s.Env()
		}
		unknown = append(unknown, [2]string{name, near})
	}
	slices.SortFunc(unknown, func(a, b [2]string) int { return strings.Compare(a[0], b[0]) })
	return unknown
}
