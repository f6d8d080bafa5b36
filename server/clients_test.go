package server

import (
	"context"
	"testing"

	"github.com/gomodule/redigo/redis"
	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/rueidis"
)

// Client libraries as people use them, with a password: their first words, a pipeline, a pull that waits.

func TestGoRedis(t *testing.T) {
	for _, protocol := range []int{2, 3} {
		s := start(t, "requirepass=secret")
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		c := goredis.NewClient(&goredis.Options{Addr: s.ln.Addr().String(), Password: "secret", Protocol: protocol, ClientName: "tester"})
		defer c.Close()
		pipe := c.Pipeline()
		for range 1000 {
			pipe.Do(ctx, "QPUSH", "q", "x")
		}
		replies, err := pipe.Exec(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for i, one := range replies {
			if id, err := one.(*goredis.Cmd).Int(); err != nil || id != i+1 {
				t.Fatalf("reply %d: %d, %v", i, id, err)
			}
		}
		s.queues.mu.Lock()
		s.queues.messages = nil
		s.queues.mu.Unlock()
		go func() {
			s.waitBlocked(t, 1)
			c.Do(ctx, "QPUSH", "q", "late")
		}()
		batch, err := c.Do(ctx, "QCONSUME", "q", "me", "BLOCK", 0).Slice()
		if err != nil || len(batch) != 3 {
			t.Fatalf("got %v, %v", batch, err)
		}
		if name := (admin{s.Server}).Clients()[0].Name; name != "tester" {
			t.Errorf("the client's name is %q", name)
		}
	}
}

func TestRedigo(t *testing.T) {
	s := start(t, "requirepass=secret")
	c, err := redis.Dial("tcp", s.ln.Addr().String(), redis.DialPassword("secret"), redis.DialDatabase(0), redis.DialClientName("tester"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 10 {
		c.Send("QPUSH", "q", "x")
	}
	replies, err := redis.Ints(c.Do(""))
	if err != nil || len(replies) != 10 || replies[9] != 10 {
		t.Fatalf("got %v, %v", replies, err)
	}
}

func TestRueidis(t *testing.T) {
	s := start(t, "requirepass=secret")
	c, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{s.ln.Addr().String()}, Password: "secret", DisableCache: true, ForceSingleClient: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for i := range 10 {
		if id, err := c.Do(ctx, c.B().Arbitrary("QPUSH").Keys("q").Args("x").Build()).AsInt64(); err != nil || id != int64(i+1) {
			t.Fatalf("got %d, %v", id, err)
		}
	}
}
