package commands

import (
	"fmt"
	"slices"
	"testing"
)

func someNames(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("queue-%d", i)
	}
	return names
}

func TestPagesNameEveryQueueOnce(t *testing.T) {
	names := someNames(1000)
	slices.Sort(names)
	for _, count := range []int{1, 7, 100, 999, 1000, 5000} {
		var all []string
		pages := 0
		for cursor := uint64(0); ; pages++ {
			next, chosen := placesOf(names).page(cursor, count, "*")
			if len(chosen) > count || next != 0 && len(chosen) < count {
				t.Fatalf("count %d: a page of %d", count, len(chosen))
			}
			all = append(all, chosen...)
			if next == 0 {
				break
			}
			if next <= cursor || next > integerMax {
				t.Fatalf("cursor %d after %d", next, cursor)
			}
			cursor = next
		}
		slices.Sort(all)
		if !slices.Equal(all, names) {
			t.Errorf("count %d: %d names in %d pages", count, len(all), pages)
		}
	}
}

// Without this a backup script would miss queues because others were deleted while it ran.
func TestPagesSurviveChanges(t *testing.T) {
	names := someNames(600)
	stays := names[:200]
	var all []string
	for cursor, round := uint64(0), 0; ; round++ {
		present := append(slices.Clone(stays), names[200+round*5:]...) // five fewer at each page
		next, chosen := placesOf(present).page(cursor, 10, "*")
		all = append(all, chosen...)
		if next == 0 {
			break
		}
		cursor = next
	}
	for _, name := range stays {
		if n := len(slices.DeleteFunc(slices.Clone(all), func(s string) bool { return s != name })); n != 1 {
			t.Errorf("%s was named %d times", name, n)
		}
	}
}

func TestPageWithPattern(t *testing.T) {
	next, chosen := placesOf(someNames(1000)).page(0, 10, "queue-99?")
	if next != 0 || len(chosen) != 10 {
		t.Errorf("next %d, %v", next, chosen)
	}
	if next, chosen := placesOf(nil).page(0, 10, "*"); next != 0 || len(chosen) != 0 {
		t.Errorf("no queues: next %d, %v", next, chosen)
	}
	if next, chosen := placesOf(someNames(5)).page(integerMax, 10, "*"); next != 0 || len(chosen) != 0 {
		t.Errorf("beyond the end: next %d, %v", next, chosen)
	}
}

// Names of one place must not be parted: the cursor cannot tell between them, and the rest would be lost.
func TestPageKeepsTies(t *testing.T) {
	list := places{{1, "a"}, {2, "b"}, {2, "c"}, {2, "x"}, {3, "d"}}
	if next, chosen := list.page(0, 2, "*"); next != 3 || !slices.Equal(chosen, []string{"a", "b", "c", "x"}) {
		t.Errorf("kept %v, next %d", chosen, next)
	}
	if next, chosen := list.page(0, 2, "[abcx]"); next != 0 || !slices.Equal(chosen, []string{"a", "b", "c", "x"}) {
		t.Errorf("kept %v, next %d: nothing that matches follows", chosen, next)
	}
	if next, chosen := list.page(3, 2, "*"); next != 0 || !slices.Equal(chosen, []string{"d"}) {
		t.Errorf("the last page: %v, next %d", chosen, next)
	}
}
