package commands

// Paging over the names of queues, for QLIST and SCAN. A cursor must survive queues that come and go between two pages, so
// it cannot be a position in the sorted list: one deletion would hide a queue that was there all the time. Instead each name
// has a fixed place, a hash of it, and a page is the names of the lowest places from the cursor on. The cursor is the place
// after the last one: no state is kept, and it stays a number that any client's SCAN can carry.

import (
	"slices"
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

// page returns about count names that match, from the cursor on, and the cursor of the next page, 0 if there is none.
// It keeps at most twice the count in memory. Names with the same place are never parted, since the cursor could not tell
// between them.
func page(names []string, cursor uint64, count int, pattern string) (next uint64, chosen []string) {
	var lowest []placed
	beyond, limit := false, uint64(1<<placeBits)
	for _, name := range names {
		at := place(name)
		if at < cursor || pattern != "*" && !MatchPattern(pattern, name) {
			continue
		}
		if at >= limit {
			beyond = true
			continue
		}
		lowest = append(lowest, placed{at, name})
		if len(lowest) > 2*count {
			kept := cutPage(lowest, count)
			if len(kept) < len(lowest) {
				beyond, limit = true, kept[len(kept)-1].place+1
			}
			lowest = kept
		}
	}
	kept := cutPage(lowest, count)
	beyond = beyond || len(kept) < len(lowest)
	for _, p := range kept {
		chosen = append(chosen, p.name)
	}
	if beyond {
		next = kept[len(kept)-1].place + 1
	}
	return next, chosen
}

// cutPage sorts and keeps count entries, and those of the same place as the last one.
func cutPage(list []placed, count int) []placed {
	slices.SortFunc(list, byPlace)
	if len(list) <= count {
		return list
	}
	end := count
	for end < len(list) && list[end].place == list[count-1].place {
		end++
	}
	return list[:end]
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
