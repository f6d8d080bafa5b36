package queue

// Random work with dead letters, redrives, delays, TTL, deduplication and removals on three queues, while the power goes at any
// file operation. The test keeps the truth about every body: whether it must be there, may be, or must not; and how often it
// may have failed. After each power cut it looks into all queues: nothing is lost, nothing is there twice, nothing comes back.

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"quail/queue/machine"
	"quail/wal/vfs"
)

// presence is what the test knows of a body.
type presence int

const (
	pushed  presence = iota // without a promise yet
	here                    // promised
	leaving                 // taken away, without a promise yet
	gone                    // promised, or seen to be absent after a power cut: it must never come again
)

// truth is what the test knows of one body.
type truth struct {
	presence
	overMillis int64 // wall: its TTL; 0: none
	failed     map[string]*attempts
}

// attempts bounds how many of a body's attempts in one queue have failed: as things stand, and if the power went now.
type attempts struct{ least, most, low, high uint32 }

func (a *attempts) set(least, most uint32) {
	a.least, a.most = least, most
	a.low, a.high = min(a.low, least), max(a.high, most)
}

// held is a batch as its consumer knows it.
type held struct {
	queue    string
	batch    *Batch
	left     map[uint64]string // bodies by id
	released bool              // by the end of its tenure, or its lease may be lost in a power cut
}

type remembering struct {
	id       uint64
	until    int64
	promised bool
}

// mover is a random run.
type mover struct {
	*world
	rng     *rand.Rand
	disk    *vfs.Failing
	shadows *chaos // compares states bit by bit
	truths  map[string]*truth
	held    []*held
	ids     map[uint64]bool // of messages by queue life, of batches and tokens: never twice
	dedup   map[string]*remembering
	next    int
	off     bool // the power is
}

const (
	movesAttemptsMax = 2
	movesWindow      = 5000
)

var (
	movesQueues = []string{"a", "b", "c"}
	movesDead   = []string{"a.dead", "graves"}
)

// Without this a crash between two queues loses a message or makes two of it, a restart forgets how often it failed, or an old
// consumer acknowledges what it was never given.
func TestNothingIsLostOrDoubledOverPowerCuts(t *testing.T) {
	for seed := range *seeds {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { runMoves(t, uint64(seed)) })
		})
	}
}

func runMoves(t *testing.T, seed uint64) {
	w := &world{t: t, fs: vfs.NewLossy(seed), opts: machine.DefaultOptions()}
	m := &mover{world: w, rng: rand.New(rand.NewPCG(seed, 11)), truths: map[string]*truth{}, ids: map[uint64]bool{}, dedup: map[string]*remembering{}}
	m.shadows = &chaos{world: w, shadows: map[uint64]*shadow{}}
	m.start(0)
	defer m.end()
	m.createQueues()
	for range 6 {
		m.disk.HaltAt(m.disk.Count() + 30 + m.rng.IntN(500))
		for range 150 {
			if m.step(); m.off {
				break
			}
			if m.rng.IntN(10) == 0 {
				m.audit(false)
			}
			m.observe()
		}
		m.cut()
	}
	m.audit(false)
}

// start opens the set over a disk that can be halted; haltAt 0 is not.
func (m *mover) start(haltAt int) {
	m.disk, m.off = vfs.NewFailing(m.fs), false
	m.disk.HaltAt(haltAt)
	set, _, err := Open(m.config(m.disk))
	if err != nil {
		if haltAt == 0 {
			m.t.Fatalf("open: %v", err)
		}
		m.fs = m.fs.Crash() // the power went while it opened
		m.start(0)
		return
	}
	m.set = set
}

func (m *mover) createQueues() {
	for _, name := range movesQueues {
		dead := "graves"
		if name == "a" {
			dead = ""
		}
		m.create(name, "max-attempts", fmt.Sprint(movesAttemptsMax), "dead-letter-queue", dead, "dedup-window", fmt.Sprint(movesWindow), "lease", "2000", "lock-ttl", "4000")
	}
	synctest.Wait()
}

// cut switches the power off, and on again.
func (m *mover) cut() {
	m.t.Logf("power cut at %d, off %v", m.now(), m.off)
	m.lose()
	haltAt := 0
	if m.rng.IntN(4) == 0 {
		haltAt = 1 + m.rng.IntN(200)
	}
	m.start(haltAt)
	synctest.Wait()
	if m.set.usable() != nil { // halted just after it opened
		m.lose()
		m.start(0)
	}
	m.disk.HaltAt(0)
	for _, d := range m.dedup {
		if !d.promised {
			d.id = 0 // nobody knows
		}
	}
	m.held = slices.DeleteFunc(m.held, func(h *held) bool { return len(h.left) < len(h.batch.Messages) }) // what has survived of that?
	for _, h := range m.held {
		h.released = true
	}
	m.shadows.set = m.set
	m.shadows.compare()
	m.audit(true)
}

// failed reports whether the power is off, and ends the test after any other error but the codes in allowed.
func (m *mover) failed(what string, err error, allowed ...string) bool {
	if err == nil {
		return false
	}
	if m.set.usable() != nil || codeOf(err) == "WALERR" {
		m.off = true
	} else if !slices.Contains(allowed, codeOf(err)) {
		m.t.Fatalf("%s: %v", what, err)
	}
	return true
}

// promise waits for a reply, sometimes. If the call changed something, all that was done up to here is durable then.
func (m *mover) promise(what string, changed bool, f *Future) {
	if m.rng.IntN(3) > 0 && !m.failed(what, wrap(f.Wait())) && changed {
		m.promised()
	}
}

func wrap(err error) error {
	if err == nil {
		return nil
	}
	return walError(err)
}

func (m *mover) promised() {
	for _, b := range m.truths {
		switch b.presence {
		case pushed:
			b.presence = here
		case leaving:
			b.presence = gone
		}
		for _, a := range b.failed {
			a.low, a.high = a.least, a.most
		}
	}
	for _, d := range m.dedup {
		d.promised = true
	}
	m.shadows.set = m.set
	m.shadows.promise()
}

func (m *mover) observe() {
	if m.off || m.set.usable() != nil {
		return
	}
	m.shadows.set = m.set
	m.shadows.observe()
}

func (m *mover) step() {
	switch p := m.rng.IntN(100); {
	case p < 25:
		m.pushOne()
	case p < 55:
		m.pullOne()
	case p < 78 && len(m.held) > 0:
		m.settleOne()
	case p < 82:
		m.unlock()
	case p < 90:
		time.Sleep(time.Duration(1+m.rng.IntN(6)) * 500 * time.Millisecond)
	case p < 92:
		if err := m.set.Checkpoint(); err != nil {
			m.failed("checkpoint", walError(err))
		}
	case p < 97:
		m.redrive()
	case p < 99:
		m.removeOne()
	default:
		m.purge()
	}
}

func (m *mover) pick() string { return movesQueues[m.rng.IntN(len(movesQueues))] }

func (m *mover) now() int64 { return time.Now().UnixMilli() }

func (m *mover) pushOne() {
	m.next++
	name, body := m.pick(), fmt.Sprintf("%d", m.next)
	if m.rng.IntN(3) == 0 {
		body += fmt.Sprintf(" %0*d", m.rng.IntN(3000), 0)
	}
	b := &truth{failed: map[string]*attempts{}}
	var o PushOptions
	switch m.rng.IntN(6) {
	case 0:
		o.HasDelay, o.DelayMillis = true, int64(m.rng.IntN(4))*500
	case 1:
		o.HasTTL, o.TTLMillis = true, int64(1+m.rng.IntN(6))*500
		b.overMillis = m.now() + o.TTLMillis
	case 2:
		o.Dedup = []byte(strconv.Itoa(m.rng.IntN(3)))
	}
	before := m.lastID(name)
	m.t.Logf("push %s %.20q %+v", name, body, o)
	id, f, err := m.set.PushWith([]byte(name), [][]byte{[]byte(body)}, o)
	if err == nil && len(o.Dedup) > 0 && !m.isFirst(name+string(o.Dedup), id, before) {
		m.promise("push", false, f)
		return
	}
	m.truths[body] = b
	if !m.failed("push", err) {
		m.promise("push", true, f)
	}
}

// isFirst checks the answer to a push with a deduplication id; before was the queue's newest record.
func (m *mover) isFirst(key string, id, before uint64) bool {
	known := m.dedup[key]
	if known != nil && known.id == 0 && id <= before { // that first push has survived a power cut
		m.dedup[key] = &remembering{id: id, until: known.until}
		return false
	}
	inside := known != nil && known.id != 0 && m.now() < known.until
	if inside != (known != nil && known.id == id) {
		m.t.Fatalf("a push with deduplication id %q gives message %d; the first was %+v, now is %d", key, id, known, m.now())
	}
	if !inside {
		m.dedup[key] = &remembering{id: id, until: m.now() + movesWindow}
	}
	return !inside
}

// lastID is the id of a queue's newest record.
func (m *mover) lastID(name string) uint64 {
	q := m.set.find([]byte(name))
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.m.LastLSN()
}

func (m *mover) pullOne() {
	name := m.pick()
	if m.rng.IntN(5) == 0 {
		name = movesDead[m.rng.IntN(len(movesDead))]
	}
	r := request(name, fmt.Sprint("consumer", m.rng.IntN(2)))
	r.Count, r.LeaseMillis = 1+m.rng.IntN(4), int64(1+m.rng.IntN(5))*500
	if m.rng.IntN(3) == 0 {
		r.Block, r.BlockMillis = true, int64(1+m.rng.IntN(4))*500
	}
	b, err := m.pull(r)
	m.failed("pull", err, "LOCKED")
	if b == nil { // a batch that came with an error is leased all the same, and may still be after a power cut
		return
	}
	if m.ids[b.ID] {
		m.t.Fatalf("batch %d was given out before", b.ID)
	}
	m.ids[b.ID] = true
	h, fallen := &held{queue: name, batch: b, left: map[uint64]string{}}, 0
	for i, msg := range b.Messages {
		if i > 0 && msg.ID < b.Messages[i-1].ID { // the end of those that came back; new ones follow
			if fallen++; fallen > 1 {
				m.t.Fatalf("queue %s: message %d comes after %d", name, msg.ID, b.Messages[i-1].ID)
			}
		}
		if fallen > 0 && msg.Attempt > 1 {
			m.t.Fatalf("queue %s: message %d comes back behind new ones", name, msg.ID)
		}
		h.left[msg.ID] = string(msg.Body)
		m.t.Logf("pulled %s %d: %d %.20q@%d, lease %d", name, b.ID, msg.ID, msg.Body, msg.Attempt, r.LeaseMillis)
		m.delivered(name, &msg)
	}
	m.held = append(m.held, h)
}

// delivered checks one message against the truth.
func (m *mover) delivered(name string, msg *Message) {
	b := m.truths[string(msg.Body)]
	if b == nil || b.presence == leaving || b.presence == gone {
		m.t.Fatalf("queue %s delivers %.20q, which was taken away or never pushed", name, msg.Body)
	}
	if b.presence == pushed {
		b.presence = here // only what is durable is delivered
	}
	if b.overMillis != 0 && b.overMillis <= m.now() && !slices.Contains(movesDead, name) && msg.Headers == nil && len(b.failed) == 0 {
		m.t.Fatalf("queue %s delivers %.20q at %d, its TTL was over at %d", name, msg.Body, m.now(), b.overMillis)
	}
	a := b.failed[name]
	if a == nil {
		a = &attempts{}
		b.failed[name] = a
	}
	if failed := msg.Attempt - 1; failed < a.least || failed > a.most {
		m.t.Fatalf("queue %s delivers %.20q at attempt %d; %d to %d have failed", name, msg.Body, msg.Attempt, a.least, a.most)
	}
	a.set(msg.Attempt-1, msg.Attempt) // it may expire at any time
}

func (m *mover) settleOne() {
	i := m.rng.IntN(len(m.held))
	h := m.held[i]
	if m.rng.IntN(4) > 0 {
		m.held = slices.Delete(m.held, i, i+1)
	}
	var ids []uint64
	if m.rng.IntN(3) == 0 {
		ids = []uint64{h.batch.Messages[m.rng.IntN(len(h.batch.Messages))].ID}
	}
	if p := m.rng.IntN(5); p < 3 {
		m.ack(h, ids)
	} else {
		m.nack(h, ids, []machine.NackMode{machine.Retry, machine.Release, machine.Dead}[m.rng.IntN(3)])
	}
}

// about lists which unresolved messages a call is about.
func (h *held) about(ids []uint64) []uint64 {
	if ids == nil {
		return slices.Sorted(maps.Keys(h.left))
	}
	return slices.DeleteFunc(slices.Clone(ids), func(id uint64) bool { return h.left[id] == "" })
}

// attempt is the number of a message's delivery.
func (h *held) attempt(id uint64) uint32 {
	i := slices.IndexFunc(h.batch.Messages, func(m Message) bool { return m.ID == id })
	return h.batch.Messages[i].Attempt
}

// settled checks how many messages a call resolved: all that it is about while the lease holds, and none after that.
func (m *mover) settled(what string, h *held, want []uint64, n int, err error) (resolved []uint64) {
	if m.failed(what, err, "NOBATCH", "NOQUEUE") && m.off {
		return nil
	}
	over := h.batch.DeadlineUnixMillis <= m.now()
	switch {
	case len(h.left) == 0 && (n != 0 || err != nil && !h.released):
		m.t.Fatalf("%s of batch %d, which is resolved: %d, %v", what, h.batch.ID, n, err)
	case len(h.left) == 0 || h.released && err != nil:
	case !h.released && over && err == nil:
		m.t.Fatalf("%s of batch %d resolved %d messages at %d; its lease ended at %d", what, h.batch.ID, n, m.now(), h.batch.DeadlineUnixMillis)
	case !h.released && !over && (err != nil || n != len(want)):
		m.t.Fatalf("%s of batch %d resolved %d of %d messages, %v; its lease ends at %d, now is %d", what, h.batch.ID, n, len(want), err, h.batch.DeadlineUnixMillis, m.now())
	}
	if n == 0 {
		return nil
	}
	if n != len(want) {
		m.t.Fatalf("%s of batch %d resolved %d of %d messages", what, h.batch.ID, n, len(want))
	}
	return want
}

func (m *mover) ack(h *held, ids []uint64) {
	want := h.about(ids)
	n, f, err := m.set.Ack([]byte(h.queue), h.batch.ID, ids)
	m.t.Logf("ack %s %d %v: %d, %v", h.queue, h.batch.ID, ids, n, err)
	if m.off = m.off || m.set.usable() != nil; m.off {
		for _, id := range want {
			m.truths[h.left[id]].presence = leaving // who knows
			delete(h.left, id)                      // so the batch is not asked about again: some of it may be resolved
		}
		return
	}
	for _, id := range m.settled("ack", h, want, n, err) {
		m.truths[h.left[id]].presence = leaving
		delete(h.left, id)
	}
	if err == nil {
		m.promise("ack", n > 0, f)
	}
}

func (m *mover) nack(h *held, ids []uint64, mode machine.NackMode) {
	want := h.about(ids)
	n, f, err := m.set.Nack([]byte(h.queue), h.batch.ID, mode, int64(m.rng.IntN(3)-1)*500, ids)
	m.t.Logf("nack %s %d %d %v: %d, %v", h.queue, h.batch.ID, mode, ids, n, err)
	if m.off = m.off || m.set.usable() != nil; m.off {
		for _, id := range want {
			delete(h.left, id) // as in ack
		}
		return
	}
	for _, id := range m.settled("nack", h, want, n, err) {
		failed := h.attempt(id)
		if mode == machine.Release {
			failed--
		}
		m.truths[h.left[id]].failed[h.queue].set(failed, failed)
		delete(h.left, id)
	}
	if err == nil {
		m.promise("nack", n > 0, f)
	}
}

func (m *mover) unlock() {
	name := m.pick()
	info, _, err := m.set.Info([]byte(name))
	if m.failed("info", err) || info.Holder == "" {
		return
	}
	released, f, err := m.set.Unlock([]byte(name), info.Token+uint64(m.rng.IntN(2))*1000)
	if m.failed("unlock", err) {
		return
	}
	m.t.Logf("unlock %s: %v", name, released)
	if released {
		for _, h := range m.held {
			h.released = h.released || h.queue == name
		}
	}
	m.promise("unlock", released, f)
}

func (m *mover) redrive() {
	from := movesDead[m.rng.IntN(len(movesDead))]
	var to []byte
	if m.rng.IntN(3) == 0 {
		to = []byte(m.pick())
	}
	for _, b := range m.truths { // wherever one of them comes to, it begins with no failed attempts
		for _, a := range b.failed {
			a.set(0, a.most)
		}
	}
	n, f, err := m.set.Redrive([]byte(from), to, m.rng.IntN(4))
	m.t.Logf("redrive %s to %q: %d, %v", from, to, n, err)
	if !m.failed("redrive", err, "NOQUEUE") {
		m.promise("redrive", n > 0, f)
	}
}

func (m *mover) removeOne() {
	name := m.pick()
	m.settle()
	list, _, err := peek(m.set, []byte(name), machine.Gone, 0, 100)
	if m.failed("peek", err) || len(list) == 0 {
		return
	}
	found := list[m.rng.IntN(len(list))]
	m.t.Logf("remove %s %d %q", name, found.ID, found.Body)
	n, f, err := m.set.Remove([]byte(name), []uint64{found.ID})
	if (n == 1 || m.set.usable() != nil) && found.State != machine.Leased {
		m.truths[string(found.Body)].presence = leaving
	}
	if m.failed("remove", err) {
		return
	}
	if n > 1 || n == 0 && found.State != machine.Leased || n == 1 && found.State == machine.Leased {
		m.t.Fatalf("removed %d; message %d was %v", n, found.ID, found.State)
	}
	m.promise("remove", n > 0, f)
}

func (m *mover) purge() {
	name := m.pick()
	m.settle() // all is durable then, and can be seen
	list, _, err := peek(m.set, []byte(name), machine.Gone, 0, 10_000)
	if m.failed("peek", err) {
		return
	}
	m.t.Logf("purge %s", name)
	n, f, err := m.set.Purge([]byte(name), 0)
	for _, found := range list {
		if found.State != machine.Leased {
			m.truths[string(found.Body)].presence = leaving
		}
	}
	if !m.failed("purge", err) {
		m.promise("purge", n > 0, f)
	}
}

// settle has all that is over go back now, and not while the test looks into one queue after the other.
func (m *mover) settle() {
	for _, name := range m.set.Names() {
		m.set.Info([]byte(name)) // a queue without a log says so where it is looked into
	}
	synctest.Wait()
}

// audit looks into all queues and compares them with the truth; after a power cut it also learns what has survived.
func (m *mover) audit(afterCut bool) {
	synctest.Wait()
	if m.off = m.off || m.set.usable() != nil; m.off {
		return
	}
	m.settle()
	if !afterCut {
		m.promised()
	}
	there := map[string]string{}
	for _, name := range m.set.Names() {
		list, _, err := peek(m.set, []byte(name), machine.Gone, 0, 100_000)
		if m.failed("peek", err) {
			return
		}
		for _, found := range list {
			body := string(found.Body)
			if twice := there[body]; twice != "" {
				m.t.Fatalf("%.20q is in queue %s and in queue %s", body, twice, name)
			}
			there[body] = name
			m.checkOrigin(name, &found)
		}
	}
	for body, b := range m.truths {
		name, found := there[body]
		delete(there, body)
		switch {
		case found && b.presence == gone:
			m.t.Fatalf("%.20q was taken away and is in queue %s", body, name)
		case !found && b.presence == here && (b.overMillis == 0 || b.overMillis > m.now()):
			m.t.Fatalf("%.20q is lost", body)
		case found:
			if afterCut && b.presence != here {
				m.t.Logf("%.20q has survived in %s", body, name)
			}
			b.presence = here
		default:
			b.presence = gone
		}
		for _, a := range b.failed {
			if afterCut {
				a.least, a.most = a.low, a.high
			}
		}
	}
	for body, name := range there {
		m.t.Fatalf("queue %s holds %.20q, which was never pushed", name, body)
	}
}

// checkOrigin: a message is among the dead letters only after its last attempt, or because a consumer refused it.
func (m *mover) checkOrigin(name string, found *Found) {
	origin := map[string]string{}
	for _, h := range found.Headers {
		origin[string(h[0])] = string(h[1])
	}
	if !slices.Contains(movesDead, name) {
		return
	}
	if reason := origin[headerOriginReason]; reason == "max-attempts" && origin[headerOriginAttempts] != fmt.Sprint(movesAttemptsMax) || reason == "" {
		m.t.Fatalf("queue %s holds %.20q with origin %v; max-attempts is %d", name, found.Body, origin, movesAttemptsMax)
	}
}
