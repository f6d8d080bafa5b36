package settings

// From text to value and back. Numbers, sizes, times and switches are all kept as one int64; texts as they are.

import (
	"strconv"
	"strings"

	"quail/queue/machine"
)

// value is one setting's value: number for all kinds but texts.
type value struct {
	number int64
	text   string
}

// parse reads a value as a person wrote it.
func (s *Setting) parse(text string) (value, *Error) {
	switch s.Kind {
	case KindBool:
		on, ok := parseBool(text)
		if !ok {
			return value{}, s.misfit(text, "")
		}
		return value{number: on}, nil
	case KindChoice:
		for _, choice := range s.Choices {
			if strings.EqualFold(text, choice) {
				return value{text: choice}, nil
			}
		}
		return value{}, s.misfit(text, "")
	case KindText:
		if s.check != nil {
			if err := s.check(text); err != nil {
				return value{}, s.misfit(text, err.Error())
			}
		}
		return value{text: text}, nil
	}
	n, ok := machine.ParseNumber(text)
	if !ok && s.Kind == KindBytes {
		size, err := machine.ParseSize(text)
		n, ok = size, err == nil
	}
	if text == "-1" && s.Min == -1 { // the one negative number that a setting takes: none
		n, ok = -1, true
	}
	if !ok || n < s.Min || n > s.Max {
		return value{}, s.misfit(text, "")
	}
	return value{number: n}, nil
}

// show is the reverse of parse, as CONFIG GET answers: numbers plain and in the setting's unit.
func (s *Setting) show(v value) string {
	switch s.Kind {
	case KindText, KindChoice:
		if s.Secret && v.text != "" {
			return Masked
		}
		return v.text
	case KindBool:
		if v.number != 0 {
			return "yes"
		}
		return "no"
	default:
		return strconv.FormatInt(v.number, 10)
	}
}

func parseBool(text string) (number int64, ok bool) {
	switch strings.ToLower(text) {
	case "yes", "true", "on", "1":
		return 1, true
	case "no", "false", "off", "0":
		return 0, true
	}
	return 0, false
}

// FormatBytes writes a size with the largest unit that gives a whole number, as machine.ParseSize reads it.
func FormatBytes(n int64) string {
	for _, unit := range []struct {
		suffix string
		bytes  int64
	}{{"gb", gb}, {"mb", mb}, {"kb", kb}} {
		if n != 0 && n%unit.bytes == 0 {
			return strconv.FormatInt(n/unit.bytes, 10) + unit.suffix
		}
	}
	return strconv.FormatInt(n, 10)
}
