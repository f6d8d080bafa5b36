package machine

import "testing"

// loaded is a queue with n ready messages of 100 bytes, held by alice.
func loaded(b *testing.B, n int) (*Machine, Time) {
	m, now := New(), Time{ClockMillis: 1000, WallMillis: wallStart}
	e := CreateMeta("orders", Options{}, now.WallMillis)
	must(b, m.Apply(1, e.Kind, 0, e.Meta, 0))
	e = m.DecideGrant(now, Grant{Consumer: "alice", Token: 1, TTLMillis: 1 << 40})
	must(b, m.Apply(2, e.Kind, 0, e.Meta, 0))
	if n > 0 {
		must(b, m.ApplyMessages(3, n, int64(n)*100, now.WallMillis))
	}
	return m, now
}

func must(tb testing.TB, err error) {
	if err != nil {
		tb.Fatal(err)
	}
}

func BenchmarkApplyMessage(b *testing.B) {
	m, now := loaded(b, 0)
	var meta []byte
	b.ReportAllocs()
	for b.Loop() {
		meta = MessageMeta(meta[:0], Message{PushedMillis: now.WallMillis})
		must(b, m.Apply(m.lastLSN+1, KindMessage, 0, meta, 100))
	}
}

func BenchmarkApplyMessages16(b *testing.B) {
	m, now := loaded(b, 0)
	b.ReportAllocs()
	for b.Loop() {
		must(b, m.ApplyMessages(m.lastLSN+1, 16, 1600, now.WallMillis))
	}
}

func benchmarkLease(b *testing.B, size int, resolve func(m *Machine, now Time, batch uint64) Effect) {
	m, now := loaded(b, 0)
	fresh := make([]Fresh, size)
	var returned []Returned
	batch := uint64(1)
	b.ReportAllocs()
	for b.Loop() {
		l := LeaseRequest{Batch: batch, LeaseMillis: 30_000}
		if m.ready == 0 && m.retrying.messages == 0 {
			for i := range fresh {
				fresh[i] = Fresh{ID: m.lastLSN + 1 + uint64(i), SizeBytes: 100}
			}
			must(b, m.ApplyMessages(m.lastLSN+1, size, int64(size)*100, now.WallMillis))
			l.New, l.Cursor = fresh, m.lastLSN
		} else {
			returned = m.PeekReturned(now, size, returned[:0])
			l.Returned = returned
		}
		e := m.DecideLease(now, l)
		must(b, m.Apply(m.lastLSN+1, e.Kind, 0, e.Meta, 0))
		e = resolve(m, now, batch)
		must(b, m.Apply(m.lastLSN+1, e.Kind, 0, e.Meta, 0))
		batch++
	}
}

func BenchmarkLeaseAck1(b *testing.B) {
	benchmarkLease(b, 1, func(m *Machine, now Time, batch uint64) Effect {
		_, e, _, _ := m.DecideAck(now, batch, nil)
		return e
	})
}

func BenchmarkLeaseAck100(b *testing.B) {
	benchmarkLease(b, 100, func(m *Machine, now Time, batch uint64) Effect {
		_, e, _, _ := m.DecideAck(now, batch, nil)
		return e
	})
}

func BenchmarkLeaseNack100(b *testing.B) {
	benchmarkLease(b, 100, func(m *Machine, now Time, batch uint64) Effect {
		_, e, _, _ := m.DecideNack(now, batch, nil, Retry, 0, RetryPolicy{})
		return e
	})
}

func BenchmarkSnapshot(b *testing.B) {
	d := busy(b)
	var state []byte
	b.ReportAllocs()
	for b.Loop() {
		state = d.m.Snapshot(state[:0])
	}
}
