package guard

// splitLine cuts an inline command into its arguments by Redis's rules: blanks separate, "double quotes" know \n \r \t
// \b \a and \xHH, 'single quotes' know \' alone, and a closing quote must be followed by a blank or the end. It is what
// a person types into telnet or nc. The arguments are fresh memory.
func splitLine(line []byte) ([][]byte, error) {
	var args [][]byte
	for {
		for len(line) > 0 && isBlank(line[0]) {
			line = line[1:]
		}
		if len(line) == 0 {
			return args, nil
		}
		arg, rest, err := splitOne(line)
		if err != nil {
			return nil, err
		}
		args = append(args, arg)
		line = rest
	}
}

// splitOne takes one argument from the front of a line that does not begin with a blank.
func splitOne(line []byte) (arg, rest []byte, err error) {
	arg = []byte{}
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case isBlank(c):
			return arg, line[i:], nil
		case c == '"' || c == '\'':
			arg, rest, err = splitQuoted(arg, line[i+1:], c)
			if err != nil || len(rest) == 0 || isBlank(rest[0]) {
				return arg, rest, err
			}
			return nil, nil, errQuotes
		default:
			arg = append(arg, c)
		}
	}
	return arg, nil, nil
}

// splitQuoted appends to arg what stands before the closing quote.
func splitQuoted(arg, line []byte, quote byte) (grown, rest []byte, err error) {
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case c == quote:
			return arg, line[i+1:], nil
		case c == '\\' && quote == '"' && i+3 < len(line) && line[i+1] == 'x' && isHex(line[i+2]) && isHex(line[i+3]):
			arg = append(arg, hexValue(line[i+2])<<4|hexValue(line[i+3]))
			i += 3
		case c == '\\' && quote == '"' && i+1 < len(line):
			i++
			arg = append(arg, unescape(line[i]))
		case c == '\\' && quote == '\'' && i+1 < len(line) && line[i+1] == '\'':
			i++
			arg = append(arg, '\'')
		default:
			arg = append(arg, c)
		}
	}
	return nil, nil, errQuotes
}

func unescape(c byte) byte {
	switch c {
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	case 'b':
		return '\b'
	case 'a':
		return '\a'
	}
	return c
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

func hexValue(c byte) byte {
	switch {
	case c >= 'a':
		return c - 'a' + 10
	case c >= 'A':
		return c - 'A' + 10
	}
	return c - '0'
}

// isBlank is C's isspace, and the zero byte, which ends a line for Redis.
func isBlank(c byte) bool {
	return c == ' ' || c >= '\t' && c <= '\r' || c == 0
}

func blank(line []byte) bool {
	for _, c := range line {
		if !isBlank(c) {
			return false
		}
	}
	return true
}
