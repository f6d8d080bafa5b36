package server

// The servers that fuzzed inputs are tried on: the whole way from the socket's bytes to the reply's, on one goroutine, with a socket that is
// made of pieces of the input.

import (
	"bytes"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/tidwall/redcon"

	"quail/commands"
	"quail/queue"
	"quail/queue/machine"
	"quail/server/reply"
	"quail/server/settings"
	"quail/wal"
	"quail/wal/seglog"
	"quail/wal/vfs"
)

// fuzzSettings are small limits; see fuzzed_inputs_test.go.
var fuzzSettings = [][2]string{{"max-args", "50"}, {"max-bulk-bytes", "4kb"}, {"max-push-bytes", "4kb"}, {"query-buffer-bytes", "64kb"},
	{"maxmemory-clients", "2mb"}, {"output-buffer-bytes", "1mb"}, {"auth-delay", "0"}, {"max-queues", "200"}}

// fuzzPassword stands in no input.
const fuzzPassword = "never guessed"

// fuzzWorld is one server. It is thrown away after some inputs, so what they leave behind does not pile up.
type fuzzWorld struct {
	*Server
	set *queue.Set // nil: the queues say always the same
	ran [][]string // the commands that ran since it was emptied
}

// newFuzzWorld makes a server, of strangers if nobody can know its password.
func newFuzzWorld(t testing.TB, real, strangers bool) *fuzzWorld {
	given := fuzzSettings
	if strangers {
		given = append(given[:len(given):len(given)], [2]string{"requirepass", fuzzPassword})
	}
	values, err := settings.New(given)
	if err != nil {
		t.Fatal(err)
	}
	w := &fuzzWorld{}
	config := Config{Settings: values, Queues: steadyQueues{}, Log: zerolog.Nop(), Version: "0.0.0"}
	if real {
		if w.set, _, err = queue.Open(fuzzQueues(values)); err != nil {
			t.Fatal(err)
		}
		config.Queues = w.set
	}
	w.Server = New(config)
	w.Server.run, w.Server.runTogether = w.runOne, w.runSome
	return w
}

func fuzzQueues(values *settings.Values) queue.Config {
	return queue.Config{
		Store: wal.Config{FS: vfs.NewLossy(1), Dir: "data", JournalFileBytes: 1 << 20, JournalBytes: 4 << 20, CheckpointBytes: 1 << 20, WriteBehindBytes: 1 << 20,
			LazyDelay: time.Second, SegmentBytes: 64 << 10, OpenLogs: 64, OpenLog: seglog.OpenSim},
		Defaults:     values.QueueDefaults,
		QueuesMax:    func() int { return int(values.Int(settings.MaxQueues)) },
		AutoCreate:   func() bool { return true },
		PushBytesMax: func() int64 { return values.Bytes(settings.MaxPush) },
	}
}

func (w *fuzzWorld) close(t testing.TB) {
	if err := w.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if w.set != nil {
		if err := w.set.Close(); err != nil {
			t.Error(err)
		}
	}
}

// runOne notes a command before it runs. What would change the limits for all others does not run.
func (w *fuzzWorld) runOne(c *commands.Call) {
	w.ran = append(w.ran, wordsOf(c.Args))
	if len(c.Args) > 2 && isWord(c.Args[0], "CONFIG") && isWord(c.Args[1], "SET") ||
		len(c.Args) > 2 && isWord(c.Args[0], "ACL") && isWord(c.Args[1], "SETUSER") && string(c.Args[2]) == "default" {
		c.W.Simple("OK")
		return
	}
	commands.Run(c)
}

// runSome notes each of the commands that run together.
func (w *fuzzWorld) runSome(c *commands.Call) bool {
	done := commands.RunTogether(c)
	for _, body := range c.Args[2:] {
		if done {
			w.ran = append(w.ran, []string{string(c.Args[0]), string(c.Args[1]), string(body)})
		}
	}
	return done
}

func wordsOf(args [][]byte) []string {
	words := make([]string, len(args))
	for i, arg := range args {
		words[i] = string(arg)
	}
	return words
}

// pieces is a socket from which an input comes in pieces, and on which nothing ever waits.
type pieces struct {
	in   []byte
	next func() int // the size of the next piece
	c    *connection

	mu     sync.Mutex // guards what follows
	out    []byte
	closed bool
}

func (p *pieces) Peer() (closed, reset bool) { return false, false }

func (p *pieces) TryRead(b []byte) (int, error) {
	if len(p.in) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.in[:min(len(p.in), max(1, p.next()))])
	p.in = p.in[n:]
	return n, nil
}

func (p *pieces) Read(b []byte) (int, error) {
	p.mu.Lock()
	closed := p.closed
	p.mu.Unlock()
	if closed {
		return 0, net.ErrClosed
	}
	return p.TryRead(b)
}

func (p *pieces) TryWrite(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return 0, net.ErrClosed
	}
	p.out = append(p.out, b...)
	return len(b), nil
}

func (p *pieces) Write(b []byte) (int, error) { return p.TryWrite(b) }

func (p *pieces) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	return nil
}

// Wait is where the loop would serve the connection: it does so until it leaves something to the own goroutine.
func (p *pieces) Wait() error {
	v := p.c.serving
	for {
		v.begin()
		more := p.c.serve(false)
		v.end()
		if !more {
			return nil
		}
	}
}

func (p *pieces) Serve(func(bool) bool) error        { return nil }
func (p *pieces) LocalAddr() net.Addr                { return fuzzAddress }
func (p *pieces) RemoteAddr() net.Addr               { return fuzzAddress }
func (p *pieces) SetDeadline(time.Time) error        { return nil }
func (p *pieces) SetReadDeadline(time.Time) error    { return nil }
func (p *pieces) SetWriteDeadline(t time.Time) error { return nil }

var fuzzAddress = &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 4}

// try gives an input to a connection of its own, and returns what the client would read.
func (w *fuzzWorld) try(input []byte, next func() int) []byte {
	w.ran = w.ran[:0]
	p := &pieces{in: input, next: next}
	c := newConnection(w.Server, p, nil)
	p.c = c
	if inRounds {
		rounds, ok := w.cfg.Queues.(Rounds)
		if ok {
			c.sock, c.serving = p, &serving{rounds: rounds, round: reply.NewRound(w.senders)}
		}
	}
	for rd := redcon.NewReader(c); ; {
		cmd, err := rd.ReadCommand()
		if err != nil {
			break
		}
		c.handle(cmd.Args)
	}
	c.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	return bytes.Clone(p.out)
}

// steadyQueues always say the same, so two runs of one input can be compared.
type steadyQueues struct{}

var steadyBatch = &queue.Batch{ID: 17, DeadlineUnixMillis: 1_700_000_000_000, Messages: []queue.Message{{ID: 5, Body: []byte("body"), Attempt: 1, PushedMillis: 1}}}

func (steadyQueues) Loading() error     { return nil }
func (steadyQueues) LoadingQueues() int { return 0 }

func (steadyQueues) name(name []byte) error { return queue.ValidName(name) }

func (q steadyQueues) Push(name []byte, _ [][]byte) (uint64, *queue.Future, error) {
	return 5, nil, q.name(name)
}
func (q steadyQueues) PushWith(name []byte, _ [][]byte, _ queue.PushOptions) (uint64, *queue.Future, error) {
	return 5, nil, q.name(name)
}
func (q steadyQueues) Lock(r queue.LockRequest, done func(uint64, *queue.Future, error)) func() {
	done(3, nil, q.name(r.Queue))
	return func() {}
}
func (q steadyQueues) Unlock(name []byte, _ uint64) (bool, *queue.Future, error) {
	return true, nil, q.name(name)
}
func (q steadyQueues) Consume(r queue.ConsumeRequest, done func(*queue.Batch, *queue.Future, error)) func() {
	if err := q.name(r.Queue); err != nil {
		done(nil, nil, err)
	} else {
		done(steadyBatch, nil, nil)
	}
	return func() {}
}
func (q steadyQueues) Return([]byte, uint64) {}
func (q steadyQueues) Ack(name []byte, _ uint64, _ []uint64) (int, *queue.Future, error) {
	return 1, nil, q.name(name)
}
func (q steadyQueues) Nack(name []byte, _ uint64, _ machine.NackMode, _ int64, _ []uint64) (int, *queue.Future, error) {
	return 1, nil, q.name(name)
}
func (q steadyQueues) Extend(name []byte, _ uint64, _ int64) (int64, *queue.Future, error) {
	return 1, nil, q.name(name)
}
func (q steadyQueues) Len(name []byte) (int64, *queue.Future, error) { return 1, nil, q.name(name) }
func (q steadyQueues) Info(name []byte) (*queue.Info, *queue.Future, error) {
	return &queue.Info{}, nil, q.name(name)
}
func (q steadyQueues) Names() []string           { return []string{"a", "q"} }
func (q steadyQueues) NamesUnsorted() []string   { return q.Names() }
func (q steadyQueues) Count() int                { return 2 }
func (q steadyQueues) Exists(name []byte) bool   { return string(name) == "q" }
func (q steadyQueues) NamesAfter() *queue.Future { return nil }
func (q steadyQueues) Create(name []byte, _ machine.Options) (*queue.Future, error) {
	return nil, q.name(name)
}
func (q steadyQueues) Options(name []byte) ([][2]string, *queue.Future, error) {
	return [][2]string{{"lease", "1"}}, nil, q.name(name)
}
func (q steadyQueues) Configure(name []byte, _ machine.Options) (*queue.Future, error) {
	return nil, q.name(name)
}
func (q steadyQueues) Peek(name []byte, _ machine.State, _ uint64, _ int, show func([]queue.Found)) (*queue.Future, error) {
	if err := q.name(name); err != nil {
		return nil, err
	}
	show([]queue.Found{{Message: steadyBatch.Messages[0]}})
	return nil, nil
}
func (q steadyQueues) Get(name []byte, _ uint64) (*queue.Found, *queue.Future, error) {
	return nil, nil, q.name(name)
}
func (q steadyQueues) Remove(name []byte, _ []uint64) (int, *queue.Future, error) {
	return 1, nil, q.name(name)
}
func (q steadyQueues) Purge(name []byte, _ uint64) (int64, *queue.Future, error) {
	return 1, nil, q.name(name)
}
func (q steadyQueues) Pause(name []byte, _, _, _ bool) (*queue.Future, error) {
	return nil, q.name(name)
}
func (q steadyQueues) Redrive(name, _ []byte, _ int) (int, *queue.Future, error) {
	return 1, nil, q.name(name)
}
func (q steadyQueues) Backup(string) (queue.BackupReport, error) { return queue.BackupReport{}, nil }
func (q steadyQueues) Delete(name []byte) (bool, *queue.Future, error) {
	return true, nil, q.name(name)
}
func (q steadyQueues) WakeAll()         {}
func (q steadyQueues) Hold() queue.Held { return queue.Held{} }
func (q steadyQueues) HasRoom() bool    { return true }
func (q steadyQueues) Idle()            {}

// mention reports whether one of the commands begins with this word, in any case.
func mention(ran [][]string, words ...string) bool {
	for _, command := range ran {
		for _, word := range words {
			if strings.EqualFold(command[0], word) {
				return true
			}
		}
	}
	return false
}
