package bench

import (
	"strings"
	"testing"
)

func TestTable(t *testing.T) {
	r := &Report{Facts: []Fact{{"machine", "2 cores"}}}
	for _, s := range []*Scenario{Scenarios[0], Scenarios[4]} {
		for _, server := range []string{"Quail", "Redis"} {
			r.Results = append(r.Results, &Result{Scenario: s, Server: server})
		}
	}
	// In one round the machine was busy: the ratio is not to show it.
	for i, rates := range [][2]float64{{50000, 40000}, {1234567.4, 1000000}, {500, 400}} {
		r.Results[0].add(Turn{Rate: rates[0], P50: 0.5, P99: 1, P999: 2, ServerCPU: 12.345, GeneratorShare: 0.4})
		r.Results[1].add(Turn{Rate: rates[1], P50: 0.25, P99: 1, P999: float64(i)})
	}
	r.Results[2].add(Turn{Rate: 2000, P99: 1})
	r.Results[3].add(Turn{Rate: 2000, P99: 4})
	var text strings.Builder
	if err := r.WriteTable(&text); err != nil {
		t.Fatal(err)
	}
	want := `- machine: 2 cores

| scenario                                          | server | messages/s | Quail : Redis | p50 ms | p99 ms | p99.9 ms | server CPU s/million | generator CPU |
|---------------------------------------------------|--------|-----------:|--------------:|-------:|-------:|---------:|---------------------:|--------------:|
| S1 50 connections, one push a call                | Quail  |     50,000 |          1.25 |   0.50 |   1.00 |     2.00 |                12.35 |          40 % |
| S1 50 connections, one push a call                | Redis  |     40,000 |               |   0.25 |   1.00 |     1.00 |              unknown |           0 % |
| S5 push to delivery, 10 producers, 2,000/s in all | Quail  |      2,000 |    0.25 (p99) |   0.00 |   1.00 |     0.00 |              unknown |           0 % |
| S5 push to delivery, 10 producers, 2,000/s in all | Redis  |      2,000 |               |   0.00 |   4.00 |     0.00 |              unknown |           0 % |
`
	if text.String() != want {
		t.Errorf("got\n%s\nwant\n%s", text.String(), want)
	}
}

func TestNumbers(t *testing.T) {
	for n, want := range map[float64]string{0: "0", 999: "999", 1000: "1,000", 999999.6: "1,000,000", 12345678: "12,345,678"} {
		if got := thousands(n); got != want {
			t.Errorf("%v: %s, not %s", n, got, want)
		}
	}
	if median(nil) != 0 || median([]float64{3, 1, 2}) != 2 || median([]float64{4, 1, 2, 3}) != 2.5 {
		t.Error("the median is wrong")
	}
}

func TestCheckNamesWhatDoesNotFit(t *testing.T) {
	good := Config{Quail: Server{Address: "127.0.0.1:1"}, Rounds: 5, Seconds: 3, BodyBytes: 100}
	if err := good.Check(); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*Config){
		"rounds: got 0; allowed is 1 to 100":         func(c *Config) { c.Rounds = 0 },
		"seconds: got 601; allowed is 1 to 600":      func(c *Config) { c.Seconds = 601 },
		"messages: got -1; allowed is 0 to 10000000": func(c *Config) { c.Messages = -1 },
		"body-bytes: got 15; allowed is 16 to 65536": func(c *Config) { c.BodyBytes = 15 },
		`scenarios: got "S99"; allowed are S1 to S7`: func(c *Config) { c.Scenarios = []string{"s2", "S99"} },
		"there is no server to measure":              func(c *Config) { c.Quail = Server{} },
	} {
		c := good
		change(&c)
		if err := c.Check(); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	list, err := chosen([]string{"S6", "s2"})
	if err != nil || len(list) != 2 || list[0].Name != "S2" || list[1].Name != "S6" {
		t.Errorf("%v, %v", list, err)
	}
}

// Quail answers much that Redis does: two addresses given the wrong way round would give figures, and the wrong ones.
func TestServersAreNotMixedUp(t *testing.T) {
	ofQuail := map[string]string{"redis_version": "7.4.0", "quail_version": "0.1.0"}
	ofRedis := map[string]string{"redis_version": "7.0.15"}
	for _, c := range []struct {
		dialect dialect
		fields  map[string]string
		want    string
	}{{quail{}, ofQuail, "0.1.0"}, {redis{}, ofRedis, "7.0.15"}, {quail{}, ofRedis, ""}, {redis{}, ofQuail, ""}, {redis{}, nil, ""}} {
		got, err := versionOf(c.dialect, c.fields)
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s at %v: %q, %v", c.dialect.name(), c.fields, got, err)
		}
	}
}

func TestCPUFromInfo(t *testing.T) {
	if got := infoCPU(map[string]string{"used_cpu_user": "1.5", "used_cpu_sys": "0.25", "used_cpu_sys_children": "1"}); !got.known || got.used.Seconds() != 2.75 {
		t.Errorf("%+v", got)
	}
	if infoCPU(map[string]string{"redis_version": "7"}).known {
		t.Error("what is not told is taken for known")
	}
}
