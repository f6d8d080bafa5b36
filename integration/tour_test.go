//go:build linux

package integration

// A tour is a small workload that passes through all that changes the disk: segments that become full, checkpoints, journal files that
// turn over, fronts that are cut, a log that is rewritten and one that is drained, a queue that is deleted and made again, an ordered stop and
// starts behind it and behind a kill. Each step bears that the disk refuses something, and each is noted with the number of calls
// that had changed the disk by then, so that one tour can be judged at any moment of it.

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gomodule/redigo/redis"
)

const (
	tourBodyBytes = 30_000 // two of them fill a segment
	tourHealTime  = 20 * time.Second
	tourBystander = "aside" // made first
	// tourBystanderLog is where its log is.
	tourBystanderLog = "queues/0000000000000001"
)

var (
	tourQueues = []string{"keep", "work", "gone", tourBystander}
	// tourArgs have the smallest files that settings allow. No lease ends within a tour.
	tourArgs = []string{"--default-max-attempts", "0", "--journal-file-bytes", "1mb", "--journal-bytes", "4mb", "--checkpoint-bytes", "1mb",
		"--segment-bytes", "64kb", "--write-behind-bytes", "1mb", "--log-level", "debug", "--default-lease", "600000", "--default-lock-ttl", "600000"}
)

// told is what a client did or heard, and after how many calls.
type told struct {
	after  int
	what   string
	unit   int // which push or removal
	queue  string
	bodies []string
	id     int64
	batch  *batch
}

// apply tells a model. units are those of earlier asks.
func (e *told) apply(m *model, units map[int]*unit) {
	switch e.what {
	case "push asked":
		units[e.unit] = m.pushAsked(e.queue, e.bodies)
	case "push answered":
		m.pushAnswered(units[e.unit], e.id)
	case "push refused":
		m.pushRefused(units[e.unit])
	case "pulled":
		m.pulled(e.queue, e.batch)
		m.cameBack(e.batch)
	case "removal asked":
		units[e.unit] = m.removalAsked(fmt.Sprintf("removal %d of %s", e.unit, e.queue), e.bodies)
	case "removal answered":
		m.removalAnswered(units[e.unit])
	case "removal refused":
		m.removalRefused(units[e.unit])
	case "queue forgotten":
		m.forgetQueue(e.queue)
	}
}

// pushRefused: an answer said that nothing was changed, so they must not be there.
func (m *model) pushRefused(u *unit) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, text := range u.bodies {
		delete(m.bodies, text)
	}
}

// cameBack: a message that is pulled again was not removed, and so nothing was that went with it.
func (m *model) cameBack(b *batch) {
	for _, msg := range b.messages {
		m.mu.Lock()
		known := m.bodies[msg.body]
		m.mu.Unlock()
		if known != nil && known.removed != nil {
			m.removalRefused(known.removed)
		}
	}
}

// A tour is one client on one server.
type tour struct {
	t      testing.TB
	c      *crash
	conn   redis.Conn
	events []told
	units  map[int]*unit
	seq    int
	dead   bool // the server does not answer any more

	calls     func() int    // how many calls have changed the disk; nil if nobody asks
	rewritten func() bool   // a log was rewritten; nil if nobody waits for it
	trouble   func() string // where the one fault was, "" before it
	refusals  int           // answers that said WALERR
	stopped   time.Duration // the longest time that a queue refused
}

func newTour(t *testing.T, s *server) *tour {
	return &tour{t: t, c: newCrash(t, s, tourQueues), units: make(map[int]*unit)}
}

// note is told.apply, noted.
func (tr *tour) note(e told) {
	if tr.calls != nil {
		e.after = tr.calls()
	}
	tr.events = append(tr.events, e)
	e.apply(tr.c.model, tr.units)
}

// at is the model of what was told until n calls had been made.
func (tr *tour) at(n int) *model {
	m, units := newModel(), make(map[int]*unit)
	for i := range tr.events {
		e := &tr.events[i]
		if e.after > n {
			break
		}
		e.apply(m, units)
	}
	return m
}

// connect begins a life.
func (tr *tour) connect() {
	conn, err := tr.c.s.dial()
	if err != nil {
		tr.dead = true
		return
	}
	tr.conn, tr.dead = conn, false
}

// run goes through all of it, or until the server is dead.
func (tr *tour) run() {
	tr.connect()
	if tr.dead {
		return
	}
	defer tr.conn.Close()
	for range 2 {
		tr.push(tourBystander, 100, 100)
	}
	for range 12 { // each leaves one small old message among large dead ones
		tr.push("keep", 100)
		tr.push("keep", tourBodyBytes, tourBodyBytes)
		tr.take("keep", 1, false)
		tr.take("keep", 2, true)
	}
	for range 6 {
		tr.push("work", tourBodyBytes)
	}
	tr.push("gone", tourBodyBytes, tourBodyBytes, tourBodyBytes)
	tr.take("work", 3, true)
	for range 8 {
		tr.push("work", 100, tourBodyBytes)
	}
	tr.delete("gone")
	tr.push("gone", 100, tourBodyBytes)
	tr.take("work", 16, true)
	for range 14 { // its front goes with the next checkpoint
		tr.push("work", tourBodyBytes)
	}
	tr.take("work", 100, true) // drained
	for range 16 {
		tr.push(tourBystander, tourBodyBytes, tourBodyBytes)
		tr.take(tourBystander, 2, true)
	}
	if tr.rewritten != nil && !tr.dead && tr.refusals == 0 {
		holdsWithin(3*time.Second, tr.rewritten)
	}
	for _, queue := range tourQueues {
		tr.push(queue, 100)
		tr.take(queue, 1, true)
	}
}

// refused judges an error, and waits until the queue works again if it says that the disk had refused something.
func (tr *tour) refused(queue, what string, err error) {
	if !refused(err) {
		tr.dead = true
		return
	}
	if !strings.HasPrefix(err.Error(), "WALERR ") {
		tr.t.Errorf("%s on %s: %v", what, queue, err)
		return
	}
	tr.refusals++
	where := tr.trouble()
	if where == "" {
		tr.t.Errorf("%s on %s, and no call had failed: %v", what, queue, err)
	}
	// Of a call for the folder of all logs nobody knows for which it was made: maybe for the bystander's.
	if strings.HasPrefix(where, "queues/") && !strings.HasPrefix(where, tourBystanderLog) {
		tr.bystander(where)
	}
	began := time.Now()
	if !holdsWithin(tourHealTime, func() bool { return tr.dead || tr.tryPush(queue, 100) == nil }) {
		tr.t.Errorf("%s takes no push %v after %s failed", queue, tourHealTime, where)
		tr.dead = true
	}
	tr.stopped = max(tr.stopped, time.Since(began))
}

// bystander sees that a queue whose own log is in order works on, but for pushes to a full disk.
func (tr *tour) bystander(where string) {
	if err := tr.tryPush(tourBystander, 100); err != nil && refused(err) && !strings.Contains(err.Error(), "full") {
		tr.t.Errorf("%s failed, and the queue beside it says: %v", where, err)
	}
	if err := tr.tryTake(tourBystander, 1, true); err != nil && refused(err) {
		tr.t.Errorf("%s failed, and the queue beside it says: %v", where, err)
	}
}

func (tr *tour) push(queue string, sizes ...int) {
	if tr.dead {
		return
	}
	if err := tr.tryPush(queue, sizes...); err != nil {
		tr.refused(queue, "push", err)
	}
}

func (tr *tour) tryPush(queue string, sizes ...int) error {
	tr.seq++
	unit := tr.seq
	var bodies []string
	for i, size := range sizes {
		bodies = append(bodies, fmt.Sprintf("%s/%d/%d ", queue, unit, i)+strings.Repeat(string(rune('a'+unit%26)), size))
	}
	tr.note(told{what: "push asked", unit: unit, queue: queue, bodies: bodies})
	id, err := redis.Int64(tr.conn.Do("QPUSH", words(queue, bodies)...))
	switch {
	case err == nil:
		tr.note(told{what: "push answered", unit: unit, id: id})
	case !refused(err):
		tr.dead = true
	case strings.Contains(err.Error(), "nothing was changed"):
		tr.note(told{what: "push refused", unit: unit})
	}
	return err
}

// take pulls, and acknowledges what it got or leaves it leased.
func (tr *tour) take(queue string, count int, ack bool) {
	if tr.dead {
		return
	}
	if err := tr.tryTake(queue, count, ack); err != nil {
		tr.refused(queue, "pull or acknowledgement", err)
	}
}

func (tr *tour) tryTake(queue string, count int, ack bool) error {
	b, err := consume(tr.conn, queue, "worker", "COUNT", count, "BYTES", 8<<20)
	if err != nil || b == nil {
		return err
	}
	tr.note(told{what: "pulled", queue: queue, batch: b})
	if !ack {
		return nil
	}
	tr.seq++
	unit := tr.seq
	tr.note(told{what: "removal asked", unit: unit, queue: queue, bodies: bodiesOf(b.messages)})
	n, err := redis.Int64(tr.conn.Do("QACK", queue, b.id))
	switch {
	case err == nil:
		if n != int64(len(b.messages)) {
			tr.t.Errorf("QACK %s %d answered %d for %d messages", queue, b.id, n, len(b.messages))
		}
		tr.note(told{what: "removal answered", unit: unit})
	case refused(err) && strings.HasPrefix(err.Error(), "NOBATCH ") && tr.trouble() != "": // its lease was not durable, which it need not be
		tr.note(told{what: "removal refused", unit: unit})
		return nil
	}
	return err
}

func (tr *tour) delete(queue string) {
	if tr.dead {
		return
	}
	tr.seq++
	unit := tr.seq
	tr.note(told{what: "removal asked", unit: unit, queue: queue, bodies: tr.c.model.alive(queue)})
	tr.note(told{what: "queue forgotten", queue: queue})
	_, err := redis.Int64(tr.conn.Do("QDEL", queue))
	if err == nil {
		tr.note(told{what: "removal answered", unit: unit})
		return
	}
	tr.refused(queue, "deletion", err)
}

// audit compares all queues with the model, and leaves them as they were. It begins anew when the one failure is met by itself.
func (tr *tour) audit() error {
	err := auditTour(tr.c, func() bool { return tr.trouble() != "" })
	for _, complaint := range tr.c.model.complaints {
		tr.t.Error(complaint)
	}
	tr.c.model.complaints = nil
	return err
}

func (tr *tour) mustAudit() {
	if err := tr.audit(); err != nil {
		tr.t.Fatal(err)
	}
}

// auditTour is audit, which leaves its complaints with the model; mayFail says whether a refusal may be explained. The error is that of a
// server that cannot be asked.
func auditTour(c *crash, mayFail func() bool) error {
	conn, err := c.s.dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	for _, queue := range tourQueues {
		var found []message
		var err error
		holdsWithin(tourHealTime, func() bool {
			found, err = takeStock(c, conn, queue)
			return err == nil || !mayFail() || !refused(err) || !strings.HasPrefix(err.Error(), "WALERR ")
		})
		if err != nil {
			return fmt.Errorf("audit of %s: %w", queue, err)
		}
		c.model.compare(queue, found)
	}
	return nil
}

// takeStock pulls all that a queue holds and gives it back. A queue that is not there holds nothing.
func takeStock(c *crash, conn redis.Conn, queue string) (found []message, err error) {
	fields, err := info(conn, queue)
	if err != nil && strings.HasPrefix(err.Error(), "NOQUEUE ") {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if token := fields["lock-token"]; token != "0" { // what was leased comes back at once
		if _, err := conn.Do("QUNLOCK", queue, token); err != nil {
			return nil, err
		}
	}
	length, err := redis.Int64(conn.Do("QLEN", queue))
	if err != nil {
		return nil, err
	}
	token, err := redis.Int64(conn.Do("QLOCK", queue, "auditor"))
	if err != nil {
		return nil, err
	}
	for int64(len(found)) <= length { // one pull more than there should be
		b, err := consume(conn, queue, "auditor", "COUNT", 1_000, "BYTES", 4<<20, "TOKEN", token)
		if err != nil {
			return nil, err
		}
		if b == nil {
			break
		}
		c.model.pulled(queue, b)
		if n := len(found); n > 0 && b.messages[0].id < found[n-1].id {
			c.model.complain("message %d of %s came after %d: out of order", b.messages[0].id, queue, found[n-1].id)
		}
		found = append(found, b.messages...)
	}
	if int64(len(found)) != length {
		c.model.complain("QLEN %s was %d, and %d messages came out", queue, length, len(found))
	}
	_, err = conn.Do("QUNLOCK", queue, token)
	return found, err
}

// settle is between two lives: what the model found becomes what must be there.
func (tr *tour) settle() {
	tr.c.model.nextLife()
	tr.c.life++
}

// The classes of calls, for the figures and for choosing.

func class(c call) string {
	name := c.name
	switch {
	case name == "openat" && c.writes:
		name = "create"
	case name == "openat":
		name = "open"
	case c.isDir:
		name = "directory fsync"
	}
	return name + " in " + place(c.path)
}

func place(path string) string {
	dir, _, _ := strings.Cut(path, "/")
	if slices.Contains([]string{"journal", "queues", "checkpoints", "damaged"}, dir) {
		return dir
	}
	return "top"
}
