package machine

// The table of queue options, and the values that one queue has set. Whatever reads or explains an option reads this table.

import (
	"fmt"
	"strconv"
	"strings"
)

// Option names one option of a queue.
type Option uint8

// The options, in the order of Options. Their numbers stand in records: only ever add at the end.
const (
	BatchCount Option = iota
	BatchBytes
	BatchFill
	Lease
	LockTTL
	MaxOpenBatches
	MaxAttempts
	RetryDelay
	RetryBackoff
	RetryDelayMax
	DeadLetterQueue
	Delay
	TTL
	DedupWindow
	DedupMax
	MaxMessageBytes
	MaxMessages
	MaxBytes
	optionCount
)

// OptionSpec describes one option. All values are whole numbers, but for the dead-letter queue's name.
type OptionSpec struct {
	Name    string
	Default int64
	Min     int64
	Max     int64
	Unit    string
	Doc     string
	// Text marks an option whose value is a name.
	Text bool
}

const (
	// valueEchoBytesMax is how much of a refused value its error repeats.
	valueEchoBytesMax = 64

	dayMillis = 24 * 60 * 60 * 1000
	// durationMaxMillis bounds every duration: ten years.
	durationMaxMillis = 3650 * dayMillis
)

// Specs is the table of all options, by Option.
var Specs = [optionCount]OptionSpec{
	BatchCount:      {"batch-count", 10, 1, 10_000, "messages", "Messages in a batch, at most.", false},
	BatchBytes:      {"batch-bytes", 1 << 20, 1, 64 << 20, "bytes", "Bodies in a batch, at most; one larger message still makes a batch of its own.", false},
	BatchFill:       {"batch-fill", 0, 0, dayMillis, "ms", "How long a batch that is not full is held open to grow, counted from its oldest message's arrival.", false},
	Lease:           {"lease", 30_000, 1, dayMillis, "ms", "Time to acknowledge a batch before it comes back.", false},
	LockTTL:         {"lock-ttl", 30_000, 1, dayMillis, "ms", "How long the consumer lock holds without renewal.", false},
	MaxOpenBatches:  {"max-open-batches", 16, 1, 1000, "batches", "Batches that may be leased at the same time; 1 means strict order.", false},
	MaxAttempts:     {"max-attempts", 5, 0, 1_000_000, "attempts", "Attempts before a message goes to the dead-letter queue; 0 means no end.", false},
	RetryDelay:      {"retry-delay", 0, 0, durationMaxMillis, "ms", "Wait before a failed message comes back.", false},
	RetryBackoff:    {"retry-backoff", 1, 1, 100, "factor", "Each further wait is this many times the one before.", false},
	RetryDelayMax:   {"retry-delay-max", 900_000, 0, durationMaxMillis, "ms", "The longest wait that retry-backoff can lead to.", false},
	DeadLetterQueue: {"dead-letter-queue", 0, 0, NameBytesMax, "name", "Where messages go that failed max-attempts times; empty means <queue>.dead.", true},
	Delay:           {"delay", 0, 0, durationMaxMillis, "ms", "Wait before a pushed message is ready.", false},
	TTL:             {"ttl", 0, 0, durationMaxMillis, "ms", "How long a message is kept, counted from its push; 0 means for ever.", false},
	DedupWindow:     {"dedup-window", 300_000, 0, durationMaxMillis, "ms", "How long a deduplication id is remembered, counted from its first push.", false},
	DedupMax:        {"dedup-max", 1_000_000, 0, 100_000_000, "ids", "Deduplication ids remembered, at most.", false},
	MaxMessageBytes: {"max-message-bytes", 8 << 20, 0, 512 << 20, "bytes", "The largest body.", false},
	MaxMessages:     {"max-messages", 0, 0, ValueMax, "messages", "Messages that the queue holds, at most; 0 means no limit.", false},
	MaxBytes:        {"max-bytes", 0, 0, ValueMax, "bytes", "Bodies that the queue holds, at most; 0 means no limit.", false},
}

// OptionByName finds an option by its name, in any case.
func OptionByName(name string) (Option, bool) {
	for o := range Specs {
		if strings.EqualFold(Specs[o].Name, name) {
			return Option(o), true
		}
	}
	return 0, false
}

// Options are the values that were set for one queue. What was not set follows the server's defaults.
type Options struct {
	set    uint32 // bit o: option o was set
	values [optionCount]int64
	// Dead is the dead-letter queue's name, if that was set.
	Dead string
}

// DefaultOptions has every option set to its own default.
func DefaultOptions() *Options {
	o := &Options{set: 1<<optionCount - 1}
	for i := range Specs {
		o.values[i] = Specs[i].Default
	}
	return o
}

// IsSet reports whether opt was set for this queue.
func (o *Options) IsSet(opt Option) bool { return o.set&(1<<opt) != 0 }

// Get returns the queue's own value, or that of defaults, or, if it is not set there either or defaults is nil, the table's.
func (o *Options) Get(opt Option, defaults *Options) int64 {
	switch {
	case o.IsSet(opt):
		return o.values[opt]
	case defaults != nil && defaults.IsSet(opt):
		return defaults.values[opt]
	}
	return Specs[opt].Default
}

// Set parses value and sets the option. The error names the option, what came and what is allowed.
func (o *Options) Set(name, value string) error {
	opt, ok := OptionByName(name)
	if !ok {
		return fmt.Errorf("unknown queue option %q", name)
	}
	spec := &Specs[opt]
	if spec.Text {
		if int64(len(value)) > spec.Max {
			return fmt.Errorf("%s has %d bytes; at most %d are allowed", spec.Name, len(value), spec.Max)
		}
		o.Dead = value
		o.set |= 1 << opt
		return nil
	}
	n, err := ParseValue(spec, value)
	if err != nil {
		return err
	}
	o.SetValue(opt, n)
	return nil
}

// SetValue sets a whole-number option that was checked before.
func (o *Options) SetValue(opt Option, n int64) {
	o.values[opt] = n
	o.set |= 1 << opt
}

// ParseValue reads a value of that option: a whole number, or for sizes also 64kb, 1mb, 2gb.
func ParseValue(spec *OptionSpec, value string) (int64, error) {
	n, ok := ParseNumber(value)
	if !ok && spec.Unit == "bytes" {
		size, err := ParseSize(value)
		n, ok = size, err == nil
	}
	if !ok || n < spec.Min || n > spec.Max {
		return 0, fmt.Errorf("%s must be a whole number of %s from %d to %d, not %q", spec.Name, spec.Unit, spec.Min, spec.Max, value[:min(len(value), valueEchoBytesMax)])
	}
	return n, nil
}

// ParseNumber reads a whole number up to ValueMax as commands do: digits only, without a sign or a leading zero. Two ways to write
// one number would be two options that differ for whoever compares the texts.
func ParseNumber(s string) (n int64, ok bool) {
	if len(s) == 0 || len(s) > 16 || s[0] == '0' && len(s) > 1 {
		return 0, false
	}
	for _, d := range []byte(s) {
		if d < '0' || d > '9' {
			return 0, false
		}
		n = n*10 + int64(d-'0')
	}
	return n, n <= ValueMax
}

// ParseSize reads a size in bytes as Redis writes them: 100, 16k, 16kb, 1m, 1mb, 2g, 2gb. With a b the unit is a power of 1024,
// without it one of 1000.
func ParseSize(s string) (int64, error) {
	lower := strings.ToLower(s)
	for _, u := range [...]struct {
		suffix string
		factor int64
	}{{"kb", 1 << 10}, {"mb", 1 << 20}, {"gb", 1 << 30}, {"k", 1000}, {"m", 1000_000}, {"g", 1000_000_000}, {"b", 1}, {"", 1}} {
		digits, ok := strings.CutSuffix(lower, u.suffix)
		if !ok {
			continue
		}
		n, ok := ParseNumber(digits)
		if !ok || n > ValueMax/u.factor {
			break
		}
		return n * u.factor, nil
	}
	return 0, fmt.Errorf("%q is no size; write bytes, or a number with kb, mb or gb", s)
}

// Value is the option's value as text, from the queue's own or the defaults.
func (o *Options) Value(opt Option, defaults *Options) string {
	if Specs[opt].Text {
		if o.IsSet(opt) || defaults == nil {
			return o.Dead
		}
		return defaults.Dead
	}
	return strconv.FormatInt(o.Get(opt, defaults), 10)
}

// Override sets all options that p sets, to p's values.
func (o *Options) Override(p *Options) {
	for i := range Specs {
		if p.IsSet(Option(i)) {
			o.SetValue(Option(i), p.values[i])
		}
	}
	if p.IsSet(DeadLetterQueue) {
		o.Dead = p.Dead
	}
}

// Equal reports whether the same options were set to the same values.
func (o *Options) Equal(p *Options) bool { return *o == *p }

// encode appends the options that are set: a varint of their bits, and the values in the table's order.
func (o *Options) encode(dst []byte) []byte {
	dst = put(dst, uint64(o.set))
	for i := range Specs {
		switch {
		case !o.IsSet(Option(i)):
		case Specs[i].Text:
			dst = putText(dst, o.Dead)
		default:
			dst = putMillis(dst, o.values[i])
		}
	}
	return dst
}

// readOptions reads what encode wrote. Values outside the table's present limits are kept: the table may have changed since.
func readOptions(r *reader) Options {
	o := Options{set: uint32(r.upTo(1<<optionCount - 1))}
	for i := range Specs {
		switch {
		case !o.IsSet(Option(i)):
		case Specs[i].Text:
			o.Dead = string(r.text(NameBytesMax))
		default:
			o.values[i] = r.millis()
		}
	}
	return o
}
