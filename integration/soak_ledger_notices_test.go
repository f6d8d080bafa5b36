//go:build linux

package integration

import (
	"strings"
	"testing"
)

// A ledger that finds nothing proves nothing: each thing that may not be is shown to it once.
func TestSoakLedgerNotices(t *testing.T) {
	type world struct {
		*soakLedger
		names []string
		b     *batch
	}
	one := func(id int64, name string) message { return message{id: id, body: soakBody(name), attempt: 1} }
	for want, do := range map[string]func(w *world){
		"":        func(w *world) { w.pulled(soakPlain, w.b); w.ackAnswered(soakPlain, w.b, w.b.messages, 2) },
		"is lost": func(w *world) { w.pulled(soakPlain, w.b) },
		"nobody pushed": func(w *world) {
			w.pulled(soakPlain, &batch{id: 2, messages: []message{one(9, "0/plain/9")}})
			w.names = nil
		},
		"came again": func(w *world) {
			w.pulled(soakPlain, w.b)
			w.ackAnswered(soakPlain, w.b, w.b.messages, 2)
			w.pulled(soakPlain, &batch{id: 2, messages: w.b.messages})
		},
		"long over": func(w *world) {
			w.pulled(soakPlain, w.b)
			w.ackAnswered(soakPlain, w.b, w.b.messages, 2)
			w.endPhase()
			w.pulled(soakPlain, &batch{id: 2, messages: w.b.messages})
		},
		"not what was pushed": func(w *world) {
			w.b.messages[0].body += "x"
			w.pulled(soakPlain, w.b)
			w.ackAnswered(soakPlain, w.b, w.b.messages, 2)
		},
		"came from": func(w *world) { w.pulled(soakPiped, w.b); w.ackAnswered(soakPiped, w.b, w.b.messages, 2) },
		"has the ids": func(w *world) {
			w.b.messages[1].id = 7
			w.pulled(soakPlain, w.b)
			w.ackAnswered(soakPlain, w.b, w.b.messages, 2)
		},
		"answered 1": func(w *world) { w.pulled(soakPlain, w.b); w.ackAnswered(soakPlain, w.b, w.b.messages, 1) },
		"acknowledged in batch 1 and in batch 3": func(w *world) {
			w.pulled(soakPlain, w.b)
			w.ackAnswered(soakPlain, w.b, w.b.messages, 2)
			w.ackAnswered(soakPlain, &batch{id: 3}, w.b.messages, 2)
		},
		"after it was gone": func(w *world) {
			w.deletes(soakPlain)
			w.deleted(soakPlain, true, true)
			w.pulled(soakPlain, w.b)
		},
	} {
		w := &world{soakLedger: newSoakLedger()}
		seq := 0
		w.names = w.soakLedger.names(soakPlain, soakPlain, &seq, 2, false)
		w.pushAnswered(w.names, 5)
		w.b = &batch{id: 1, messages: []message{one(5, w.names[0]), one(6, w.names[1])}}
		do(w)
		w.endPhase()
		found := strings.Join(w.takeComplaints(), "\n")
		if !strings.Contains(found, want) || want == "" && found != "" {
			t.Errorf("want %q, the ledger said %q", want, found)
		}
	}
}
