package queue

import (
	"strings"
	"testing"
)

// expectRefused compares what a client would be told.
func expectRefused(t *testing.T, err error, code, want string) {
	t.Helper()
	if codeOf(err) != code || err.(*Error).Message != want {
		t.Errorf("got  %v\nwant %s %s", err, code, want)
	}
}

// What an error says to do must be what helps: QDEL would cost the messages, and consuming makes no room for a push that never fits.
func TestErrorsAdviseWhatHelps(t *testing.T) {
	inWorld(t, 71, func(w *world) {
		w.create("pay", "max-messages", "2", "max-bytes", "10")
		name := []byte("pay")
		_, err := w.set.Create(name, options(t, "lease", "10"))
		expectRefused(t, err, "EXISTS", `queue "pay" exists with other options; use it as it is, or change them with QCONFIG SET pay option value`)
		_, _, err = w.set.Push(name, split([]string{"a", "b", "c"}))
		expectRefused(t, err, "QFULL", `the push has 3 messages and never fits: max-messages of queue "pay" is 2; push fewer at once, or raise it; nothing was pushed`)
		_, _, err = w.set.Push(name, split([]string{strings.Repeat("x", 11)}))
		expectRefused(t, err, "QFULL", `the push has 11 bytes and never fits: max-bytes of queue "pay" is 10; push fewer at once, or raise it; nothing was pushed`)
		w.push("pay", "a")
		_, _, err = w.set.Push(name, split([]string{"a", "b"}))
		expectRefused(t, err, "QFULL", `queue "pay" holds 1 messages, max-messages is 2; consume some first; nothing was pushed`)
		_, _, err = w.set.Push(name, split([]string{strings.Repeat("x", 10)}))
		expectRefused(t, err, "QFULL", `queue "pay" holds 1 bytes, max-bytes is 10; consume some first; nothing was pushed`)
	})
}

// A command in an error can be typed as it stands, wherever it comes from.
func TestCommandsInErrorsCanBeTyped(t *testing.T) {
	inWorld(t, 72, func(w *world) {
		for name, typed := range map[string]string{"pay": "pay", "é/1": "é/1", `say"hi\`: `"say\"hi\\"`, "it's": `"it's"`, `a\b`: `a\b`} {
			w.create(name)
			w.set.Pause([]byte(name), true, true, false)
			_, _, err := w.set.Push([]byte(name), split([]string{"a"}))
			if codeOf(err) != "PAUSED" || !strings.HasSuffix(err.Error(), "resume it with QRESUME "+typed) {
				t.Errorf("%v, want QRESUME %s", err, typed)
			}
			if info, _, _ := w.set.Info([]byte(name)); !strings.HasSuffix(info.BlockedReason, "resume it with QRESUME "+typed+" PUSH") {
				t.Errorf("%q, want QRESUME %s PUSH", info.BlockedReason, typed)
			}
			w.set.Pause([]byte(name), true, false, true)
			if info, _, _ := w.set.Info([]byte(name)); info.BlockedReason != "consuming is paused; resume it with QRESUME "+typed {
				t.Errorf("%q, want QRESUME %s", info.BlockedReason, typed)
			}
		}
	})
}
