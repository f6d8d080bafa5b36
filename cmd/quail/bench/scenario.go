package bench

// The scenarios, as data. What they do to a server is in run.go, and how it is said to either server in quail.go and
// redis.go.

import (
	"fmt"
	"slices"
	"strings"
)

// kind is what is timed.
type kind int

const (
	pushing    kind = iota // calls that push, from the write to the last reply
	consuming              // turns of a consumer through a backlog, from the write to the batch
	delivering             // the way of a message at a steady rate, from the push to the batch that has it
)

// Scenario is one kind of load.
type Scenario struct {
	Name  string `json:"name"`
	Title string `json:"title"`

	kind        kind
	connections int // that push
	pipeline    int // commands a call
	batch       int // messages a command of Quail's; as many commands of Redis's, which has none for several
	queues      int
	body        int // bytes; 0 = as Config says
}

// Scenarios are all there are.
var Scenarios = []*Scenario{
	{Name: "S1", Title: "50 connections, one push a call", connections: 50, pipeline: 1, batch: 1, queues: 1},
	{Name: "S2", Title: "50 connections, 16 pushes a call", connections: 50, pipeline: 16, batch: 1, queues: 1},
	{Name: "S3", Title: "1 connection, batches of 100", connections: 1, pipeline: 1, batch: 100, queues: 1},
	{Name: "S4", Title: "consume and acknowledge a backlog, batches of 100", kind: consuming, connections: 1, pipeline: 4, batch: 100, queues: 1},
	{Name: "S5", Title: "push to delivery, 10 producers, 2,000/s in all", kind: delivering, connections: 10, pipeline: 1, batch: 1, queues: 1},
	{Name: "S6", Title: "50 connections, one push a call, 1,000 queues", connections: 50, pipeline: 1, batch: 1, queues: 1000},
	{Name: "S7", Title: "1 connection, batches of 100, 1 KB bodies", connections: 1, pipeline: 1, batch: 100, queues: 1, body: 1024},
}

const (
	pullCount         = 100     // messages a pull asks for
	backlogPerSecond  = 100_000 // messages that a consumer's backlog has for each second that other scenarios last
	deliverPerSecond  = 2000    // pushes at a steady rate
	deliverSecondsMax = 60      // however many messages are asked for
	pullBlockMillis   = 1000    // how long a pull waits for a message at a steady rate
)

// chosen are the scenarios with these names, in the table's order; all if there are none.
func chosen(names []string) ([]*Scenario, error) {
	if len(names) == 0 {
		return Scenarios, nil
	}
	var list []*Scenario
	for _, s := range Scenarios {
		if slices.ContainsFunc(names, func(name string) bool { return strings.EqualFold(name, s.Name) }) {
			list = append(list, s)
		}
	}
	for _, name := range names {
		if !slices.ContainsFunc(list, func(s *Scenario) bool { return strings.EqualFold(name, s.Name) }) {
			return nil, fmt.Errorf("scenarios: got %q; allowed are S1 to S%d", name, len(Scenarios))
		}
	}
	return list, nil
}

// queueNames begin with the name of the turn, which no other run has: in a server that ran before nothing else is
// touched.
func (s *Scenario) queueNames(turn string) []string {
	names := make([]string, s.queues)
	for i := range names {
		names[i] = fmt.Sprintf("%s-%d", turn, i)
	}
	return names
}

func (s *Scenario) bodyBytes(otherwise int) int {
	if s.body != 0 {
		return s.body
	}
	return otherwise
}
