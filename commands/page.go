package commands

// Paging over the names of queues, for QLIST and SCAN. A cursor must survive queues that come and go between two pages, so
// it cannot be a position in the sorted list: one deletion would hide a queue that was there all the time. Instead each name
// has a fixed place, a hash of it, and a page is the names of the lowest places from the cursor on. The cursor is the place
// after the last one: a client's walk keeps no state here, and it stays a number that any client's SCAN can carry. The names in the order of their
// places are kept until queues come or go: 24 bytes a name.

import (
	"slices"
	"sort"
	"strconv"
	"strings"
)

// placeBits keeps places below 2^53, see integerMax.
const placeBits = 53

// place is a name's fixed place: FNV-1a, then mixed so that short names spread over all bits.
func place(name string) uint64 {
	h := uint64(14695981039346656037)
	for i := 0; i < len(name); i++ {
		h = (h ^ uint64(name[i])) * 1099511628211
	}
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	return h >> (64 - placeBits)
}

type placed struct {
	place uint64
	name  string
}

func byPlace(a, b placed) int {
	if a.place != b.place {
		if a.place < b.place {
			return -1
		}
		return 1
	}
	return strings.Compare(a.name, b.name)
}

// places are names in the order of their places.
type places []placed

func placesOf(names []string) places {
	list := make(places, len(names))
	for i, name := range names {
		list[i] = placed{place(name), name}
	}
	slices.SortFunc(list, byPlace)
	return list
}

// page returns about count names that match, from the cursor on, and the cursor of the next page, 0 if there is none.
// Names with the same place are never parted, since the cursor could not tell between them.
func (list places) page(cursor uint64, count int, pattern string) (next uint64, chosen []string) {
	from := sort.Search(len(list), func(i int) bool { return list[i].place >= cursor })
	var last uint64 // place of the last one chosen
	for _, p := range list[from:] {
		if pattern != "*" && !MatchPattern(pattern, p.name) {
			continue
		}
		if len(chosen) >= count && p.place != last {
			return last + 1, chosen
		}
		chosen, last = append(chosen, p.name), p.place
	}
	return 0, chosen
}

// listing keeps the places of a list of names that many pages are made of. The names are a slice that is never changed, so the
// same slice is the same names.
type listing struct {
	names  []string
	places places
}

func (l *listing) isOf(names []string) bool {
	return l != nil && len(names) > 0 && len(l.names) == len(names) && &l.names[0] == &names[0]
}

// page is one page of all queues.
func (c *Call) page(cursor uint64, count int, pattern string) (next uint64, chosen []string) {
	names := c.Env.Queues.NamesUnsorted()
	c.After(c.Env.Queues.NamesAfter())
	l := c.Env.listed.Load()
	if !l.isOf(names) {
		l = &listing{names, placesOf(names)}
		c.Env.listed.Store(l)
	}
	return l.places.page(cursor, count, pattern)
}

func writePage(c *Call, next uint64, names []string) {
	c.W.Array(2)
	c.W.BulkString(strconv.FormatUint(next, 10))
	stringArray(c.W, names)
}

// names lists all queues; the reply waits until it is durable that they are these.
func (c *Call) names() []string {
	names := c.Env.Queues.Names()
	c.After(c.Env.Queues.NamesAfter())
	return names
}
