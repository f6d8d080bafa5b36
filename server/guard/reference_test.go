package guard

import (
	"bytes"
	"strconv"
	"strings"
)

// A second parser, written to be read and not to be fast: it sees the whole input at once and restarts nothing. The
// fuzz tests compare the Scanner with it.

// reference gives all commands of the input and the error behind them, empty if the input just ends.
func reference(input []byte, limits Limits) (commands [][]string, failure string) {
	rest := string(input)
	for rest != "" {
		var args []string
		var ok bool
		if rest[0] == '*' {
			args, rest, ok, failure = referenceArray(rest, limits)
		} else {
			args, rest, ok, failure = referenceLine(rest)
		}
		if failure != "" || !ok {
			return commands, failure
		}
		if len(args) == 0 {
			continue
		}
		if name := strings.ToUpper(args[0]); name == "POST" || name == "HOST:" {
			return commands, "cross-protocol"
		}
		commands = append(commands, args)
	}
	return commands, ""
}

func referenceLine(rest string) (args []string, after string, ok bool, failure string) {
	end := strings.IndexByte(rest, '\n')
	if end > LineBytesMax || end < 0 && len(rest) > LineBytesMax {
		return nil, "", false, "too big inline request"
	}
	if end < 0 {
		return nil, "", false, ""
	}
	line, after := rest[:end], rest[end+1:]
	i := 0
	space := func() bool { return strings.IndexByte(" \t\n\v\f\r\x00", line[i]) >= 0 }
	for {
		for i < len(line) && space() {
			i++
		}
		if i == len(line) {
			return args, after, true, ""
		}
		var arg []byte
		for i < len(line) && !space() {
			quote := line[i]
			if quote != '"' && quote != '\'' {
				arg = append(arg, line[i])
				i++
				continue
			}
			i++
			for {
				if i == len(line) {
					return nil, "", false, "unbalanced quotes in request"
				}
				if line[i] == quote {
					i++
					break
				}
				if line[i] == '\\' && i+1 < len(line) && (quote == '"' || line[i+1] == '\'') {
					if quote == '"' && line[i+1] == 'x' && i+3 < len(line) {
						if v, err := strconv.ParseUint(line[i+2:i+4], 16, 8); err == nil && line[i+2] != '+' && line[i+2] != '_' && line[i+3] != '_' {
							arg = append(arg, byte(v))
							i += 4
							continue
						}
					}
					c := line[i+1]
					if at := strings.IndexByte("nrtba", c); quote == '"' && at >= 0 {
						c = "\n\r\t\b\a"[at]
					}
					arg = append(arg, c)
					i += 2
					continue
				}
				arg = append(arg, line[i])
				i++
			}
			if i < len(line) && !space() {
				return nil, "", false, "unbalanced quotes in request"
			}
		}
		args = append(args, string(arg))
	}
}

func referenceArray(rest string, limits Limits) (args []string, after string, ok bool, failure string) {
	whole := rest
	count, rest, ok, failure := referenceNumber(rest, "invalid multibulk length", "too big mbulk count string")
	if failure != "" || !ok {
		return nil, "", false, failure
	}
	switch {
	case count > 1<<31-1 || !limits.Stranger && count > limits.ArgsMax:
		return nil, "", false, "invalid multibulk length"
	case limits.Stranger && count > 10:
		return nil, "", false, "unauthenticated multibulk length"
	}
	for range count {
		if rest == "" {
			return nil, "", false, ""
		}
		if rest[0] != '$' {
			return nil, "", false, "expected '$', got '" + rest[:1] + "'"
		}
		size, behind, ok, failure := referenceNumber(rest, "invalid bulk length", "too big bulk count string")
		if failure != "" || !ok {
			return nil, "", false, failure
		}
		switch {
		case size < 0 || size > limits.BulkBytesMax:
			return nil, "", false, "invalid bulk length"
		case limits.Stranger && size > 16384:
			return nil, "", false, "unauthenticated bulk length"
		case len(whole)-len(behind)+size+2 > limits.CommandBytesMax:
			return nil, "", false, "command longer than query-buffer-bytes"
		case len(behind) < size+2:
			return nil, "", false, ""
		case behind[size:size+2] != "\r\n":
			return nil, "", false, "invalid bulk length"
		}
		args = append(args, behind[:size])
		rest = behind[size+2:]
	}
	return args, rest, true, ""
}

func referenceNumber(rest, broken, tooLong string) (n int, after string, ok bool, failure string) {
	end := strings.IndexByte(rest, '\r')
	switch {
	case end > LineBytesMax || end < 0 && len(rest) > LineBytesMax:
		return 0, "", false, tooLong
	case end < 0 || end+1 == len(rest):
		return 0, "", false, ""
	case rest[end+1] != '\n':
		return 0, "", false, broken
	}
	n, err := strconv.Atoi(rest[1:end])
	if err != nil || strconv.Itoa(n) != rest[1:end] || n >= 1e18 || n <= -1e18 {
		return 0, "", false, broken
	}
	return n, rest[end+2:], true, ""
}

// encode is a command as a client library sends it.
func encode(args ...string) []byte {
	var b bytes.Buffer
	b.WriteString("*" + strconv.Itoa(len(args)) + "\r\n")
	for _, arg := range args {
		b.WriteString("$" + strconv.Itoa(len(arg)) + "\r\n" + arg + "\r\n")
	}
	return b.Bytes()
}
