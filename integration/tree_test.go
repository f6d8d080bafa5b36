//go:build linux

package integration

// Real input: Go's own source tree goes through Quail file by file, while the server is killed again and again, and has
// to come out identical on the other side.
//
// Producers are go-redis, redis-cli --pipe and redis-cli -x; for each queue two consumers of different names take turns.
// Every message is a path, a line break, and the file's bytes. Kills come after a number of acknowledgements.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	treeQueues      = 4
	treeKills       = 5
	treeLeaseMillis = 5_000 // batches whose reply died with the server come back after this
	treeTriesMax    = 60    // of one push or ack; each failed try but the last few is the server's death
	pipeFiles       = 40    // files of one redis-cli --pipe; all of them are pushed again if it breaks off
	turnEvery       = 25    // batches after which a consumer gives the lock to the other
)

// tree is one run of the test.
type tree struct {
	t      *testing.T
	s      *server
	root   string
	out    string
	ledger *ledger
	paths  []string // relative, with slashes

	answered  atomic.Int64 // pushes and acknowledgements of single messages that were answered
	killAt    []int64      // rising
	killMu    sync.Mutex   // guards the index into killAt; held while the server is down
	kills     int
	producing atomic.Int64 // producers that are not done
	handovers atomic.Int64
	byCLI     atomic.Int64
	failed    atomic.Bool
}

// Without this, nobody has seen that Quail can be trusted with real files: some empty, some of megabytes, all of them
// different, and a server that dies five times on the way.
func TestSourceTreeSurvivesFiveKills(t *testing.T) {
	random := seeded(t)
	s := newServer(t, "--journal-file-bytes", "2mb", "--journal-bytes", "32mb", "--checkpoint-bytes", "4mb",
		"--segment-bytes", "256kb", "--write-behind-bytes", "8mb", "--log-level", "debug")
	r := &tree{t: t, s: s, root: filepath.Join(goRoot(t), "src"), out: t.TempDir(), ledger: newLedger()}
	r.paths = filesBelow(t, r.root)
	if len(r.paths) < 5_000 {
		t.Fatalf("only %d files below %s", len(r.paths), r.root)
	}
	// Each file is answered for twice, so the last kill is surely reached, and all of them happen with work under way.
	spacing := int64(2*len(r.paths)) / (treeKills + 1)
	for i := range int64(treeKills) {
		r.killAt = append(r.killAt, (i+1)*spacing-random.Int64N(spacing/2))
	}
	s.start()
	r.makeQueues()
	began := time.Now()
	r.run()
	took := time.Since(began)
	r.checkEnd()
	t.Logf("%d files through %d queues in %v (%d by redis-cli); %d kills, %d handovers of a lock; %d deliveries of the same message, "+
		"%d files pushed twice, %d pushes and %d acks unheard, %d batches lost", len(r.paths), treeQueues, took.Round(time.Millisecond), r.byCLI.Load(),
		r.kills, r.handovers.Load(), r.ledger.redeliveries, r.ledger.pushedTwice, r.ledger.unheardPushes, r.ledger.unheardAcks, r.ledger.lostBatches)
}

func goRoot(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatalf("go env GOROOT: %v", err)
	}
	return strings.TrimSpace(string(out))
}

func filesBelow(t *testing.T, root string) []string {
	t.Helper()
	var paths []string
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		relative, err := filepath.Rel(root, path)
		paths = append(paths, filepath.ToSlash(relative))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// queueOf spreads the files; producers and checks must agree.
func queueOf(path string) string {
	sum := 0
	for _, b := range []byte(path) {
		sum = sum*31 + int(b)
	}
	return fmt.Sprintf("files.%d", uint32(sum)%treeQueues)
}

func (r *tree) makeQueues() {
	conn := r.s.connect(r.t)
	for i := range treeQueues {
		must(r.t, conn, "QCREATE", fmt.Sprintf("files.%d", i), "max-attempts", 0)
	}
}

func (r *tree) run() {
	var group sync.WaitGroup
	var byGoRedis, byPipe, byStdin []string
	_, err := exec.LookPath("redis-cli")
	cli := err == nil
	if !cli {
		r.t.Log("SKIP: without redis-cli (Debian: redis-tools) go-redis pushes all files")
	}
	for i, path := range r.paths {
		switch {
		case cli && i%25 == 0:
			byStdin = append(byStdin, path)
		case cli && i%25 < 9:
			byPipe = append(byPipe, path)
		default:
			byGoRedis = append(byGoRedis, path)
		}
	}
	r.byCLI.Store(int64(len(byStdin) + len(byPipe)))
	producers := []func(){
		func() { r.produceStdin(byStdin) },
		func() { r.producePipe(byPipe) },
		func() { r.produceGoRedis(byGoRedis[:len(byGoRedis)/2]) },
		func() { r.produceGoRedis(byGoRedis[len(byGoRedis)/2:]) },
	}
	r.producing.Store(int64(len(producers)))
	for _, produce := range producers {
		group.Go(func() {
			defer r.producing.Add(-1)
			produce()
		})
	}
	for i := range treeQueues {
		for _, consumer := range []string{"left", "right"} {
			group.Go(func() { r.consume(fmt.Sprintf("files.%d", i), consumer) })
		}
	}
	group.Wait()
}

// fail ends the run without waiting for it: every loop looks at failed.
func (r *tree) fail(format string, args ...any) {
	if !r.failed.Swap(true) {
		r.t.Errorf(format, args...)
	}
}

// count adds answers, and kills the server where they reach the next mark. Whoever gets that answer does the killing, so it
// happens right behind that acknowledgement; the others run into it.
func (r *tree) count(answers int) {
	now := r.answered.Add(int64(answers))
	for {
		r.killMu.Lock()
		if r.kills >= len(r.killAt) || now < r.killAt[r.kills] {
			r.killMu.Unlock()
			return
		}
		r.kills++
		r.s.kill()
		if err := r.s.tryStart(); err != nil {
			r.fail("after kill %d: %v", r.kills, err)
		}
		r.killMu.Unlock()
	}
}

// content is the message for a file.
func (r *tree) content(path string) []byte {
	bytes, err := os.ReadFile(filepath.Join(r.root, path))
	if err != nil {
		r.fail("%v", err)
	}
	return append([]byte(path+"\n"), bytes...)
}

func (r *tree) client() *redis.Client {
	// No retries inside the library: the ledger has to know of each push.
	return redis.NewClient(&redis.Options{Addr: r.s.addr, MaxRetries: -1, ReadTimeout: replyTimeout, WriteTimeout: replyTimeout, PoolSize: 1})
}

// lost says what to do after an error: go on once the server is back, or give up.
func (r *tree) lost(err error, try int, what string) (again bool) {
	var refusal redis.Error
	if errors.As(err, &refusal) && !strings.HasPrefix(refusal.Error(), "LOADING ") { // a server that was killed loads
		r.fail("%s: %v", what, err)
		return false
	}
	if try+1 >= treeTriesMax || !r.s.awaitUp() {
		r.fail("%s: %d tries, the last one: %v", what, try+1, err)
		return false
	}
	return !r.failed.Load()
}

func (r *tree) produceGoRedis(paths []string) {
	client := r.client()
	defer client.Close()
	for _, path := range paths {
		queue, content := queueOf(path), r.content(path)
		for try := 0; ; try++ {
			if r.failed.Load() {
				return
			}
			r.ledger.push(path)
			id, err := client.Do(context.Background(), "QPUSH", queue, content).Int64()
			if err == nil {
				r.ledger.pushAnswered(queue, path, id)
				r.count(1)
				break
			}
			r.ledger.pushUnheard(path)
			if !r.lost(err, try, "QPUSH "+path) {
				return
			}
		}
	}
}

// produceStdin pushes each file with redis-cli -x. redis-cli itself tries once more on a connection that broke, so a push
// during which the server died counts as two.
func (r *tree) produceStdin(paths []string) {
	for _, path := range paths {
		queue, content := queueOf(path), r.content(path)
		for try := 0; ; try++ {
			if r.failed.Load() || !r.s.awaitUp() {
				return
			}
			r.ledger.push(path)
			deaths := r.s.deaths.Load()
			out, err := redisCLI(r.s, content, "-e", "-x", "QPUSH", queue)
			if r.s.deaths.Load() != deaths {
				r.ledger.push(path)
			}
			id, bad := strconv.ParseInt(strings.TrimSpace(out), 10, 64)
			if err == nil && bad == nil {
				r.ledger.pushAnswered(queue, path, id)
				r.count(1)
				break
			}
			r.ledger.pushUnheard(path)
			if strings.Contains(out, "ERR") || !r.lost(fmt.Errorf("%v: %q", err, out), try, "redis-cli -x QPUSH "+path) {
				r.fail("redis-cli -x QPUSH %s: %v: %s", path, err, out)
				return
			}
		}
	}
}

// producePipe pushes many files at once with redis-cli --pipe. It tells only how many replies it saw in the end: if it
// breaks off, none of its pushes counts as answered.
func (r *tree) producePipe(paths []string) {
	for chunk := range slices.Chunk(paths, pipeFiles) {
		var protocol bytes.Buffer
		for _, path := range chunk {
			writeCommand(&protocol, "QPUSH", queueOf(path), string(r.content(path)))
		}
		for try := 0; ; try++ {
			if r.failed.Load() || !r.s.awaitUp() {
				return
			}
			r.ledger.push(chunk...)
			out, err := redisCLI(r.s, protocol.Bytes(), "--pipe")
			if err == nil && strings.Contains(out, fmt.Sprintf("errors: 0, replies: %d", len(chunk))) {
				r.count(len(chunk))
				break
			}
			r.ledger.pushUnheard(chunk...)
			if strings.Contains(out, "ERR ") || !r.lost(fmt.Errorf("%v: %q", err, out), try, "redis-cli --pipe") {
				r.fail("redis-cli --pipe: %v: %s", err, out)
				return
			}
		}
	}
}

// writeCommand appends a command in the protocol's form.
func writeCommand(into *bytes.Buffer, words ...string) {
	fmt.Fprintf(into, "*%d\r\n", len(words))
	for _, word := range words {
		fmt.Fprintf(into, "$%d\r\n%s\r\n", len(word), word)
	}
}

// redisCLI runs redis-cli and returns all that it says.
func redisCLI(s *server, stdin []byte, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*replyTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "redis-cli", append([]string{"-p", s.port()}, args...)...)
	cmd.Stdin = bytes.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// consume is one consumer: it pulls, writes the files, acknowledges, and now and then lets the other one have a turn.
func (r *tree) consume(queue, consumer string) {
	client := r.client()
	defer client.Close()
	ctx := context.Background()
	for batches, tries := 0, 0; !r.failed.Load(); {
		done := r.producing.Load() == 0 // asked before the pull: what is null after this is the end, or is leased
		deaths := r.s.deaths.Load()
		reply, err := client.Do(ctx, "QCONSUME", queue, consumer, "COUNT", 12, "BLOCK", 300, "LEASE", treeLeaseMillis).Result()
		if errors.Is(err, redis.Nil) {
			reply, err = nil, nil
		}
		b, err := parseBatch(reply, err)
		if err != nil {
			if !r.lost(err, tries, "QCONSUME "+queue) {
				return
			}
			tries++
			continue
		}
		tries = 0
		if b == nil {
			if left, err := client.Do(ctx, "QLEN", queue).Int64(); done && err == nil && left == 0 {
				return
			}
			continue
		}
		r.write(queue, b, deaths)
		r.ack(client, queue, b, deaths)
		if batches++; batches%turnEvery == 0 {
			r.handOver(client, queue, consumer)
		}
	}
}

// write stores the files of a batch, each whole or not at all.
func (r *tree) write(queue string, b *batch, deaths int64) {
	now := time.Now()
	for _, m := range b.messages {
		path, content, found := strings.Cut(m.body, "\n")
		if !found || !filepath.IsLocal(path) {
			r.fail("message %d of %s was never pushed: %.80q", m.id, queue, m.body)
			return
		}
		r.ledger.delivered(messageKey{queue, m.id}, path, deaths, r.s.deaths.Load(), b.deadline(), now)
		target := filepath.Join(r.out, path)
		aside := fmt.Sprintf("%s.%d~", target, b.id)
		err := os.MkdirAll(filepath.Dir(target), 0o755)
		if err == nil {
			err = os.WriteFile(aside, []byte(content), 0o644)
		}
		if err == nil {
			err = os.Rename(aside, target)
		}
		if err != nil {
			r.fail("%v", err)
		}
	}
}

func (r *tree) ack(client *redis.Client, queue string, b *batch, deaths int64) {
	for try := 0; !r.failed.Load(); try++ {
		n, err := client.Do(context.Background(), "QACK", queue, b.id).Int64()
		if err == nil {
			r.ledger.ackAnswered(queue, b, n, try > 0)
			r.count(len(b.messages))
			return
		}
		if strings.HasPrefix(err.Error(), "NOBATCH ") {
			r.ledger.batchLost(queue, b, deaths, r.s.deaths.Load(), time.Now())
			return
		}
		r.ledger.ackUnheard(queue, b)
		if !r.lost(err, try, fmt.Sprintf("QACK %s %d", queue, b.id)) {
			return
		}
	}
}

// handOver gives the lock up, so that the other consumer gets its turn. If the lock was lost already, so much the better.
func (r *tree) handOver(client *redis.Client, queue, consumer string) {
	ctx := context.Background()
	token, err := client.Do(ctx, "QLOCK", queue, consumer).Int64()
	if err != nil {
		return
	}
	if released, err := client.Do(ctx, "QUNLOCK", queue, token).Int64(); err == nil && released == 1 {
		r.handovers.Add(1)
	}
}

// checkEnd compares what came out with what went in.
func (r *tree) checkEnd() {
	t := r.t
	if r.kills != treeKills && !t.Failed() {
		t.Errorf("the server was killed %d times, not %d", r.kills, treeKills)
	}
	for _, complaint := range r.ledger.complaints {
		t.Error(complaint)
	}
	if t.Failed() {
		return
	}
	came := filesBelow(t, r.out)
	if !slices.Equal(came, r.paths) {
		t.Errorf("%d files went in and %d came out; missing: %.5q; never pushed: %.5q", len(r.paths), len(came), without(r.paths, came), without(came, r.paths))
	}
	different := 0
	for _, path := range came {
		want, err := os.ReadFile(filepath.Join(r.root, path))
		got, err2 := os.ReadFile(filepath.Join(r.out, path))
		if err != nil || err2 != nil || !bytes.Equal(got, want) {
			if different++; different <= 5 {
				t.Errorf("%s: %d bytes went in, %d came out, different (%v, %v)", path, len(want), len(got), err, err2)
			}
		}
	}
	if r.handovers.Load() == 0 {
		t.Error("no consumer ever took over from the other: this run proves nothing about two consumers")
	}
}

// without lists what is in a and not in b.
func without(a, b []string) (missing []string) {
	set := make(map[string]bool)
	for _, x := range b {
		set[x] = true
	}
	for _, x := range a {
		if !set[x] {
			missing = append(missing, x)
		}
	}
	return missing
}
