// Package poll serves many sockets from few goroutines.
//
// Go's own poller wakes a goroutine for every packet, and a server whose clients wait for each reply does little else then. A Loop
// watches its sockets with one epoll instance: it asks once which of them have input, serves each where it stands, and only then ends
// the round, so that everything the round committed shares one sync, and each reply leaves in the same pass.
//
//	epoll_wait ─▶ Begin ─▶ serve each readable socket ─▶ End (commit, write replies) ─▶ epoll_wait …
//
// A Conn still is a net.Conn with a goroutine of its own, for all that takes long: commands that block, slow readers, the end.
// While that goroutine waits in Wait, the Loop calls the function given to Serve in its place; that function either does all there
// is to do, or says that the goroutine must.
package poll

import (
	"errors"
	"time"
)

// Config is what a Loop calls. All may be nil; none may block for long: every socket of the Loop waits meanwhile.
type Config struct {
	// Begin is called before the sockets of a round are served, End after them.
	Begin, End func()
	// Idle is called once when nothing has come for IdleAfter since the last round.
	Idle      func()
	IdleAfter time.Duration
}

// ErrUnsupported is returned by Start where there is no epoll. Connections then use Go's own poller.
var ErrUnsupported = errors.New("no epoll on this system")
