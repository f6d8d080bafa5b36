package commands

import "strconv"

// MatchPattern reports whether name matches a glob pattern as Redis has them: * any bytes, ? one byte, [a-z] and [^a-z] one
// of a class, \ takes the next byte literally. It is linear in one star and at worst quadratic in all: only the last star
// is ever tried again, so no pattern can make it slow.
func MatchPattern(pattern, name string) bool {
	p, n := 0, 0
	star, resume := -1, 0 // the last star, and where in name the text after it was tried last
	for n < len(name) {
		if p < len(pattern) && pattern[p] == '*' {
			star, resume = p, n
			p++
			continue
		}
		if p < len(pattern) {
			if width, ok := matchOne(pattern[p:], name[n]); ok {
				p += width
				n++
				continue
			}
		}
		if star < 0 {
			return false
		}
		resume++
		p, n = star+1, resume
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// pattern takes a client's word as a pattern. If it is too long, it answers with an error and returns false.
func (c *Call) pattern(word []byte) (pattern string, ok bool) {
	if len(word) > patternBytesMax {
		c.argumentErr("pattern has " + strconv.Itoa(len(word)) + " bytes, but must have at most " + strconv.Itoa(patternBytesMax))
		return "", false
	}
	return string(word), true
}

// matchOne matches one byte with what the pattern begins with, and returns how much of the pattern that was.
func matchOne(pattern string, b byte) (width int, ok bool) {
	switch pattern[0] {
	case '?':
		return 1, true
	case '[':
		return matchClass(pattern, b)
	case '\\':
		if len(pattern) > 1 {
			return 2, pattern[1] == b
		}
	}
	return 1, pattern[0] == b
}

// matchClass matches a class in brackets. One that is not closed ends with the pattern, as in Redis.
func matchClass(pattern string, b byte) (width int, ok bool) {
	i := 1
	not := i < len(pattern) && pattern[i] == '^'
	if not {
		i++
	}
	found := false
	for i < len(pattern) && pattern[i] != ']' {
		switch {
		case pattern[i] == '\\' && i+1 < len(pattern):
			found = found || pattern[i+1] == b
			i += 2
		case i+2 < len(pattern) && pattern[i+1] == '-':
			low, high := min(pattern[i], pattern[i+2]), max(pattern[i], pattern[i+2])
			found = found || low <= b && b <= high
			i += 3
		default:
			found = found || pattern[i] == b
			i++
		}
	}
	if i < len(pattern) {
		i++ // the closing bracket
	}
	return i, found != not
}
