// Command quail is the Quail message-queue server, and the few things around it: serve (what quail alone does), health,
// bench, version, backup, and check, dump and repair for a data directory that is not in use. It reads flags, environment and configuration file, wires the parts together and turns the outcome into
// an exit code. What a server does is in package server.
package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"quail/server/settings"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1 // it could not be done; the error says why
	exitUsage  = 2 // the command line, a variable or the configuration file is wrong; nothing was tried
	exitForced = 3 // a second signal ended a graceful stop; nothing acknowledged is lost
)

const description = `Quail is a durable message-queue server that speaks the Redis protocol: redis-cli and every Redis client library can use it.

A setting can come from a flag, from QUAIL_… in the environment, or from a YAML or JSON file named with --config, in this order. "quail serve --help" lists all settings.`

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// process is what the commands share.
type process struct {
	stdout, stderr io.Writer
	configFile     string
}

// run does what the arguments ask for and returns the exit code.
func run(args []string, stdout, stderr io.Writer) (code int) {
	// The commands stand here as values: kong would put fresh ones in the place of pointers.
	var grammar struct {
		Config  string     `name:"config" env:"QUAIL_CONFIG" placeholder:"FILE" help:"YAML or JSON file with settings, one a line: name: value."`
		Serve   serveCmd   `cmd:"" default:"withargs" help:"Run the server until SIGTERM or SIGINT (the default)."`
		Health  healthCmd  `cmd:"" help:"Ask a running server for a PONG; exit 0 if it answers, 1 if not."`
		Bench   benchCmd   `cmd:"" help:"Measure a Quail, and a Redis beside it, with the same load."`
		Backup  backupCmd  `cmd:"" help:"Copy the data directory of a running server."`
		Check   checkCmd   `cmd:"" help:"Check a stopped data directory, or a copy, and list what is in it."`
		Dump    dumpCmd    `cmd:"" help:"Print the messages of a stopped data directory as JSON lines."`
		Repair  repairCmd  `cmd:"" help:"Save what is whole in a damaged data directory into a new one."`
		Version versionCmd `cmd:"" help:"Print the version."`
	}
	grammar.Serve, grammar.Health, grammar.Backup = newServe(), newHealth(), newBackup()
	exited := false
	parser, err := kong.New(&grammar,
		kong.Name("quail"), kong.Description(description), settings.Groups(),
		kong.Writers(stdout, stderr), kong.ConfigureHelp(kong.HelpOptions{WrapUpperBound: 110}),
		kong.Exit(func(status int) { exited, code = true, status }),
		kong.WithBeforeResolve(addConfigFile))
	if err != nil {
		fmt.Fprintf(stderr, "quail: %v\n", err)
		return exitFailed
	}
	if len(args) > 0 && args[0] == "help" { // what many try first
		args = append(slices.Clone(args[1:]), "--help")
	}
	if len(args) == 1 && args[0] == "--version" {
		args = []string{"version"}
	}
	ctx, err := parser.Parse(args)
	if exited { // --help has been answered
		return code
	}
	if err != nil {
		fmt.Fprintf(stderr, "quail: %s\n%s\n", explainUsage(err), adviceUsage(args))
		return exitUsage
	}
	p := &process{stdout: stdout, stderr: stderr, configFile: grammar.Config}
	switch command, _, _ := strings.Cut(ctx.Command(), " "); command {
	case "backup":
		return grammar.Backup.run(p)
	case "check":
		return grammar.Check.run(p)
	case "dump":
		return grammar.Dump.run(p)
	case "repair":
		return grammar.Repair.run(p)
	case "health":
		return grammar.Health.run(p)
	case "bench":
		return grammar.Bench.run(p)
	case "version":
		fmt.Fprintln(stdout, versionLine())
		return exitOK
	default:
		return grammar.Serve.run(p)
	}
}

// explainUsage says in an operator's words what the parser says in its own.
func explainUsage(err error) string {
	if flag, _, missing := strings.Cut(err.Error(), `: expected string value but got "EOL"`); missing {
		return flag + " needs a value: " + flag + "=…"
	}
	return err.Error()
}

// adviceUsage names the help that has what was missed: of the command, of all commands if the first word is none, else of serve, which needs no word.
func adviceUsage(args []string) string {
	command := "serve"
	switch {
	case len(args) == 0 || strings.HasPrefix(args[0], "-"):
	case slices.Contains([]string{"backup", "bench", "check", "dump", "health", "repair", "serve"}, args[0]):
		command = args[0]
	default:
		return "Run \"quail --help\" for the commands."
	}
	return fmt.Sprintf("Run \"quail %s --help\" for what can be set, and how.", command)
}

// addConfigFile lets the flags of the chosen command be answered by the configuration file, if there is one. It runs
// when flags and environment have been read.
func addConfigFile(ctx *kong.Context) error {
	for _, flag := range ctx.Model.Flags {
		if flag.Name != "config" {
			continue
		}
		path, _ := ctx.FlagValue(flag).(string)
		if path == "" {
			return nil
		}
		resolver, err := settings.LoadFile(path)
		if err != nil {
			return err
		}
		ctx.AddResolver(resolver)
	}
	return nil
}
