package server

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"quail/queue"
)

// roundQueues are fakeQueues whose commits can be held, so that connections are served by a loop.
type roundQueues struct{ *fakeQueues }

func (roundQueues) Hold() queue.Held { return queue.Held{} }
func (roundQueues) HasRoom() bool    { return true }
func (roundQueues) Idle()            {}
