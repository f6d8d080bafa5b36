package commands

// Messages in a reply: of QCONSUME, and with their state of QPEEK and QGET.

import (
	"quail/commands/resp"
	"quail/queue"
)

// messageOverheadBytes is about what the numbers and marks around a body take in a reply.
const messageOverheadBytes = 64

// writeMessage writes the elements of a message that all replies share; more is how many the caller adds.
func writeMessage(w *resp.Writer, m *queue.Message, more int) {
	w.Array(5 + more)
	w.Int(int64(m.ID))
	w.Bulk(m.Body)
	w.Int(int64(m.Attempt))
	w.Int(m.PushedMillis)
	w.Map(len(m.Headers))
	for _, h := range m.Headers {
		w.Bulk(h[0])
		w.Bulk(h[1])
	}
}

// writeFound writes a message that was looked at, with its state.
func writeFound(w *resp.Writer, f *queue.Found) {
	w.Grow(len(f.Body) + messageOverheadBytes)
	writeMessage(w, &f.Message, 1)
	w.BulkString(f.State.String())
}

func writeBatch(w *resp.Writer, b *queue.Batch) {
	size := messageOverheadBytes
	for i := range b.Messages {
		size += len(b.Messages[i].Body) + messageOverheadBytes
	}
	w.Grow(size)
	w.Array(3)
	w.Int(int64(b.ID))
	w.Int(b.DeadlineUnixMillis)
	w.Array(len(b.Messages))
	for i := range b.Messages {
		writeMessage(w, &b.Messages[i], 0)
	}
}
