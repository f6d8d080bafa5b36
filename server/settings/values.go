package settings

// The values of one server: read by handle from anywhere without a lock, changed as a whole or not at all.

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"quail/commands"
	"quail/queue/machine"
)

// Masked stands in place of a secret wherever settings are shown. It is refused as a secret's new value, so that
// a tool that reads all settings and writes them back cannot make the mask the password.
const Masked = "********"

// Values is what one server was told. Reading is safe from any goroutine and does not wait.
type Values struct {
	mu       sync.Mutex // serialises Set, also while a trial reads files; reading values does not take it
	current  atomic.Pointer[state]
	watchers []watcher
	trials   []trial
	onReset  func()
}

// state is all values at one moment. It never changes; a Set makes another one.
type state struct {
	values []value // by Setting.index
	given  []bool  // whether somebody gave the value
	// options are the default-… settings in the machine's form, made once rather than at every push.
	options *machine.Options
}

type watcher struct {
	setting *Setting
	changed func()
}

// trial is of settings that only the world can tell the value of: files that must load.
type trial struct {
	settings []*Setting
	try      func(next *Values) (apply func(), err error)
}

// New makes values from the table's defaults and, over them, the given ones: name and text. All errors are told,
// not just the first; each is an *Error.
func New(given [][2]string) (*Values, error) {
	start := &state{values: make([]value, len(table)), given: make([]bool, len(table))}
	for i, s := range table {
		parsed, err := s.parse(s.Default)
		if err != nil {
			return nil, fmt.Errorf("default of a setting: %w", err)
		}
		start.values[i] = parsed
	}
	next, errs := start.with(given, false)
	if len(errs) > 0 {
		return nil, join(errs)
	}
	v := &Values{}
	v.current.Store(next)
	return v, nil
}

// join makes one error of many. It takes care of the type: a nil *Error in an error is not nil.
func join(errs []*Error) error {
	all := make([]error, len(errs))
	for i, err := range errs {
		all[i] = err
	}
	return errors.Join(all...)
}

// with gives the state with some values replaced, or every reason why not.
func (old *state) with(pairs [][2]string, liveOnly bool) (next *state, errs []*Error) {
	next = &state{values: slices.Clone(old.values), given: slices.Clone(old.given)}
	seen := make(map[*Setting]bool, len(pairs))
	for _, pair := range pairs {
		s := Lookup(pair[0])
		switch {
		case s == nil:
			errs = append(errs, unknown(pair[0]))
			continue
		case seen[s]:
			errs = append(errs, &Error{Name: pair[0], Reason: "given twice; give it once"})
			continue
		case liveOnly && !s.Live:
			errs = append(errs, &Error{Name: pair[0], Reason: fmt.Sprintf(
				"cannot be changed while the server runs; set it with --%s, %s or the configuration file, and restart", s.Name, s.Env())})
			continue
		}
		seen[s] = true
		parsed, err := s.parse(pair[1])
		if err != nil {
			errs = append(errs, err)
			continue
		}
		next.values[s.index], next.given[s.index] = parsed, true
	}
	if len(errs) == 0 {
		errs = checkTogether(next.values)
	}
	if len(errs) == 0 {
		next.options, errs = next.makeOptions()
	}
	return next, errs
}

// makeOptions gives the machine's form of the default-… settings.
func (st *state) makeOptions() (*machine.Options, []*Error) {
	options := machine.DefaultOptions()
	for o, s := range optionSettings {
		v := st.values[s.index]
		if s.Kind != KindText {
			options.SetValue(machine.Option(o), v.number)
		} else if err := options.Set(machine.Specs[o].Name, v.text); err != nil {
			return nil, []*Error{s.misfit(v.text, err.Error())}
		}
	}
	return options, nil
}

// Set changes settings of a running server, all or none: CONFIG SET. A setting that is fixed at start-up, an unknown
// one, one named twice or a value that does not fit is a *commands.SettingError that names the first of them.
func (v *Values) Set(pairs [][2]string) error {
	v.mu.Lock()
	before := v.current.Load()
	next, errs := before.with(pairs, true)
	if len(errs) > 0 {
		v.mu.Unlock()
		return &commands.SettingError{Name: errs[0].Name, Unknown: errs[0].Unknown, Meant: errs[0].Meant, Reason: errs[0].Reason}
	}
	calls, refusal := v.trySet(before, next)
	if refusal != nil {
		v.mu.Unlock()
		return refusal
	}
	v.current.Store(next)
	for _, w := range v.watchers {
		if before.values[w.setting.index] != next.values[w.setting.index] {
			calls = append(calls, w.changed)
		}
	}
	v.mu.Unlock()
	for _, call := range calls {
		call()
	}
	return nil
}

// trySet runs the trials of what changes, and returns what is to be called once it has. The caller holds mu.
func (v *Values) trySet(before, next *state) (calls []func(), refusal *commands.SettingError) {
	candidate := &Values{}
	candidate.current.Store(next)
	for _, t := range v.trials {
		for _, s := range t.settings {
			if before.values[s.index] == next.values[s.index] {
				continue
			}
			apply, err := t.try(candidate)
			if err != nil {
				return nil, &commands.SettingError{Name: s.Name, Reason: err.Error()}
			}
			calls = append(calls, apply)
			break
		}
	}
	return calls, nil
}

// Try lets a Set that gives one of the settings another value happen only if try finds no error with all values as they will be; it may read
// files. The error goes to whoever asked, and nothing changes. What try returns is called when the new values hold. Calls of Try belong before
// the server starts.
func (v *Values) Try(which []*Setting, try func(next *Values) (apply func(), err error)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.trials = append(v.trials, trial{which, try})
}

// Match lists settings as name and value, sorted by name, each once: those whose names fit any of the patterns
// (commands.MatchPattern; in any case). Secrets come as Masked, or empty if they are not set.
func (v *Values) Match(patterns ...string) [][2]string {
	values := v.current.Load().values
	patterns = slices.Clone(patterns)
	for i := range patterns {
		patterns[i] = strings.ToLower(patterns[i])
	}
	var found [][2]string
	for i, s := range table {
		for _, pattern := range patterns {
			if commands.MatchPattern(pattern, s.Name) {
				found = append(found, [2]string{s.Name, s.show(values[i])})
				break
			}
		}
	}
	slices.SortFunc(found, func(a, b [2]string) int { return strings.Compare(a[0], b[0]) })
	return found
}

// Watch calls changed after every Set that gave the setting another value, from the goroutine that called Set.
// Calls of Watch belong before the server starts.
func (v *Values) Watch(s *Setting, changed func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.watchers = append(v.watchers, watcher{s, changed})
}

// OnResetStats says what ResetStats calls. It belongs before the server starts.
func (v *Values) OnResetStats(reset func()) { v.onReset = reset }

// Secret reports whether there is a setting of that name, in any case, that is shown by no one.
func (v *Values) Secret(name string) bool {
	s := Lookup(name)
	return s != nil && s.Secret
}

// Known reports whether there is a setting of that name, in any case.
func (v *Values) Known(name string) bool { return Lookup(name) != nil }

// ResetStats zeroes the server's counters: CONFIG RESETSTAT.
func (v *Values) ResetStats() {
	if v.onReset != nil {
		v.onReset()
	}
}

// IsDefault tells whether nobody has given the setting a value.
func (v *Values) IsDefault(s *Setting) bool { return !v.current.Load().given[s.index] }

// QueueDefaults are the options of a queue that does not set its own. They are shared: read only.
func (v *Values) QueueDefaults() *machine.Options { return v.current.Load().options }

func (v *Values) at(s *Setting) value { return v.current.Load().values[s.index] }

// Int reads a whole number.
func (v *Values) Int(h Int) int64 { return v.at(h.Setting).number }

// Bytes reads a size in bytes.
func (v *Values) Bytes(h Bytes) int64 { return v.at(h.Setting).number }

// Millis reads a time in milliseconds.
func (v *Values) Millis(h Millis) int64 { return v.at(h.Setting).number }

// Duration reads a time as a time.Duration.
func (v *Values) Duration(h Millis) time.Duration {
	return time.Duration(v.at(h.Setting).number) * time.Millisecond
}

// Bool reads a switch.
func (v *Values) Bool(h Bool) bool { return v.at(h.Setting).number != 0 }

// Text reads a text. A secret comes in the clear: it is not for showing.
func (v *Values) Text(h Text) string { return v.at(h.Setting).text }
