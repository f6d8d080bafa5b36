package settings

// docs/config.md, written from the table.

import (
	"fmt"
	"strings"
)

//go:generate go test -run ^TestConfigPage$ -update .

// pageHead opens docs/config.md.
const pageHead = `# Settings

<!-- Written from the table in server/settings by "go generate ./server/settings". Do not edit. -->

Every setting can be given in four places. The first that has it wins:

1. a flag: ` + "`quail serve --max-clients 500`" + `
2. the environment: ` + "`QUAIL_MAX_CLIENTS=500`" + `; a variable that is empty counts as not set
3. a configuration file, YAML or JSON, named with ` + "`--config`" + ` or ` + "`QUAIL_CONFIG`" + `: ` + "`max-clients: 500`" + `
4. the default

Sizes are bytes, or a whole number with ` + "`kb`, `mb` or `gb`" + ` (powers of 1,024). Times are milliseconds. Switches are
` + "`yes` or `no`" + `. In a file, texts that look like a number belong in quotes: ` + "`requirepass: \"0123\"`" + `.
A name that is no setting, and a value that does not fit, stop the start with an error that names it; but for a variable that is
no setting, which gets a warning in the log, since container tools make variables of their own.

Settings marked *live* can be changed while the server runs: ` + "`CONFIG SET name value [name value …]`" + ` changes all of
them or none. Such a change lasts until the server stops; write it to the file to keep it. ` + "`CONFIG GET pattern`" + ` shows
the values in force, sizes in bytes; a password is shown as ` + "`" + Masked + "`" + `.
`

// Page is the text of docs/config.md.
func Page() string {
	var page strings.Builder
	page.WriteString(pageHead)
	for _, group := range groupTitles {
		fmt.Fprintf(&page, "\n## %s\n\n| setting | default | allowed | live | what it does |\n|---|---|---|---|---|\n", group.title)
		for _, s := range table {
			if s.Group == group.name {
				fmt.Fprintf(&page, "| `%s` | %s | %s | %s | %s |\n", s.Name, s.defaultCell(), s.allowedCell(), map[bool]string{true: "live"}[s.Live], cell(s.Doc))
			}
		}
	}
	return page.String()
}

func (s *Setting) defaultCell() string {
	if s.Default == "" {
		return "empty"
	}
	return "`" + cell(s.Default) + "`"
}

func (s *Setting) allowedCell() string {
	switch s.Kind {
	case KindBytes:
		return FormatBytes(s.Min) + " to " + FormatBytes(s.Max)
	case KindInt:
		return fmt.Sprintf("%d to %d %s", s.Min, s.Max, s.Unit)
	case KindMillis:
		return fmt.Sprintf("%d to %d ms", s.Min, s.Max)
	default:
		return cell(s.Allowed())
	}
}

// cell keeps a text from being taken for the table's own marks.
func cell(text string) string {
	return strings.NewReplacer("|", `\|`, "<", "&lt;").Replace(text)
}
