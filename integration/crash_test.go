//go:build linux

package integration

// Two hundred lives of one data directory. In each, several connections push, consume, acknowledge, lock, unlock, delete and
// make queues until the n-th acknowledgement, whose receiver kills the server with -9. Then the server starts again and all
// that it holds is compared with what its clients were told.

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gomodule/redigo/redis"
)

const (
	crashPushers    = 4
	crashOpsMax     = 5_000  // of one connection in one life: far more than a life lasts
	crashBacklogMax = 600    // an audit that finds more in a queue empties it, so that audits stay quick
	crashBodyBytes  = 6_000  // most bodies are smaller than this
	crashBigBytes   = 90_000 // one in forty is as large as this: longer than a segment of the log
)

var crashWork = []string{"work.0", "work.1"}

// crash is the test's state over all lives.
type crash struct {
	t     *testing.T
	s     *server
	model *model
	life  int

	answers atomic.Int64 // in this life
	killAt  int64
	killed  sync.Once

	locks *lockLine
	churn *churn

	work    []string // the queues of pushers and consumers
	delayed string   // a queue whose messages come later; empty for none
	die     func()   // ends the server's life; kill -9 unless the test has something worse
	pace    func()   // what a client does before each command; nil for nothing
}

// newCrash prepares the state of a test over many lives. One pusher and two consumers that compete work on
// each queue; with fewer queues than crashPushers there are several pushers to a queue.
func newCrash(t *testing.T, s *server, work []string) *crash {
	return &crash{t: t, s: s, model: newModel(), locks: &lockLine{}, churn: &churn{}, work: work, die: s.kill}
}

// crashArgs make files and limits small, so that a short life sees segments change and checkpoints. Attempts have no end,
// since the model knows nothing of dead-letter queues.
var crashArgs = []string{"--default-max-attempts", "0", "--journal-file-bytes", "1mb", "--journal-bytes", "4mb", "--checkpoint-bytes", "1mb",
	"--segment-bytes", "64kb", "--write-behind-bytes", "1mb", "--log-level", "debug", "--default-retry-delay", "0"}

// Without this, "durable" is a claim: a reply that leaves before its record is safe, a record that is applied twice or a
// number that is given twice shows only here, between a reply and a crash.
func TestTwoHundredCrashes(t *testing.T) {
	random := seeded(t)
	lives := 200
	if longRun {
		lives = 3_000
	}
	c := newCrash(t, startServer(t, crashArgs...), crashWork)
	began, restarts := time.Now(), time.Duration(0)
	for c.life = 1; c.life <= lives && !t.Failed(); c.life++ {
		c.live(random)
		at := time.Now()
		c.restart(random)
		restarts += time.Since(at)
		c.model.nextLife()
		c.audit()
		for _, complaint := range c.model.complaints {
			t.Errorf("life %d: %s", c.life, complaint)
		}
	}
	m := c.model
	checkpoints := strings.Count(c.s.log(), `"message":"checkpoint"`)
	t.Logf("%d lives in %v, %v of it starting: %d messages pushed, %d batches with %d messages, %d removed, %d locks granted, "+
		"%d queues deleted, %d unheard pushes were there all the same, %d checkpoints", c.life-1, time.Since(began).Round(time.Millisecond), restarts.Round(time.Millisecond),
		m.pushes, m.batches, m.delivered, m.acks, m.grants, m.deletions, m.survivedUnheard, checkpoints)
}

// live runs all clients until the server is dead.
func (c *crash) live(random *rand.Rand) {
	c.answers.Store(0)
	c.killAt = 1 + random.Int64N(250)
	c.killed = sync.Once{}
	var group sync.WaitGroup
	run := func(work func(conn redis.Conn, random *rand.Rand)) {
		own := rand.New(rand.NewPCG(random.Uint64(), random.Uint64()))
		group.Go(func() {
			conn, err := c.s.dial()
			if err != nil {
				return // killed already
			}
			defer conn.Close()
			work(conn, own)
		})
	}
	for i := range max(crashPushers, len(c.work)) {
		run(func(conn redis.Conn, random *rand.Rand) { c.push(conn, random, i) })
	}
	for _, queue := range c.work {
		for _, consumer := range []string{"one", "other"} {
			run(func(conn redis.Conn, random *rand.Rand) { c.consume(conn, random, queue, consumer) })
		}
	}
	run(c.lock)
	run(c.churnQueue)
	if c.delayed != "" {
		run(c.pushDelayed)
	}
	group.Wait()
	c.killed.Do(c.die) // if every connection ran out of work first
}

// heard is called with each answer to a write. The n-th kills the server.
func (c *crash) heard() {
	if c.answers.Add(1) >= c.killAt {
		c.killed.Do(c.die)
	}
	if c.pace != nil {
		c.pace()
	}
}

// restart starts the server again; now and then it is killed once more while it recovers, and now and then it gets a
// graceful stop between, after which nothing may be different either.
func (c *crash) restart(random *rand.Rand) {
	if random.IntN(8) == 0 {
		if _, err := c.s.launch(); err != nil {
			c.t.Fatal(err)
		}
		eventually(c.t, startTimeout, "the server listens", func() bool {
			conn, err := net.Dial("tcp", c.s.addr)
			if err == nil {
				conn.Close()
			}
			return err == nil
		})
		c.s.kill() // it listens before it recovers
	}
	c.s.start()
	if random.IntN(16) == 0 {
		if code := c.s.stop(syscall.SIGTERM); code != 0 {
			c.t.Fatalf("exit code %d after SIGTERM", code)
		}
		c.s.start()
	}
}

// unexpected reports an error reply that nothing explains. Lost connections are the purpose of the test.
func (c *crash) unexpected(what string, err error) {
	if refused(err) {
		c.t.Errorf("life %d: %s: %v", c.life, what, err)
	}
}

// newBodies makes bodies that no one ever made before, of many sizes; the first life has an empty one too.
func (c *crash) newBodies(random *rand.Rand, who string, seq int) []string {
	bodies := make([]string, 1+random.IntN(3))
	for i := range bodies {
		size := random.IntN(crashBodyBytes)
		if random.IntN(40) == 0 {
			size = crashBigBytes
		}
		name := fmt.Sprintf("%d/%s/%d/%d\r\n\x00", c.life, who, seq, i)
		bodies[i] = name + strings.Repeat(string(rune('a'+seq%26)), size)
	}
	return bodies
}

func (c *crash) push(conn redis.Conn, random *rand.Rand, worker int) {
	queue := c.work[worker%len(c.work)]
	last := int64(0)
	for seq := 0; seq < crashOpsMax; {
		depth := 1
		if random.IntN(4) == 0 {
			depth = 1 + random.IntN(12)
		}
		var units []*unit
		for range depth {
			seq++
			u := c.model.pushAsked(queue, c.newBodies(random, fmt.Sprint("p", worker), seq))
			units = append(units, u)
			if err := conn.Send("QPUSH", words(queue, u.bodies)...); err != nil {
				return
			}
		}
		if conn.Flush() != nil {
			return
		}
		for _, u := range units {
			id, err := redis.Int64(conn.Receive())
			if err != nil {
				c.unexpected(u.name, err)
				return
			}
			c.model.pushAnswered(u, id)
			if id <= last {
				c.t.Errorf("life %d: a push to %s got id %d, the one before it on this connection %d", c.life, queue, id, last)
			}
			last = id
			c.heard()
		}
	}
}

// pushDelayed pushes what becomes ready only later, mostly after the crash.
func (c *crash) pushDelayed(conn redis.Conn, random *rand.Rand) {
	for seq := range crashOpsMax {
		u := c.model.pushAsked(c.delayed, c.newBodies(random, "d", seq))
		args := append([]any{c.delayed, len(u.bodies)}, words("", u.bodies)[1:]...)
		id, err := redis.Int64(conn.Do("QPUSHEX", append(args, "DELAY", 1+random.IntN(600))...))
		if err != nil {
			c.unexpected(u.name, err)
			return
		}
		c.model.pushAnswered(u, id)
		c.heard()
	}
}

func words(first string, rest []string) []any {
	list := []any{first}
	for _, word := range rest {
		list = append(list, word)
	}
	return list
}

// consume pulls and resolves batches in every way there is, and passes the lock on now and then.
func (c *crash) consume(conn redis.Conn, random *rand.Rand, queue, consumer string) {
	for range crashOpsMax {
		b, err := consume(conn, queue, consumer, "COUNT", 1+random.IntN(15), "BLOCK", 100)
		if err != nil {
			if refused(err) {
				c.unexpected("QCONSUME "+queue, err)
			}
			return
		}
		if b == nil {
			continue
		}
		c.model.pulled(queue, b)
		if c.resolve(conn, random, queue, b) != nil {
			return
		}
		if random.IntN(12) == 0 && c.passOn(conn, queue, consumer) != nil {
			return
		}
	}
}

func (c *crash) resolve(conn redis.Conn, random *rand.Rand, queue string, b *batch) error {
	switch random.IntN(10) {
	case 0: // forgotten: it stays leased until the audit
		c.model.remember(queue, b.id, false)
		return nil
	case 1: // a part of it is acknowledged, the rest stays leased
		return c.ack(conn, queue, b, b.messages[:1+random.IntN(len(b.messages))])
	case 2:
		return c.nack(conn, queue, b, "RELEASE")
	case 3:
		return c.nack(conn, queue, b)
	case 4:
		if _, err := redis.Int64(conn.Do("QEXTEND", queue, b.id, 60_000)); err != nil {
			c.unexpected("QEXTEND", err)
			return err
		}
		c.heard()
	}
	return c.ack(conn, queue, b, b.messages)
}

func bodiesOf(messages []message) (bodies []string) {
	for _, m := range messages {
		bodies = append(bodies, m.body)
	}
	return bodies
}

func (c *crash) ack(conn redis.Conn, queue string, b *batch, messages []message) error {
	whole := len(messages) == len(b.messages)
	args := []any{queue, b.id}
	if !whole {
		for _, m := range messages {
			args = append(args, m.id)
		}
	}
	u := c.model.removalAsked(fmt.Sprintf("ack of batch %d of %s", b.id, queue), bodiesOf(messages))
	n, err := redis.Int64(conn.Do("QACK", args...))
	if err != nil {
		c.unexpected(u.name, err)
		return err
	}
	if n != int64(len(messages)) {
		c.t.Errorf("life %d: %s answered %d for %d messages", c.life, u.name, n, len(messages))
	}
	c.model.removalAnswered(u)
	if whole {
		c.model.remember(queue, b.id, true)
	}
	c.heard()
	return nil
}

func (c *crash) nack(conn redis.Conn, queue string, b *batch, option ...any) error {
	bodies := bodiesOf(b.messages)
	if len(option) == 0 {
		c.model.nack(bodies, false)
	}
	n, err := redis.Int64(conn.Do("QNACK", append([]any{queue, b.id}, option...)...))
	if err != nil {
		c.unexpected("QNACK "+queue, err)
		return err
	}
	if n != int64(len(bodies)) {
		c.t.Errorf("life %d: QNACK %s %d answered %d for %d messages", c.life, queue, b.id, n, len(bodies))
	}
	if len(option) == 0 {
		c.model.nack(bodies, true)
	}
	c.model.remember(queue, b.id, true)
	c.heard()
	return nil
}

// passOn asks for the token of the consumer's own lock and gives the lock up.
func (c *crash) passOn(conn redis.Conn, queue, consumer string) error {
	token, err := redis.Int64(conn.Do("QLOCK", queue, consumer))
	if err != nil {
		if refused(err) {
			c.unexpected("QLOCK "+queue, err)
		}
		return err
	}
	c.model.granted(queue, consumer, token)
	c.heard()
	n, err := redis.Int64(conn.Do("QUNLOCK", queue, token))
	if err != nil {
		c.unexpected("QUNLOCK "+queue, err)
		return err
	}
	if n != 1 {
		c.t.Errorf("life %d: QUNLOCK %s %d answered %d to its holder", c.life, queue, token, n)
	}
	c.model.released(token)
	c.heard()
	return nil
}

// lockLine is what one connection, alone on its queue, knows of the queue's lock.
type lockLine struct {
	holder string
	token  int64
	stale  []int64
	asked  string // what was asked and not answered: "", "unlock" or the name of the next holder
}

const locksQueue = "locks"

// lock takes and gives back one lock, of a queue of its own: its state after a crash is known but for the last command.
func (c *crash) lock(conn redis.Conn, random *rand.Rand) {
	l := c.locks
	for range crashOpsMax {
		var err error
		switch random.IntN(4) {
		case 0:
			err = c.lockStale(conn, random)
		case 1:
			err = c.lockRelease(conn)
		default:
			err = c.lockTake(conn, []string{"ann", "bob", "cy"}[random.IntN(3)])
		}
		if err != nil {
			c.unexpected("on the queue of locks", err)
			return
		}
		l.asked = ""
	}
}

func (c *crash) lockTake(conn redis.Conn, name string) error {
	l := c.locks
	l.asked = name
	token, err := redis.Int64(conn.Do("QLOCK", locksQueue, name, "TTL", 600_000))
	if l.holder != "" && l.holder != name {
		if err == nil || !strings.HasPrefix(err.Error(), "LOCKED ") {
			if err == nil || refused(err) {
				c.t.Errorf("life %d: QLOCK for %s while %s holds it: %d, %v", c.life, name, l.holder, token, err)
			}
			return err
		}
		return nil
	}
	if err != nil {
		return err
	}
	if l.holder == name && token != l.token {
		c.t.Errorf("life %d: the holder renewed token %d and got %d", c.life, l.token, token)
	}
	c.model.granted(locksQueue, name, token)
	l.holder, l.token = name, token
	c.heard()
	return nil
}

func (c *crash) lockRelease(conn redis.Conn) error {
	l := c.locks
	if l.holder == "" {
		return nil
	}
	l.asked = "unlock"
	n, err := redis.Int64(conn.Do("QUNLOCK", locksQueue, l.token))
	if err != nil {
		return err
	}
	if n != 1 {
		c.t.Errorf("life %d: QUNLOCK answered %d to its holder", c.life, n)
	}
	c.model.released(l.token)
	l.stale = append(l.stale, l.token)
	l.holder, l.token = "", 0
	c.heard()
	return nil
}

func (c *crash) lockStale(conn redis.Conn, random *rand.Rand) error {
	l := c.locks
	if len(l.stale) == 0 {
		return nil
	}
	old := l.stale[random.IntN(len(l.stale))]
	n, err := redis.Int64(conn.Do("QUNLOCK", locksQueue, old))
	if err == nil && n != 0 {
		c.t.Errorf("life %d: QUNLOCK with the old token %d answered %d", c.life, old, n)
	}
	return err
}

// churn is a queue that is deleted and made again all the time.
type churn struct {
	exists, unsure bool
	batchCount     int
	lastBatch      int64 // of the life before, if there is one
	made           int
}

const churnName = "churn"

func (c *crash) churnQueue(conn redis.Conn, random *rand.Rand) {
	for seq := range crashOpsMax {
		var err error
		switch random.IntN(6) {
		case 0:
			err = c.churnDelete(conn)
		case 1:
			err = c.churnCreate(conn)
		case 2:
			err = c.churnConsume(conn)
		default:
			err = c.churnPush(conn, random, seq)
		}
		if err != nil {
			c.unexpected("on the queue that comes and goes", err)
			return
		}
	}
}

func (c *crash) churnPush(conn redis.Conn, random *rand.Rand, seq int) error {
	u := c.model.pushAsked(churnName, c.newBodies(random, "c", seq))
	if !c.churn.exists {
		c.churn.unsure, c.churn.batchCount = true, 0
	}
	id, err := redis.Int64(conn.Do("QPUSH", words(churnName, u.bodies)...))
	if err != nil {
		return err
	}
	c.churn.exists, c.churn.unsure = true, false
	c.model.pushAnswered(u, id)
	c.heard()
	return nil
}

func (c *crash) churnDelete(conn redis.Conn) error {
	u := c.model.removalAsked("deletion of "+churnName, c.model.alive(churnName))
	c.churn.unsure = true
	c.model.forgetQueue(churnName)
	n, err := redis.Int64(conn.Do("QDEL", churnName))
	if err != nil {
		return err
	}
	if (n == 1) != c.churn.exists {
		c.t.Errorf("life %d: QDEL answered %d, the queue exists: %v", c.life, n, c.churn.exists)
	}
	c.churn.exists, c.churn.unsure = false, false
	c.model.removalAnswered(u)
	c.heard()
	return nil
}

// churnCreate makes the queue anew with an option that no life before had, and shows an old batch to it.
func (c *crash) churnCreate(conn redis.Conn) error {
	if c.churn.exists {
		return nil
	}
	c.churn.unsure = true
	c.churn.made++
	count := 2 + c.churn.made%50
	if _, err := conn.Do("QCREATE", churnName, "batch-count", count); err != nil {
		return err
	}
	c.churn.exists, c.churn.unsure, c.churn.batchCount = true, false, count
	c.heard()
	if c.churn.lastBatch == 0 {
		return nil
	}
	n, err := redis.Int64(conn.Do("QACK", churnName, c.churn.lastBatch))
	if err == nil {
		c.t.Errorf("life %d: the new queue took an ack of batch %d of its predecessor and answered %d", c.life, c.churn.lastBatch, n)
	} else if strings.HasPrefix(err.Error(), "NOBATCH ") {
		err = nil
	}
	c.churn.lastBatch = 0
	return err
}

func (c *crash) churnConsume(conn redis.Conn) error {
	if !c.churn.exists {
		return nil
	}
	b, err := consume(conn, churnName, "eater")
	if err != nil || b == nil {
		return err
	}
	c.model.pulled(churnName, b)
	if c.churn.batchCount > 0 && len(b.messages) > c.churn.batchCount {
		c.t.Errorf("life %d: %d messages in a batch, batch-count is %d", c.life, len(b.messages), c.churn.batchCount)
	}
	c.churn.lastBatch = b.id
	return c.ack(conn, churnName, b, b.messages)
}

// audit compares all that the server holds with the model.
func (c *crash) audit() {
	conn := c.s.connect(c.t)
	defer conn.Close()
	c.auditLock(conn)
	for _, queue := range append([]string{churnName}, c.work...) {
		c.auditQueue(conn, queue)
	}
	if c.delayed != "" {
		c.auditQueue(conn, c.delayed)
	}
	c.auditOldBatches(conn)
}

func (c *crash) auditLock(conn redis.Conn) {
	l := c.locks
	fields, err := info(conn, locksQueue)
	if err != nil {
		if l.holder != "" || len(l.stale) > 0 {
			c.t.Errorf("life %d: QINFO %s: %v", c.life, locksQueue, err)
		}
		l.asked = ""
		return
	}
	holder, token := fields["lock-holder"], int64(0)
	fmt.Sscan(fields["lock-token"], &token)
	switch {
	case holder == l.holder && token == l.token:
	case l.asked == "unlock" && holder == "":
		l.stale = append(l.stale, l.token)
		c.model.released(l.token)
	case l.holder == "" && l.asked != "" && holder == l.asked:
		c.model.adopt(locksQueue, holder, token)
	default:
		c.t.Errorf("life %d: %q holds the lock with token %d; it was %q with %d, and %q was asked last", c.life, holder, token, l.holder, l.token, l.asked)
	}
	l.holder, l.token, l.asked = holder, token, ""
}

// auditQueue takes out everything that a queue holds, compares, and puts it back.
func (c *crash) auditQueue(conn redis.Conn, queue string) {
	fields, err := info(conn, queue)
	if err != nil {
		c.auditAbsent(queue, err)
		return
	}
	if queue == churnName {
		c.auditOptions(conn)
	}
	if token := fields["lock-token"]; token != "0" {
		must(c.t, conn, "QUNLOCK", queue, token)
	}
	length, err := redis.Int64(conn.Do("QLEN", queue))
	if err != nil {
		c.t.Fatal(err)
	}
	token, err := redis.Int64(conn.Do("QLOCK", queue, "auditor"))
	if err != nil {
		c.t.Fatalf("life %d: the auditor's lock on %s: %v", c.life, queue, err)
	}
	c.model.granted(queue, "auditor", token)
	var found []message
	var batches []*batch
	for int64(len(found)) <= length { // one pull more than there should be
		pull := []any{queue, "auditor", "COUNT", 1_000, "BYTES", 4 << 20, "TOKEN", token}
		if queue == c.delayed && int64(len(found)) < length {
			pull = append(pull, "BLOCK", 3_000)
		}
		b, err := consume(conn, pull...)
		if err != nil {
			c.t.Fatalf("life %d: the auditor's pull from %s: %v", c.life, queue, err)
		}
		if b == nil {
			break
		}
		c.model.pulled(queue, b)
		if n := len(found); n > 0 && queue != c.delayed && b.messages[0].id < found[n-1].id {
			c.t.Errorf("life %d: message %d of %s came after %d: out of order", c.life, b.messages[0].id, queue, found[n-1].id)
		}
		found = append(found, b.messages...)
		batches = append(batches, b)
	}
	if int64(len(found)) != length {
		c.t.Errorf("life %d: QLEN %s was %d, and %d messages came out", c.life, queue, length, len(found))
	}
	c.model.compare(queue, found)
	for _, b := range batches {
		if length <= crashBacklogMax {
			break
		}
		if err := c.ack(conn, queue, b, b.messages); err != nil {
			c.t.Fatalf("life %d: the auditor's ack: %v", c.life, err)
		}
	}
	must(c.t, conn, "QUNLOCK", queue, token)
	c.model.released(token)
}

// auditAbsent is auditQueue of a queue that is not there.
func (c *crash) auditAbsent(queue string, err error) {
	if !strings.HasPrefix(err.Error(), "NOQUEUE ") {
		c.t.Fatalf("life %d: QINFO %s: %v", c.life, queue, err)
	}
	if queue == churnName && c.churn.exists && !c.churn.unsure {
		c.t.Errorf("life %d: queue %s is gone, and no deletion was asked for", c.life, queue)
	}
	c.model.compare(queue, nil)
	if queue == churnName {
		c.churn.exists, c.churn.unsure = false, false
	}
}

// auditOptions checks that the queue that comes and goes has the options that it was made with last.
func (c *crash) auditOptions(conn redis.Conn) {
	switch {
	case c.churn.unsure:
		c.churn.batchCount = 0 // made or deleted, or neither: any of both is right
	case !c.churn.exists:
		c.t.Errorf("life %d: queue %s is there again after its deletion was answered", c.life, churnName)
	case c.churn.batchCount > 0:
		must(c.t, conn, "QCREATE", churnName, "batch-count", c.churn.batchCount)
		mustRefuse(c.t, conn, "EXISTS", "QCREATE", churnName, "batch-count", c.churn.batchCount+1)
	}
	c.churn.exists, c.churn.unsure = true, false
}

// auditOldBatches shows batches of former lives to the queues, whose tenures the audit has ended.
func (c *crash) auditOldBatches(conn redis.Conn) {
	for _, old := range c.model.oldBatches() {
		n, err := redis.Int64(conn.Do("QACK", old.queue, old.id))
		var refusal redis.Error
		lost := errors.As(err, &refusal) && strings.HasPrefix(string(refusal), "NOBATCH ")
		switch {
		case old.resolved && err == nil && n == 0:
		case !old.resolved && lost:
		default:
			c.t.Errorf("life %d: QACK of old batch %d of %s (resolved: %v) answered %d, %v", c.life, old.id, old.queue, old.resolved, n, err)
		}
	}
}
