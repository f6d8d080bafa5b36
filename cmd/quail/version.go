package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// version is Quail's version; a release sets it with -ldflags "-X main.version=…".
var version = "0.1.0"

type versionCmd struct{}

// versionLine names the version, the commit if the build knows it, and what it was built with.
func versionLine() string {
	revision := ""
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				revision = s.Value[:min(12, len(s.Value))] + ", "
			}
		}
	}
	return fmt.Sprintf("quail %s (%s%s, %s/%s)", version, revision, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
