package server

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"quail/commands"
	"quail/queue"
	"quail/server/settings"
)

// patience bounds every wait of a test for something that must happen; it is never waited out when all is well.
const patience = 20 * time.Second

// fakeQueues is one queue in memory whose commits become durable when the test says so. What a test does not need is
// left to the nil interface.
type fakeQueues struct {
	commands.Queues

	mu       sync.Mutex // guards what follows
	manual   bool       // the test completes the futures
	futures  []*queue.Future
	last     uint64
	messages []queue.Message
	waiting  []*fakeWaiter
	canceled int
	discard  bool          // keep no message
	asleep   chan struct{} // if not nil, WakeAll closes it and leaves the waking to the test
	returned int
	pushed   chan struct{} // gets one for each push, if not nil
	pushes   int
	loading  error  // set before any client comes
	most     uint64 // a push past that many messages is refused as a whole; 0: none is
}

type fakeWaiter struct {
	done func(*queue.Batch, *queue.Future, error)
}

func (q *fakeQueues) Loading() error     { return q.loading }
func (q *fakeQueues) LoadingQueues() int { return 0 }

// set changes what the fake does, also while connections use it.
func (q *fakeQueues) set(change func(*fakeQueues)) {
	q.mu.Lock()
	defer q.mu.Unlock()
	change(q)
}

func (q *fakeQueues) future() *queue.Future {
	if !q.manual {
		return nil
	}
	if len(q.futures) == 0 {
		q.futures = append(q.futures, new(queue.Future))
	}
	return q.futures[len(q.futures)-1]
}

// commit ends the current group: what was pushed up to now is durable, or failed.
func (q *fakeQueues) commit(err error) {
	q.mu.Lock()
	futures := q.futures
	q.futures = nil
	q.mu.Unlock()
	for _, f := range futures {
		f.Complete(err)
	}
}

func (q *fakeQueues) Push(_ []byte, bodies [][]byte) (uint64, *queue.Future, error) {
	q.mu.Lock()
	q.pushes++
	first := q.last + 1
	if q.most > 0 && q.last+uint64(len(bodies)) > q.most {
		q.mu.Unlock()
		return 0, nil, &queue.Error{Code: "QFULL", Message: "enough"}
	}
	for _, body := range bodies {
		q.last++
		if !q.discard {
			q.messages = append(q.messages, queue.Message{ID: q.last, Body: body})
		}
	}
	after := q.future()
	var done []func()
	for len(q.waiting) > 0 && len(q.messages) > 0 {
		w := q.waiting[0]
		q.waiting = q.waiting[1:]
		batch := q.batch()
		done = append(done, func() { w.done(batch, nil, nil) })
	}
	q.mu.Unlock()
	for _, tell := range done {
		tell()
	}
	if q.pushed != nil {
		q.pushed <- struct{}{}
	}
	return first, after, nil
}

func (q *fakeQueues) PushWith(name []byte, bodies [][]byte, _ queue.PushOptions) (uint64, *queue.Future, error) {
	return q.Push(name, bodies)
}

func (q *fakeQueues) batch() *queue.Batch {
	b := &queue.Batch{ID: 1, Messages: q.messages[:1:1]}
	q.messages = q.messages[1:]
	return b
}

func (q *fakeQueues) Consume(r queue.ConsumeRequest, done func(*queue.Batch, *queue.Future, error)) func() {
	q.mu.Lock()
	if len(q.messages) > 0 {
		b := q.batch()
		q.mu.Unlock()
		done(b, nil, nil)
		return func() {}
	}
	if !r.Block {
		q.mu.Unlock()
		done(nil, nil, nil)
		return func() {}
	}
	w := &fakeWaiter{done: done}
	q.waiting = append(q.waiting, w)
	q.mu.Unlock()
	return func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.canceled++
		if i := slices.Index(q.waiting, w); i >= 0 {
			q.waiting = slices.Delete(q.waiting, i, i+1)
		}
	}
}

// Lock waits until WakeAll.
func (q *fakeQueues) Lock(_ queue.LockRequest, done func(uint64, *queue.Future, error)) func() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiting = append(q.waiting, &fakeWaiter{done: func(_ *queue.Batch, after *queue.Future, err error) { done(0, after, err) }})
	return func() {}
}

func (q *fakeQueues) Return([]byte, uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.returned++
}

func (q *fakeQueues) Len([]byte) (int64, *queue.Future, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return int64(len(q.messages)), nil, nil
}

func (q *fakeQueues) Names() []string         { return nil }
func (q *fakeQueues) NamesUnsorted() []string { return nil }
func (q *fakeQueues) Count() int              { return 0 }

func (q *fakeQueues) WakeAll() {
	if q.asleep == nil {
		q.wake()
		return
	}
	close(q.asleep)
}

func (q *fakeQueues) wake() {
	q.mu.Lock()
	waiting := q.waiting
	q.waiting = nil
	q.mu.Unlock()
	for _, w := range waiting {
		w.done(nil, nil, nil)
	}
}

func (q *fakeQueues) look(at func(*fakeQueues) bool) func() bool {
	return func() bool {
		q.mu.Lock()
		defer q.mu.Unlock()
		return at(q)
	}
}

// eventually waits for a condition that nothing announces.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-ctx.Done():
			t.Fatalf("never: %s", what)
		case <-tick.C:
		}
	}
}

type running struct {
	*Server
	queues *fakeQueues
	log    *logBuffer
	ln     net.Listener
	served chan error
}

// logBuffer keeps what was logged.
type logBuffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// start runs a server with these settings, given as name=value.
func start(t testing.TB, given ...string) *running {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := startOn(t, ln, given...)
	t.Cleanup(func() { r.shutdown(t) })
	return r
}

// startToRun is start of a server that runs commands in another way; own is its own. To exchange run of one that serves is a data race.
func startToRun(t testing.TB, run func(own func(*commands.Call)) func(*commands.Call)) *running {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := startOnToRun(t, ln, run)
	t.Cleanup(func() { r.shutdown(t) })
	return r
}

// startOnToRun is startToRun on a listener of the test's.
func startOnToRun(t testing.TB, ln net.Listener, run func(own func(*commands.Call)) func(*commands.Call)) *running {
	t.Helper()
	r := newRunning(t, ln, func(*Config) {})
	r.run = run(r.run)
	r.serve()
	return r
}

func startOn(t testing.TB, ln net.Listener, given ...string) *running {
	t.Helper()
	return startWith(t, ln, func(*Config) {}, given...)
}

// startWith is startOn with more in the configuration.
func startWith(t testing.TB, ln net.Listener, more func(*Config), given ...string) *running {
	t.Helper()
	r := newRunning(t, ln, more, given...)
	r.serve()
	return r
}

// newRunning makes a server that does not serve yet.
func newRunning(t testing.TB, ln net.Listener, more func(*Config), given ...string) *running {
	t.Helper()
	var pairs [][2]string
	for _, one := range given {
		name, value, _ := strings.Cut(one, "=")
		pairs = append(pairs, [2]string{name, value})
	}
	values, err := settings.New(pairs)
	if err != nil {
		t.Fatal(err)
	}
	r := &running{queues: new(fakeQueues), log: new(logBuffer), ln: ln, served: make(chan error, 1)}
	config := Config{Settings: values, Queues: r.asQueues(), Log: zerolog.New(r.log), Version: "0.0.0"}
	more(&config)
	r.Server = New(config)
	return r
}

func (r *running) serve() {
	go func() { r.served <- r.Serve(r.ln) }()
}

// inRounds: connections are served by a loop, as far as they can be.
var inRounds bool

// TestMain runs every test twice: a client must not notice who serves it.
func TestMain(m *testing.M) {
	code := m.Run()
	inRounds = true
	fmt.Println("once more, with connections served in rounds")
	os.Exit(max(code, m.Run()))
}

// roundQueues can hold commits back.
type roundQueues struct{ *fakeQueues }

func (roundQueues) Hold() queue.Held { return queue.Held{} }
func (roundQueues) HasRoom() bool    { return true }
func (roundQueues) Idle()            {}

func (r *running) asQueues() Queues {
	if _, socket := r.ln.(*net.TCPListener); inRounds && socket { // in a pipe there are no events, and virtual time would stand still
		return roundQueues{r.queues}
	}
	return r.queues
}

func (r *running) shutdown(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r.queues.commit(nil)
	if err := r.Shutdown(ctx); err != nil {
		t.Errorf("shutdown: %v", err)
	}
	if err := <-r.served; err != nil {
		t.Errorf("serve: %v", err)
	}
}

// client speaks bytes.
type client struct {
	t    testing.TB
	conn net.Conn
	rd   *bufio.Reader
}

func (r *running) dial(t testing.TB) *client {
	t.Helper()
	conn, err := net.Dial("tcp", r.ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return newClient(t, conn)
}

func newClient(t testing.TB, conn net.Conn) *client {
	conn.SetDeadline(time.Now().Add(patience))
	return &client{t: t, conn: conn, rd: bufio.NewReader(conn)}
}

func (c *client) send(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c.conn, text); err != nil {
		c.t.Fatalf("send: %v", err)
	}
}

// expect reads as many bytes as are wanted, and compares.
func (c *client) expect(want string) {
	c.t.Helper()
	got := make([]byte, len(want))
	n, err := io.ReadFull(c.rd, got)
	if err != nil || string(got) != want {
		c.t.Fatalf("got %.300q (%v), want %.300q", got[:n], err, want)
	}
}

// expectEnd reads the rest: the server must close, maybe after a last word.
func (c *client) expectEnd(want string) {
	c.t.Helper()
	got, err := io.ReadAll(c.rd)
	if err != nil && !errors.Is(err, errReset(err)) || string(got) != want {
		c.t.Fatalf("got %.300q (%v), want %.300q and the end", got, err, want)
	}
}

// errReset gives err itself if it is what a reset connection gives.
func errReset(err error) error {
	if err != nil && (strings.Contains(err.Error(), "reset by peer") || strings.Contains(err.Error(), "broken pipe")) {
		return err
	}
	return io.EOF
}

func (c *client) closeWrite() {
	c.t.Helper()
	if err := c.conn.(*net.TCPConn).CloseWrite(); err != nil {
		c.t.Fatal(err)
	}
}

// cmd is a command as a client library sends it.
func cmd(args ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(args))
	for _, arg := range args {
		b.WriteString("$" + strconv.Itoa(len(arg)) + "\r\n" + arg + "\r\n")
	}
	return b.String()
}
