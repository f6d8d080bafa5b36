// Package reference is a second parser of what clients send, for tests: written to be read and not to be fast, it sees the whole input at
// once and restarts nothing. The fuzz tests compare the guard, and the server, with it.
package reference

import (
	"strconv"
	"strings"
)

// CrossProtocol is Parse's failure for POST and Host:.
const CrossProtocol = "cross-protocol"

// Limits are the guard's, and its LineBytesMax.
type Limits struct {
	ArgsMax, BulkBytesMax, CommandBytesMax, LineBytesMax int
	Stranger                                             bool
}

// Parse gives all commands of the input and the error behind them, empty if the input just ends.
func Parse(input []byte, limits Limits) (commands [][]string, failure string) {
	rest := string(input)
	for rest != "" {
		var args []string
		var ok bool
		if rest[0] == '*' {
			args, rest, ok, failure = array(rest, limits)
		} else {
			args, rest, ok, failure = line(rest, limits)
		}
		if failure != "" || !ok {
			return commands, failure
		}
		if len(args) == 0 {
			continue
		}
		if name := strings.ToUpper(args[0]); name == "POST" || name == "HOST:" {
			return commands, CrossProtocol
		}
		commands = append(commands, args)
	}
	return commands, ""
}

func line(rest string, limits Limits) (args []string, after string, ok bool, failure string) {
	end := strings.IndexByte(rest, '\n')
	if end > limits.LineBytesMax || end < 0 && len(rest) > limits.LineBytesMax {
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

func array(rest string, limits Limits) (args []string, after string, ok bool, failure string) {
	whole := rest
	count, rest, ok, failure := number(rest, limits, "invalid multibulk length", "too big mbulk count string")
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
		size, behind, ok, failure := number(rest, limits, "invalid bulk length", "too big bulk count string")
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

func number(rest string, limits Limits, broken, tooLong string) (n int, after string, ok bool, failure string) {
	end := strings.IndexByte(rest, '\r')
	switch {
	case end > limits.LineBytesMax || end < 0 && len(rest) > limits.LineBytesMax:
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
