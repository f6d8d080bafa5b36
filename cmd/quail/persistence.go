package main

import (
	"strconv"
	"time"

	"quail/queue"
	"quail/server/metrics"
	"quail/wal"
)

// persistence gives the lines of INFO's section Persistence. Their names do not change: dashboards read them.
func persistence(queues *queue.Set) func() [][2]string {
	return func() [][2]string {
		stats, refusal := queues.StoreStats()
		number := func(n int64) string { return strconv.FormatInt(n, 10) }
		return [][2]string{
			{"journal_failed", flag(stats.JournalErr != nil || refusal != nil)},
			{"disk_full", flag(stats.FullErr != nil)},
			{"stopped_queues", number(stats.StoppedQueues)},
			{"journal_groups", strconv.FormatUint(stats.Group, 10)},
			{"journal_bytes", number(stats.JournalBytes)},
			{"journal_bytes_max", number(stats.JournalBytesMax)},
			{"journal_bytes_since_checkpoint", number(stats.SinceCheckpointBytes)},
			{"write_behind_bytes", number(stats.WriteBehindBytes)},
			{"checkpoints", strconv.FormatUint(stats.Checkpoints, 10)},
			{"last_checkpoint_time", number(unixSeconds(stats.LastCheckpoint))},
			{"last_checkpoint_status", status(stats.CheckpointErr)},
			{"log_bytes", number(stats.LogBytes)},
			{"log_rewrites", strconv.FormatUint(stats.Rewrites, 10)},
			{"log_rewrite_freed_bytes", number(stats.RewriteFreedBytes)},
			{"last_log_rewrite_status", status(stats.RewriteErr)},
		}
	}
}

func flag(on bool) string {
	if on {
		return "1"
	}
	return "0"
}

// status is Redis's word for the same.
func status(err error) string {
	if err != nil {
		return "err"
	}
	return "ok"
}

// unixSeconds is 0 for a time that never was.
func unixSeconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

// syncs gives the times of the journal's syncs.
func syncs(queues *queue.Set) func() metrics.Histogram {
	bounds := make([]float64, len(wal.SyncBounds))
	for i, bound := range wal.SyncBounds {
		bounds[i] = bound.Seconds()
	}
	return func() metrics.Histogram {
		stats, _ := queues.StoreStats()
		return metrics.Histogram{BoundsSeconds: bounds, Counts: stats.Syncs[:], SumSeconds: stats.SyncTime.Seconds()}
	}
}
