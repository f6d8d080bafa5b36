package bench

import (
	"strings"
	"testing"
)

const batchReply = "*3\r\n:17\r\n:1795475821322\r\n*2\r\n" +
	"*5\r\n:5\r\n$3\r\na\r\n\r\n:1\r\n:1795475817002\r\n*0\r\n" +
	"*5\r\n:6\r\n$0\r\n\r\n:2\r\n:1795475817002\r\n*2\r\n$1\r\nn\r\n$1\r\nv\r\n"

const streamReply = "*1\r\n*2\r\n$1\r\ns\r\n*2\r\n" +
	"*2\r\n$3\r\n7-0\r\n*2\r\n$1\r\nb\r\n$2\r\nxy\r\n" +
	"*2\r\n$4\r\n7-12\r\n*2\r\n$1\r\nb\r\n$0\r\n\r\n"

// A reply that arrives in parts must be the same reply, or a slow network fails the run.
func TestRepliesInParts(t *testing.T) {
	all := []string{":1\r\n", "$-1\r\n", batchReply, "*-1\r\n", "+OK\r\n", "*0\r\n", "-ERR no\r\n", streamReply, "$5\r\nab\r\nc\r\n"}
	whole := strings.Join(all, "")
	for size := 1; size <= len(whole); size++ {
		var in replies
		var got []string
		for rest := whole; len(rest) > 0; {
			n := copy(in.room(), rest[:min(size, len(rest))])
			rest = rest[n:]
			in.filled(n)
			for {
				raw, err := in.next()
				if err != nil {
					t.Fatal(err)
				}
				if raw == nil {
					break
				}
				got = append(got, string(raw))
			}
		}
		if strings.Join(got, "|") != strings.Join(all, "|") {
			t.Fatalf("in parts of %d: %q", size, got)
		}
	}
}

func TestRepliesRefuseWhatIsNone(t *testing.T) {
	for _, text := range []string{"hello\r\n", ":1\n", "\r\n", "$x\r\n", "*999999999999\r\n", "*1\r\n?\r\n"} {
		var in replies
		in.filled(copy(in.room(), text))
		if raw, err := in.next(); err == nil {
			t.Errorf("%q: %q", text, raw)
		}
	}
}

func TestBatchOfEitherServer(t *testing.T) {
	var b batch
	if err := (quail{}).pulled([]byte(batchReply), &b); err != nil {
		t.Fatal(err)
	}
	if b.number != 17 || len(b.ids) != 2 || b.ids[0] != 5 || b.ids[1] != 6 || string(b.bodies[0]) != "a\r\n" {
		t.Errorf("%+v", b)
	}
	if got := string((quail{}).ack(nil, "q", &b)); got != "*3\r\n$4\r\nQACK\r\n$1\r\nq\r\n$2\r\n17\r\n" {
		t.Errorf("%q", got)
	}
	if err := (redis{}).pulled([]byte(streamReply), &b); err != nil {
		t.Fatal(err)
	}
	if len(b.ids) != 2 || b.ids[0] >= b.ids[1] || string(b.bodies[0]) != "xy" {
		t.Errorf("%+v", b)
	}
	if got := string((redis{}).ack(nil, "s", &b)); got != "*5\r\n$4\r\nXACK\r\n$1\r\ns\r\n$5\r\nbench\r\n$3\r\n7-0\r\n$4\r\n7-12\r\n" {
		t.Errorf("%q", got)
	}
	for _, d := range []dialect{quail{}, redis{}} {
		if err := d.pulled([]byte("*-1\r\n"), &b); err != nil || len(b.ids) != 0 {
			t.Errorf("%s: null is %v, %v", d.name(), b.ids, err)
		}
		for _, other := range []string{":1\r\n", "+OK\r\n", "*1\r\n:1\r\n"} {
			if err := d.pulled([]byte(other), &b); err == nil {
				t.Errorf("%s takes %q for a batch", d.name(), other)
			}
		}
	}
}

// An id of a stream is compared as a number; the order must be the stream's.
func TestStreamIDs(t *testing.T) {
	last := uint64(0)
	for _, text := range []string{"0-1", "1-0", "1-9", "1-10", "1-1048575", "2-0", "1795475821322-0", "1795475821322-7"} {
		id, err := streamID([]byte(text))
		if err != nil || id <= last || string(appendStreamID(nil, id)) != text {
			t.Errorf("%s: %d after %d, %v, %s", text, id, last, err, appendStreamID(nil, id))
		}
		last = id
	}
	for _, text := range []string{"", "-", "1", "1-", "-1", "a-1", "1-1048576"} {
		if id, err := streamID([]byte(text)); err == nil {
			t.Errorf("%q is %d", text, id)
		}
	}
}

// What the generator burns is missing to the server.
func TestLoadCostsNoMemory(t *testing.T) {
	var in replies
	b := batch{}
	var out []byte
	once := func() {
		in.filled(copy(in.room(), batchReply))
		raw, err := in.next()
		if err != nil || raw == nil {
			t.Fatal(err)
		}
		if err := (quail{}).pulled(raw, &b); err != nil {
			t.Fatal(err)
		}
		out = (quail{}).ack(out[:0], "queue", &b)
		in.filled(copy(in.room(), streamReply))
		raw, _ = in.next()
		if err := (redis{}).pulled(raw, &b); err != nil {
			t.Fatal(err)
		}
		out = (redis{}).ack(out[:0], "queue", &b)
	}
	once()
	if n := testing.AllocsPerRun(100, once); n != 0 {
		t.Errorf("%v allocations for two batches", n)
	}
}
