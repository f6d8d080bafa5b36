package main

// The process's log: one line an event, on standard error.

import (
	"io"
	"os"
	"time"

	"github.com/rs/zerolog"

	"quail/queue"
	"quail/server/settings"
	"quail/wal"
)

// newLog makes the logger in the form and from the level that the settings say; the level follows CONFIG SET.
func newLog(values *settings.Values, out io.Writer) zerolog.Logger {
	zerolog.TimeFieldFormat = "2006-01-02T15:04:05.000Z07:00"
	zerolog.DurationFieldUnit = time.Millisecond
	level := func() {
		if l, err := zerolog.ParseLevel(values.Text(settings.LogLevel)); err == nil {
			zerolog.SetGlobalLevel(l)
		}
	}
	level()
	values.Watch(settings.LogLevel.Setting, level)
	if values.Text(settings.LogFormat) == "console" {
		out = zerolog.ConsoleWriter{Out: out, NoColor: !isTerminal(out), TimeFormat: "2006-01-02 15:04:05.000"}
	}
	return zerolog.New(out).With().Timestamp().Logger()
}

func isTerminal(out io.Writer) bool {
	file, ok := out.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// storeEvents turns what the store reports into log lines.
func storeEvents(log zerolog.Logger) wal.Events {
	return wal.Events{
		TornTail: func(t wal.TornTail) {
			if t.Incarnation != 0 {
				log.Warn().Interface("tail", t).Msg("a queue log had bytes behind its last checkpoint that are no whole records; they were cut off and copied aside, the journal has the records")
				return
			}
			log.Warn().Interface("tail", t).Msg("the journal ended in a group that was never acknowledged; it was cut off and copied aside")
		},
		JournalFailed: func(err error) {
			log.Error().Err(err).Msg("the journal failed: writes get -WALERR until the store is open again; look at the disk")
		},
		LogFailed: func(of wal.LogName, err error) {
			if wal.Damaged(err) {
				log.Error().Str("queue", of.Queue).Uint64("incarnation", of.Incarnation).Err(err).Msg("a queue's log is damaged: this queue stops until it is restored, the others go on; see \"Damage\" in docs/operations.md for quail check and quail repair")
				return
			}
			log.Error().Str("queue", of.Queue).Uint64("incarnation", of.Incarnation).Err(err).Msg("a queue's log failed: this queue stops and is tried again every few seconds, the others go on; look at the disk")
		},
		LogReopened: func(r wal.LogReopened) {
			log.Warn().Str("queue", r.Queue).Uint64("incarnation", r.Incarnation).Uint64("records", r.Records).Dur("stopped_ms", r.Stopped).Msg("a queue whose log had failed goes on; what the log lacked was written again")
		},
		LogRewritten: func(r wal.LogRewritten) {
			log.Debug().Str("queue", r.Queue).Uint64("incarnation", r.Incarnation).Int64("bytes_before", r.BytesBefore).Int64("bytes_after", r.BytesAfter).Dur("took_ms", r.Duration).Msg("a log gave back the space of messages that are gone")
		},
		RewriteFailed: func(of wal.LogName, err error) {
			log.Error().Str("queue", of.Queue).Uint64("incarnation", of.Incarnation).Err(err).Msg("space of messages that are gone could not be given back; the log is as it was, and it will be tried again")
		},
		CheckpointDone: func(r wal.CheckpointReport) {
			log.Debug().Int("queues", r.Queues).Int64("bytes", r.Bytes).Dur("took_ms", r.Duration).Msg("checkpoint")
		},
		DiskFull: func(full *wal.FullError) {
			log.Error().Err(full).Msg("the disk is full: messages are refused, consuming and acknowledging go on; make room, it goes on by itself")
		},
		DiskFreed: func() {
			log.Warn().Msg("the disk has space again: messages are taken")
		},
		CheckpointFailed: func(err error) {
			log.Error().Err(err).Msg("a checkpoint failed and will be tried again; the journal keeps everything until then")
		},
	}
}

func storeReopened(log zerolog.Logger) func(queue.Report) {
	return func(r queue.Report) {
		log.Warn().Int("queues", r.Queues).Dur("took_ms", r.Duration).Msg("the store works again")
	}
}
