package bench

// A connection for what is not measured: making and deleting, INFO, PING.

import (
	"crypto/tls"
	"fmt"
	"net"
	"syscall"
	"time"
)

// askTime bounds a question outside of the measurement. Deleting a thousand queues is one.
const askTime = 60 * time.Second

type client struct {
	conn net.Conn
	in   replies
}

// dialTime bounds connecting, the handshake of TLS included.
const dialTime = 10 * time.Second

// dial connects, with TLS if secure is not nil.
func dial(address, user, password string, secure *tls.Config) (*client, error) {
	conn, err := net.DialTimeout("tcp", address, dialTime)
	if err != nil {
		return nil, err
	}
	if secure != nil {
		conn.SetDeadline(time.Now().Add(dialTime))
		over := tls.Client(conn, secure)
		if err := over.Handshake(); err != nil {
			conn.Close()
			return nil, fmt.Errorf("handshake: %w", err)
		}
		conn = over
	}
	c := &client{conn: conn}
	if password != "" {
		words := []string{"AUTH", password}
		if user != "" {
			words = []string{"AUTH", user, password}
		}
		if _, err := c.ask(words...); err != nil {
			conn.Close()
			return nil, err
		}
	}
	return c, nil
}

func (c *client) close() { c.conn.Close() }

// ask sends one command and returns its reply, an error if the server says one.
func (c *client) ask(args ...string) ([]byte, error) {
	raw, err := c.exchange(appendCommand(nil, args...))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", args[0], err)
	}
	return raw, nil
}

// exchange sends one encoded command.
func (c *client) exchange(command []byte) ([]byte, error) {
	if err := c.conn.SetDeadline(time.Now().Add(askTime)); err != nil {
		return nil, err
	}
	if _, err := c.conn.Write(command); err != nil {
		return nil, err
	}
	return c.receive()
}

func (c *client) receive() ([]byte, error) {
	for {
		raw, err := c.in.next()
		if err != nil {
			return nil, err
		}
		if raw != nil && raw[0] == '-' {
			return nil, fmt.Errorf("the server refused: %.300s", raw[1:len(raw)-2])
		}
		if raw != nil {
			return raw, nil
		}
		n, err := c.conn.Read(c.in.room())
		if err != nil {
			return nil, err
		}
		c.in.filled(n)
	}
}

// detach gives the connection's descriptor to the caller; the client is of no use any more.
func (c *client) detach() (int, error) {
	if over, is := c.conn.(*tls.Conn); is {
		return relay(over)
	}
	defer c.conn.Close()
	conn, ok := c.conn.(syscall.Conn)
	if !ok {
		return -1, fmt.Errorf("%T has no descriptor", c.conn)
	}
	return takeFD(conn)
}
