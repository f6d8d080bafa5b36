package machine

// The deduplication window: which ids were pushed lately, and as which message.
//
// A map finds an id; a queue in push order lets go of those whose time is over, whenever another one comes. Until when an id is remembered
// stands in its message's record, so a change of the option holds from the next push on and replay gives the same window.

import (
	"errors"
	"slices"
)

var errDuplicate = errors.New("its deduplication id is that of a message pushed before")

type dedupWindow struct {
	byID  map[string]remembered
	order []dedupKey // in push order, from first on; an entry that its id has left behind is passed by
	first int
}

type remembered struct {
	message uint64
	until   int64 // unix milliseconds: from then on it is forgotten
}

type dedupKey struct {
	id string
	remembered
}

// remember adds the id of the message with this LSN. Nothing changes if it returns an error.
func (d *dedupWindow) remember(lsn uint64, msg *Message) error {
	if known, ok := d.byID[string(msg.Dedup)]; ok && known.until > msg.PushedMillis {
		return errDuplicate
	}
	d.forget(msg.PushedMillis)
	d.add(string(msg.Dedup), remembered{message: lsn, until: msg.DedupUntilMillis})
	return nil
}

func (d *dedupWindow) add(id string, r remembered) {
	if d.byID == nil {
		d.byID = map[string]remembered{}
	}
	d.byID[id] = r
	d.order = append(d.order, dedupKey{id, r})
}

// forget drops the oldest ids as far as their time is over.
func (d *dedupWindow) forget(wallMillis int64) {
	for d.first < len(d.order) {
		k := d.order[d.first]
		if known := d.byID[k.id]; known.message == k.message {
			if known.until > wallMillis {
				break
			}
			delete(d.byID, k.id)
		}
		d.order[d.first] = dedupKey{}
		d.first++
	}
	switch {
	case d.first == len(d.order):
		*d = dedupWindow{}
	case d.first > len(d.order)/2:
		d.order = append([]dedupKey(nil), d.order[d.first:]...)
		d.first = 0
	}
}

// live returns a copy of the remembered ids in push order, made without looking each of them up if none was left behind.
func (d *dedupWindow) live() []dedupKey {
	list := slices.Clone(d.order[d.first:])
	if len(list) == len(d.byID) {
		return list
	}
	return slices.DeleteFunc(list, func(k dedupKey) bool { return d.byID[k.id].message != k.message })
}

// Duplicate returns the message that was pushed with this deduplication id, if that is still remembered.
func (m *Machine) Duplicate(now Time, dedup []byte) (id uint64, ok bool) {
	known, ok := m.dedup.byID[string(dedup)]
	if !ok || known.until <= now.WallMillis {
		return 0, false
	}
	return known.message, true
}

// DedupCount is how many deduplication ids are kept, some maybe past their time: ids are let go when another one comes.
func (m *Machine) DedupCount() int { return len(m.dedup.byID) }

// CountDuplicate counts a push that added nothing. It makes no record, so the count begins at 0 with each start.
func (m *Machine) CountDuplicate() { m.duplicates++ }

// DedupLive is how many deduplication ids cost memory now, if those are let go that can be: all from the first remembered one on in
// push order. After the window was made shorter, ids whose time is over count as long as an earlier one is remembered. It looks
// at those that are not let go yet.
func (m *Machine) DedupLive(now Time) int {
	n := len(m.dedup.byID)
	for _, k := range m.dedup.order[m.dedup.first:] {
		known, ok := m.dedup.byID[k.id]
		if !ok || known.message != k.message {
			continue
		}
		if known.until > now.WallMillis {
			break
		}
		n--
	}
	return n
}
