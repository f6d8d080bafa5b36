package main

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"quail/server/settings"
	"quail/wal"
)

// Without this an operator has a number where the queue's name would help, or a queue's name writes what looks like another field.
func TestLogLinesNameTheQueue(t *testing.T) {
	const hostile = `a"error="all-is-well"incarnation=9` + "\u2066x"
	for _, format := range []string{"console", "json"} {
		values, err := settings.New([][2]string{{"log-format", format}})
		if err != nil {
			t.Fatal(err)
		}
		for _, queue := range []string{"orders", hostile} {
			var out strings.Builder
			events := storeEvents(newLog(values, &out))
			name := wal.LogName{Queue: queue, Incarnation: 18}
			events.LogFailed(name, errors.New("EIO"))
			events.LogReopened(wal.LogReopened{LogName: name, Records: 3})
			events.RewriteFailed(name, errors.New("EIO"))
			lines := strings.Split(strings.TrimSpace(out.String()), "\n")
			if len(lines) != 3 {
				t.Fatalf("%d lines:\n%s", len(lines), out.String())
			}
			for _, line := range lines {
				checkNamed(t, format, line, queue)
			}
		}
	}
}

func checkNamed(t *testing.T, format, line, queue string) {
	t.Helper()
	if format == "json" {
		var fields struct {
			Queue       string
			Incarnation int
		}
		if err := json.Unmarshal([]byte(line), &fields); err != nil || fields.Queue != queue || fields.Incarnation != 18 {
			t.Errorf("%s: %+v, %v", line, fields, err)
		}
		return
	}
	want := " queue=orders"
	if queue != "orders" {
		want = ` queue="a\"error=\"all-is-well\"incarnation=9\u2066x"`
	}
	if !strings.Contains(line, want) {
		t.Errorf("%s: %s is not in it", line, want)
	}
}
