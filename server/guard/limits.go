// Package guard stands between a client's bytes and redcon. It finds where commands end, refuses what breaks the
// protocol or a limit, and hands on nothing but whole, checked commands.
//
// redcon alone trusts a declared length: one packet with a huge one panics the process before AUTH, a command that
// arrives byte by byte recurses until the stack is gone, and a line without an end is kept for ever. Behind the guard
// none of that can reach it. The package does no IO and starts no goroutine: bytes in, commands out.
package guard

// Limits are what one client may send. All of them are checked before memory is spent on the bytes they speak of.
type Limits struct {
	// ArgsMax is how many arguments a command may have, its name included.
	ArgsMax int
	// BulkBytesMax is how long one argument may be.
	BulkBytesMax int
	// CommandBytesMax is how long a whole command may be on the wire: without it, ArgsMax arguments of BulkBytesMax
	// bytes each would be one legal command.
	CommandBytesMax int
	// Stranger says that the client has not authenticated and must: StrangerArgsMax and StrangerBulkBytesMax hold too.
	Stranger bool
}

const (
	// StrangerArgsMax and StrangerBulkBytesMax bound a command of a client that has yet to authenticate, as in Redis:
	// enough for HELLO with AUTH and SETNAME, too little to fill the memory from thousands of connections.
	StrangerArgsMax      = 10
	StrangerBulkBytesMax = 16 << 10

	// LineBytesMax bounds an inline command and a line that states a length, as in Redis.
	LineBytesMax = 64 << 10

	// BigBytes is from where on a command goes round redcon's buffers (see Run): redcon would copy it twice and keep a
	// buffer of double its length for as long as the client stays connected.
	BigBytes = 16 << 10

	// runBytesMax ends a run of commands: redcon's own buffers have this size, a longer run makes them grow.
	runBytesMax = 4 << 10
)

// ProtocolError is a breach of the protocol, in Redis's wording. Nothing after it can be understood, so it ends the
// connection once what came before it has been answered.
type ProtocolError struct {
	Message string
	// Setting is the limit that the client was about to pass, or empty; Declared is how much it said would come, Limit how much may.
	Setting         string
	Declared, Limit int64
}

func (e *ProtocolError) Error() string { return "Protocol error: " + e.Message }

var (
	errArgs          = &ProtocolError{Message: "invalid multibulk length"}
	errArgsStranger  = &ProtocolError{Message: "unauthenticated multibulk length"}
	errArgsLine      = &ProtocolError{Message: "too big mbulk count string"}
	errBulk          = &ProtocolError{Message: "invalid bulk length"}
	errBulkStranger  = &ProtocolError{Message: "unauthenticated bulk length"}
	errBulkLine      = &ProtocolError{Message: "too big bulk count string"}
	errInlineTooLong = &ProtocolError{Message: "too big inline request"}
	errQuotes        = &ProtocolError{Message: "unbalanced quotes in request"}
)

// The errors of a client that would pass a setting; whoever runs the server may want to know.

func errTooManyArgs(count int64, most int) *ProtocolError {
	return &ProtocolError{Message: errArgs.Message, Setting: "max-args", Declared: count, Limit: int64(most)}
}

func errTooLongBulk(size int64, most int) *ProtocolError {
	return &ProtocolError{Message: errBulk.Message, Setting: "max-bulk-bytes", Declared: size, Limit: int64(most)}
}

func errCommandBytes(size int64, most int) *ProtocolError {
	return &ProtocolError{Message: "command longer than query-buffer-bytes", Setting: "query-buffer-bytes", Declared: size, Limit: int64(most)}
}

func errNoDollar(got byte) *ProtocolError {
	return &ProtocolError{Message: "expected '$', got '" + string([]byte{got}) + "'"}
}

// CrossProtocolError says that the client speaks HTTP: a web page made a browser send commands in a request's body.
// Redis closes such a connection without an answer, and so does Quail.
type CrossProtocolError struct{ Command string }

func (e *CrossProtocolError) Error() string {
	return "possible cross-protocol attack: the client sent " + e.Command
}
