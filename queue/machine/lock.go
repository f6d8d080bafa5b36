package machine

// The tenure: one consumer's right to the queue, from the grant of the lock until it is given up or lapses. A tenure has a
// token, tokens rise, and every open batch belongs to the present tenure: ending it returns them all in the same record, so there is no
// moment at which two consumers hold messages of one queue.
//
// A lock change's record:
//
//	clock       server clock, milliseconds
//	ended       token of the tenure that ends; 0: none
//	            if one ends: number of its open batches, and for each its id, its reason and what becomes of its messages
//	granted     0 or 1; if 1: token, TTL, deadline on the server clock, and the consumer's name

import "errors"

type tenure struct {
	grant    Grant
	deadline int64 // server clock, as the last record said
	volatile int64 // server clock; renewals that stand in no record, 0: none
}

// Grant is the lock in one consumer's hands.
type Grant struct {
	// Consumer is the holder's name, 1 to NameBytesMax bytes.
	Consumer string
	// Token names the tenure. A new tenure's is higher than any before.
	Token uint64
	// TTLMillis is how long the lock holds after each renewal.
	TTLMillis int64
}

// LockState is a lock that is held.
type LockState struct {
	Grant
	// DeadlineMillis is when the lock lapses, on the server clock: at that moment, not after. It is never before the deadline
	// of an open batch.
	DeadlineMillis int64
}

var (
	errLockHeld    = errors.New("it grants the lock, which is held")
	errNotHeld     = errors.New("it ends a tenure that does not hold the lock")
	errNoTenure    = errors.New("nobody holds the lock")
	errTokenOld    = errors.New("its token is not above the last one")
	errNoConsumer  = errors.New("it grants the lock to nobody")
	errBatchesLeft = errors.New("it does not return all open batches of the tenure")
)

// Lock returns the lock and whether anybody holds it.
func (m *Machine) Lock() (l LockState, held bool) {
	if m.lock.grant.Token == 0 {
		return LockState{}, false
	}
	deadline := max(m.lock.deadline, m.lock.volatile)
	for _, b := range m.batches {
		deadline = max(deadline, b.deadline)
	}
	return LockState{Grant: m.lock.grant, DeadlineMillis: deadline}, true
}

// RenewVolatile keeps the lock from lapsing before this moment of the server clock, without a record: for the renewal by a pull
// that got nothing. It is no state: a restart forgets it, and renews each lock instead. It never brings the deadline forward, and
// an explicit grant replaces it.
func (m *Machine) RenewVolatile(deadlineClockMillis int64) {
	if m.lock.grant.Token != 0 {
		m.lock.volatile = max(m.lock.volatile, deadlineClockMillis)
	}
}

// DecideGrant gives the free lock to g, or renews the tenure that has g's token, maybe with another TTL. The caller has
// checked with Lock that one of both is the case.
func (m *Machine) DecideGrant(now Time, g Grant) Effect {
	dst := make([]byte, 0, 32+len(g.Consumer))
	dst = putMillis(dst, now.ClockMillis)
	dst = put(dst, 0)
	return Effect{Kind: KindLock, Meta: appendGrant(dst, now, &g)}
}

// DecideUnlock ends the tenure. Its open batches go back at once, as failed attempts if the lock lapsed and uncounted if it was given
// up. If next is not nil, the lock is in its hands in the same record, so nobody comes between. A lock never lapses before its
// batches, so DecideExpire, which knows the retry delay, comes before a lapse. The caller has checked that the lock is held.
func (m *Machine) DecideUnlock(now Time, next *Grant, lapsed bool) Effect {
	dst := make([]byte, 0, 64+16*len(m.batches))
	dst = putMillis(dst, now.ClockMillis)
	dst = put(dst, m.lock.grant.Token)
	dst = put(dst, uint64(len(m.batches)))
	how := giveBack{now: now, counted: lapsed}
	for _, b := range m.batches {
		reason := Released
		if lapsed {
			reason = Superseded
			if b.deadline <= now.ClockMillis {
				reason = Expired
			}
		}
		dst = m.appendEnded(dst, b, reason, how)
	}
	if next == nil {
		dst = put(dst, 0)
	} else {
		dst = appendGrant(dst, now, next)
	}
	return Effect{Kind: KindLock, Meta: dst}
}

func appendGrant(dst []byte, now Time, g *Grant) []byte {
	dst = put(dst, 1)
	dst = put(dst, g.Token)
	dst = putMillis(dst, g.TTLMillis)
	dst = putMillis(dst, plus(now.ClockMillis, g.TTLMillis))
	return putText(dst, g.Consumer)
}

func (m *Machine) applyLock(r *reader) error {
	clock := r.millis()
	ended := r.value()
	returned := *r // read once to check, and once more to apply
	if ended != 0 {
		if err := m.checkUnlock(r, ended); err != nil {
			return err
		}
	}
	granted := r.upTo(1) == 1
	var g Grant
	var deadline int64
	var consumer []byte
	if granted {
		g.Token, g.TTLMillis, deadline = r.value(), r.millis(), r.millis()
		consumer = r.text(NameBytesMax)
	}
	if err := r.done(); err != nil {
		return err
	}
	if granted {
		if err := m.checkGrant(&g, consumer, ended != 0); err != nil {
			return err
		}
	}
	if ended != 0 {
		m.endBatches(&returned, clock)
		m.lock = tenure{}
	}
	if granted {
		m.take(g, consumer, deadline)
	}
	return nil
}

// checkUnlock reads what becomes of the tenure's batches, which must be all that are open.
func (m *Machine) checkUnlock(r *reader, token uint64) error {
	if m.lock.grant.Token != token {
		return errNotHeld
	}
	n, err := m.checkEnded(r)
	if err != nil {
		return err
	}
	if n != len(m.batches) {
		return errBatchesLeft
	}
	return nil
}

func (m *Machine) checkGrant(g *Grant, consumer []byte, freed bool) error {
	renewal := !freed && m.lock.grant.Token == g.Token && g.Token != 0
	switch {
	case len(consumer) == 0:
		return errNoConsumer
	case renewal && m.lock.grant.Consumer != string(consumer):
		return errLockHeld
	case renewal:
		return nil
	case !freed && m.lock.grant.Token != 0:
		return errLockHeld
	case g.Token <= m.lastToken:
		return errTokenOld
	}
	return nil
}

func (m *Machine) take(g Grant, consumer []byte, deadline int64) {
	g.Consumer = m.lock.grant.Consumer
	if m.lock.grant.Token != g.Token {
		g.Consumer = string(consumer)
	}
	m.lock = tenure{grant: g, deadline: deadline}
	m.lastToken = g.Token
}

// renewedUntil is the lock's new deadline when its holder shows up now.
func (m *Machine) renewedUntil(now Time) int64 { return plus(now.ClockMillis, m.lock.grant.TTLMillis) }
