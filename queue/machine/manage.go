package machine

// The life of a queue: it is made, configured, paused, and deleted.
//
//	creation           wall time, name, options
//	change of options  the options that are set from now on
//	pause              bit 0: pushing is paused; bit 1: consuming is
//	deletion           nothing

import (
	"errors"
	"unicode/utf8"
)

var errName = errors.New("it makes a queue without a name in UTF-8")

// CreateMeta is the record that makes a queue. The caller has checked the name and the options.
func CreateMeta(name string, opts Options, wallMillis int64) Effect {
	dst := putMillis(make([]byte, 0, 32+len(name)), wallMillis)
	return Effect{Kind: KindCreate, Meta: opts.encode(putText(dst, name))}
}

func (m *Machine) applyCreate(r *reader) error {
	wall := r.millis()
	name := r.text(NameBytesMax)
	options := readOptions(r)
	if err := r.done(); err != nil {
		return err
	}
	if len(name) == 0 || !utf8.Valid(name) {
		return errName
	}
	m.name, m.createdMillis, m.wall, m.options = string(name), wall, wall, options
	return nil
}

// ConfigMeta is the record that replaces a queue's options. The caller has checked them.
func ConfigMeta(opts Options) Effect {
	return Effect{Kind: KindConfig, Meta: opts.encode(make([]byte, 0, 32))}
}

func (m *Machine) applyConfig(r *reader) error {
	options := readOptions(r)
	if err := r.done(); err != nil {
		return err
	}
	m.options = options
	return nil
}

const (
	pausePush    = 1
	pauseConsume = 2
)

// DecidePause sets which sides of the queue are paused. changed is false if they are as they should be.
func (m *Machine) DecidePause(push, consume bool) (e Effect, changed bool) {
	if m.pausedPush == push && m.pausedConsume == consume {
		return Effect{}, false
	}
	return Effect{Kind: KindPause, Meta: put(nil, bit(push)*pausePush|bit(consume)*pauseConsume)}, true
}

func (m *Machine) applyPause(r *reader) error {
	sides := r.upTo(pausePush | pauseConsume)
	if err := r.done(); err != nil {
		return err
	}
	m.pausedPush, m.pausedConsume = sides&pausePush != 0, sides&pauseConsume != 0
	return nil
}

func (m *Machine) applyDelete(r *reader) error {
	if err := r.done(); err != nil {
		return err
	}
	m.deleted = true
	return nil
}
