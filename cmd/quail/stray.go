package main

// What a data directory looks like from outside when it is opened. A restore that goes wrong ends in a server that runs, on the old data or on
// none, and nothing else would say so.

import (
	"os"
	"path/filepath"
	"slices"

	"github.com/rs/zerolog"
)

// ownFolders are the folders of a data directory.
var ownFolders = []string{"journal", "checkpoints", "queues", "damaged"}

// straysNamedMax bounds how many folders a warning names: a directory of backups may have years of them.
const straysNamedMax = 10

// strayStores are the folders directly in a data directory that are data directories of their own: what `cp -a BACKUP DIR` makes if DIR is
// there, or all backups, if their parent was named instead of one of them. What cannot be looked at is left out.
func strayStores(directory string) (names []string) {
	entries, _ := os.ReadDir(directory) // that it cannot be read is told by whoever opens it
	for _, e := range entries {
		if slices.Contains(ownFolders, e.Name()) {
			continue
		}
		if info, err := os.Stat(filepath.Join(directory, e.Name(), "STORE")); err == nil && info.Mode().IsRegular() {
			names = append(names, e.Name())
		}
	}
	return names
}

// warnOfStrays says that a backup lies a level too deep.
func warnOfStrays(log zerolog.Logger, directory string) {
	names := strayStores(directory)
	if len(names) == 0 {
		return
	}
	log.Warn().Strs("folders", names[:min(len(names), straysNamedMax)]).Int("count", len(names)).Str("data", directory).
		Msg("the data directory has folders that are data directories of their own, and nothing in them is served: if one is a backup to be restored, stop the server, " +
			"move it out of here, move this directory away, and put the backup in its place; if not, keep it elsewhere")
}

// logNew: whoever mistyped the path of a data directory has an empty one now.
func logNew(log zerolog.Logger, directory string) {
	log.Info().Str("data", directory).Msg("made a new, empty data directory")
}
