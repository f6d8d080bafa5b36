package commands

// What ACL LOG shows: the latest refusals, those that repeat within a minute as one.

import (
	"strings"
	"sync"
	"time"
)

const (
	// refusalsMax bounds the log; the oldest go first. Redis's acllog-max-len is the same.
	refusalsMax = 128
	// refusalsTogether is how long the same refusal only counts up.
	refusalsTogether = time.Minute
)

// Refusals are the latest failed authentications, and commands and queues that were denied.
type Refusals struct {
	mu     sync.Mutex // guards what follows; never held during IO
	next   int64
	latest []refusal // newest first
}

type refusal struct {
	reason, object, user string
	client               string
	id, count            int64
	created, updated     time.Time
}

func (r *Refusals) add(c *Call, one refusal) {
	var client strings.Builder
	now := time.Now()
	describe(&client, c.Conn.Info(), now)
	one.client = strings.TrimSuffix(client.String(), "\n")
	r.mu.Lock()
	defer r.mu.Unlock()
	one.count, one.created, one.updated = 1, now, now
	for i, old := range r.latest {
		if old.reason == one.reason && old.object == one.object && old.user == one.user && now.Sub(old.updated) < refusalsTogether {
			one.id, one.count, one.created = old.id, old.count+1, old.created
			copy(r.latest[1:i+1], r.latest[:i])
			r.latest[0] = one
			return
		}
	}
	one.id = r.next
	r.next++
	if len(r.latest) < refusalsMax {
		r.latest = append(r.latest, refusal{})
	}
	copy(r.latest[1:], r.latest)
	r.latest[0] = one
}

func (r *Refusals) list(most int) []refusal {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]refusal(nil), r.latest[:min(most, len(r.latest))]...)
}

func (r *Refusals) reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.latest = nil
}
