package machine

// Scripts in testdata read as a conversation with a queue: commands, a line of dashes, and what the machine answers.
// After each command the driver checks the invariants and both ways to restart.
//
//	push [delay=ms] [ttl=ms] [dedup=id] size …    a message of that many bytes each; answers their ids
//	lock consumer [ttl=ms]                         take or renew; unlock [next=consumer]
//	consume [count=n] [lease=ms]                   a batch: id!attempt …
//	ack batch [id …]                               nack batch [delay=ms] [release|dead] [id …]   extend batch ms
//	pass ms                                        time goes by; what ended is recorded
//	renew ms                                       a renewal of the lock without a record
//	state id …, info, totals, batches, lock?, next questions
//	remove id …, purge [before=id], pause […], policy …, restart
//
// Run the tests with -rewrite to write down what the machine answers now.

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "write the machine's answers into the scripts")

func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) { runScript(t, file) })
	}
}

func runScript(t *testing.T, file string) {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s := &script{driver: newDriver(t)}
	var out strings.Builder
	for i, block := range strings.Split(strings.TrimRight(string(text), "\n"), "\n\n") {
		asked, want, isExchange := strings.Cut(block, "\n----\n")
		asked = strings.TrimSuffix(asked, "\n----")
		if i > 0 {
			out.WriteString("\n")
		}
		out.WriteString(asked + "\n")
		got := ""
		for _, line := range strings.Split(asked, "\n") {
			if line != "" && !strings.HasPrefix(line, "#") {
				got += s.answer(strings.Fields(line)) + "\n"
				isExchange = true
				s.check()
			}
		}
		if !isExchange {
			continue
		}
		out.WriteString("----\n" + got)
		if got != want+"\n" && !*rewrite {
			t.Errorf("%s:\n%s\n---- wanted\n%s\n---- got\n%s", file, asked, want, got)
		}
	}
	if *rewrite {
		if err := os.WriteFile(file, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

type script struct{ *driver }

// words splits arguments into numbers, key=value pairs, and the rest.
func words(args []string) (ids []uint64, set map[string]string) {
	set = map[string]string{}
	for _, a := range args {
		if n, err := strconv.ParseUint(a, 10, 64); err == nil {
			ids = append(ids, n)
			continue
		}
		k, v, _ := strings.Cut(a, "=")
		set[k] = v
	}
	return ids, set
}

func number(set map[string]string, key string, otherwise int64) int64 {
	if v, ok := set[key]; ok {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			panic(err)
		}
		return n
	}
	return otherwise
}

func (s *script) answer(args []string) string {
	ids, set := words(args[1:])
	switch args[0] {
	case "push":
		return s.doPush(ids, set)
	case "lock":
		return s.doLock(args[1], number(set, "ttl", 30_000))
	case "unlock":
		return s.doUnlock(set["next"])
	case "consume":
		return s.doConsume(int(number(set, "count", 10)), number(set, "lease", 30_000))
	case "ack", "nack", "extend":
		return s.doSettle(args[0], ids, set)
	case "pass":
		expired, lapsed := s.pass(int64(ids[0]))
		return fmt.Sprintf("at %d%s%s", s.now.ClockMillis, when(expired, ", batches expired"), when(lapsed, ", the lock lapsed"))
	case "renew":
		s.m.RenewVolatile(s.now.ClockMillis + int64(ids[0]))
		return s.lockState()
	case "policy":
		s.policy = RetryPolicy{DelayMillis: number(set, "delay", 0), Backoff: number(set, "backoff", 1),
			DelayMaxMillis: number(set, "max", 900_000), AttemptsMax: number(set, "attempts", 0)}
		return "ok"
	case "remove", "purge", "pause":
		return s.doManage(args[0], ids, set)
	case "restart":
		return s.restart()
	}
	return s.question(args[0], ids)
}

func orNone(answer string) string {
	if answer == "" {
		return "none"
	}
	return answer
}

func when(yes bool, text string) string {
	if yes {
		return text
	}
	return ""
}

func (s *script) doPush(sizes []uint64, set map[string]string) string {
	msg := Message{TTLMillis: number(set, "ttl", 0)}
	if delay := number(set, "delay", 0); delay > 0 {
		msg.DueMillis = s.now.WallMillis + delay
	}
	if id, ok := set["dedup"]; ok {
		if first, known := s.m.Duplicate(s.now, []byte(id)); known {
			s.m.CountDuplicate()
			return fmt.Sprintf("is %d already", first)
		}
		msg.Dedup, msg.DedupUntilMillis = []byte(id), s.now.WallMillis+300_000
	}
	var out []string
	for _, size := range sizes {
		out = append(out, strconv.FormatUint(s.push(int(size), msg), 10))
	}
	return strings.Join(out, " ")
}

func (s *script) doLock(consumer string, ttl int64) string {
	l, held := s.m.Lock()
	switch {
	case held && l.Consumer != consumer:
		return "held by " + l.Consumer
	case held:
		s.apply(s.m.DecideGrant(s.now, Grant{Consumer: consumer, Token: l.Token, TTLMillis: ttl}), 0)
	default:
		s.grant(consumer, ttl)
	}
	return s.lockState()
}

func (s *script) lockState() string {
	l, held := s.m.Lock()
	if !held {
		return "free"
	}
	return fmt.Sprintf("%s, token %d, until %d", l.Consumer, l.Token, l.DeadlineMillis)
}

func (s *script) doUnlock(next string) string {
	if next == "" {
		s.apply(s.m.DecideUnlock(s.now, nil, false), 0)
	} else {
		s.apply(s.m.DecideUnlock(s.now, &Grant{Consumer: next, Token: s.id(), TTLMillis: 30_000}, false), 0)
	}
	return s.lockState()
}

func (s *script) doConsume(count int, lease int64) string {
	batch, l := s.consume(count, lease)
	if batch == 0 {
		return "nothing"
	}
	out := fmt.Sprintf("batch %d:", batch)
	for _, r := range l.Returned {
		out += fmt.Sprintf(" %d!%d", r.ID, r.Failed+1)
	}
	for _, n := range l.New {
		out += fmt.Sprintf(" %d!1", n.ID)
	}
	return out
}

func (s *script) doSettle(what string, ids []uint64, set map[string]string) string {
	batch, ids := ids[0], ids[1:]
	if len(ids) == 0 {
		ids = nil
	}
	var n int
	var err error
	switch what {
	case "ack":
		n, err = s.ack(batch, ids)
	case "nack":
		mode := Retry
		if _, ok := set["release"]; ok {
			mode = Release
		} else if _, ok := set["dead"]; ok {
			mode = Dead
		}
		n, err = s.nack(batch, ids, mode, number(set, "delay", -1))
	case "extend":
		deadline, e, err := s.m.DecideExtend(s.now, batch, int64(ids[0]))
		if err != nil {
			return err.Error()
		}
		s.apply(e, 0)
		return fmt.Sprintf("until %d", deadline)
	}
	if err != nil {
		return err.Error()
	}
	return strconv.Itoa(n)
}

func (s *script) doManage(what string, ids []uint64, set map[string]string) string {
	switch what {
	case "remove":
		n, e, changed, err := s.m.DecideRemove(s.removals(ids), ByOwner)
		if err != nil {
			return err.Error()
		}
		if changed {
			s.apply(e, 0)
		}
		return strconv.Itoa(n)
	case "purge":
		before := uint64(number(set, "before", ValueMax))
		ready, size := s.readyBelow(before)
		n, e, changed := s.m.DecidePurge(before, ready, size)
		if changed {
			s.apply(e, 0)
		}
		return strconv.FormatInt(n, 10)
	}
	_, push := set["push"]
	_, consume := set["consume"]
	e, changed := s.m.DecidePause(push, consume)
	if changed {
		s.apply(e, 0)
	}
	push, consume = s.m.Paused()
	return fmt.Sprintf("push %v, consume %v", push, consume)
}

func (s *script) restart() string {
	m, err := Restore(s.m.Snapshot(nil))
	if err != nil {
		return err.Error()
	}
	s.m = m
	return "ok"
}

func (s *script) question(what string, ids []uint64) string {
	switch what {
	case "lock?":
		return s.lockState()
	case "state":
		var out []string
		for _, r := range s.removals(ids) {
			ask := s.m.StateOf
			if r.Delayed {
				ask = s.m.StateOfDelayed
			}
			state, attempts := ask(r.ID)
			out = append(out, fmt.Sprintf("%d %v!%d", r.ID, state, attempts))
		}
		return orNone(strings.Join(out, ", "))
	case "info":
		c := s.m.Counts()
		return fmt.Sprintf("ready %d/%dB, delayed %d/%dB, leased %d/%dB, retrying %d/%dB; records %d, cursor %d, needed from %d",
			c.Ready, c.ReadyBytes, c.Delayed, c.DelayedBytes, c.Leased, c.LeasedBytes, c.Retrying, c.RetryingBytes,
			s.m.LastLSN(), s.m.Cursor(), s.m.FirstNeeded())
	case "totals":
		t := s.m.Counts().Totals
		return fmt.Sprintf("pushed %d, delivered %d, acknowledged %d, failed %d, expired %d, dead-lettered %d, removed %d, deduplicated %d",
			t.Pushed, t.Delivered, t.Acknowledged, t.Failed, t.Expired, t.DeadLettered, t.Removed, t.Deduplicated)
	case "batches":
		out := []string{}
		for _, b := range s.m.Batches(nil) {
			out = append(out, fmt.Sprintf("%d: %d messages of %d B from %d, until %d", b.Batch, b.Messages, b.Bytes, b.FirstID, b.DeadlineMillis))
		}
		return orNone(strings.Join(out, "; "))
	case "next":
		deadline, hasDeadline := s.m.NextDeadline()
		due, hasDue := s.m.NextDueWall()
		retry, hasRetry := s.m.NextRetryWall()
		out := ""
		if hasDeadline {
			out += fmt.Sprintf("deadline %d ", deadline)
		}
		if hasDue {
			out += fmt.Sprintf("due in %d ", due-s.now.WallMillis)
		}
		if hasRetry {
			out += fmt.Sprintf("retries until %d", max(retry-s.now.WallMillis, 0))
		}
		return orNone(strings.TrimSpace(out))
	}
	return "no such question: " + what
}
