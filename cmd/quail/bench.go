package main

// quail bench: how quick is a Quail on this machine, and how quick a Redis that promises the same? Package bench measures;
// this reads the flags, finds the servers' programs and prints.

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"

	"quail/cmd/quail/bench"
)

type benchCmd struct {
	Quail         string `name:"quail" placeholder:"ADDR" help:"Measure the Quail at this host:port. Default: start one for the run."`
	QuailServer   string `name:"quail-server" placeholder:"FILE" help:"The program to start as Quail. Default: this one."`
	QuailUser     string `name:"user" aliases:"quail-user" env:"QUAIL_USER" placeholder:"NAME" help:"User to authenticate as at --quail. Default: default."`
	QuailPassword string `name:"pass" aliases:"quail-password" env:"QUAIL_PASSWORD,QUAIL_REQUIREPASS" placeholder:"TEXT" help:"The user's password at --quail. The environment is safer: a command line can be seen by others."`
	tlsFlags
	Redis         string   `name:"redis" placeholder:"ADDR" help:"Measure the Redis at this host:port; \"none\" measures Quail alone. Default: start one for the run, if there is a redis-server."`
	RedisServer   string   `name:"redis-server" placeholder:"FILE" help:"The program to start as Redis. Default: redis-server on the PATH."`
	RedisPassword string   `name:"redis-password" env:"REDISCLI_AUTH" placeholder:"TEXT" help:"Password for --redis."`
	Scenarios     []string `name:"scenarios" placeholder:"S1,S2" help:"Which scenarios to run. Default: all. docs/benchmarks.md tells what each does."`
	Rounds        int      `name:"rounds" default:"5" placeholder:"N" help:"How often each server runs each scenario, in turns. Default: 5."`
	Seconds       int      `name:"seconds" default:"3" placeholder:"S" help:"How long a turn lasts. Default: 3."`
	Messages      int64    `name:"messages" default:"0" placeholder:"N" help:"How many messages a turn has, instead of --seconds."`
	BodyBytes     int      `name:"body-bytes" default:"100" placeholder:"N" help:"Size of a body where the scenario does not say. Default: 100."`
	DataDir       string   `name:"data-dir" default:"." placeholder:"DIR" help:"Where servers that are started get their temporary data directories; it should be on the disk that matters. Default: the current directory."`
	JSON          bool     `name:"json" help:"Print everything, every turn included, as JSON."`
}

func (b *benchCmd) Help() string {
	var list strings.Builder
	for _, s := range bench.Scenarios {
		fmt.Fprintf(&list, "  %s  %s\n", s.Name, s.Title)
	}
	return "Starts a Quail and a Redis with appendfsync always, unless it is told where they are, and loads them in turns. What each scenario asks of either stands in docs/benchmarks.md.\n\nScenarios:\n" + list.String()
}

// config finds out what is to be measured, and what is wrong with the flags.
func (b *benchCmd) config(p *process) (bench.Config, error) {
	c := bench.Config{
		Quail:     bench.Server{Address: b.Quail, Program: b.QuailServer, User: b.QuailUser, Password: b.QuailPassword},
		Redis:     bench.Server{Address: b.Redis, Program: b.RedisServer, Password: b.RedisPassword},
		Scenarios: b.Scenarios, Rounds: b.Rounds, Seconds: b.Seconds, Messages: b.Messages,
		BodyBytes: b.BodyBytes, DataDir: b.DataDir, Progress: p.stderr,
	}
	if err := b.tlsFlags.check(); err != nil {
		return c, err
	}
	if b.TLS && b.Quail != "" { // servers that are started for the run speak plainly
		host, _, err := net.SplitHostPort(b.Quail)
		if err != nil {
			return c, fmt.Errorf("--quail: got %q; with --tls it is host:port", b.Quail)
		}
		if c.Quail.TLS, err = b.tlsFlags.config(host); err != nil {
			return c, err
		}
	}
	if b.Quail != "" && b.QuailServer != "" {
		return c, fmt.Errorf("--quail and --quail-server: give one of them")
	}
	if b.Redis != "" && b.RedisServer != "" {
		return c, fmt.Errorf("--redis and --redis-server: give one of them")
	}
	if b.Quail == "" && b.QuailServer == "" {
		program, err := os.Executable()
		if err != nil {
			return c, fmt.Errorf("find this program, to start it as a server: %w", err)
		}
		c.Quail.Program = program
	}
	switch {
	case b.Redis == "none":
		c.Redis = bench.Server{}
	case b.Redis == "" && b.RedisServer == "":
		program, err := exec.LookPath("redis-server")
		if err != nil {
			fmt.Fprintln(p.stderr, "quail: there is no redis-server on the PATH, so Quail is measured alone; --redis or --redis-server names one")
		}
		c.Redis.Program = program
	}
	return c, c.Check()
}

func (b *benchCmd) run(p *process) int {
	config, err := b.config(p)
	if err != nil {
		fmt.Fprintf(p.stderr, "quail: %v\nRun \"quail bench --help\" for what can be set.\n", err)
		return exitUsage
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process, and with it the servers that it started
	report, err := bench.Run(ctx, config)
	if err != nil {
		fmt.Fprintf(p.stderr, "quail: %v\n", err)
		return exitFailed
	}
	if b.JSON {
		out := json.NewEncoder(p.stdout)
		out.SetIndent("", "  ")
		err = out.Encode(report)
	} else {
		err = report.WriteTable(p.stdout)
	}
	if err != nil {
		fmt.Fprintf(p.stderr, "quail: write the report: %v\n", err)
		return exitFailed
	}
	return exitOK
}
