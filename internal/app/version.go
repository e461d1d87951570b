package app

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

type versionCmd struct{}

func (versionCmd) Help() string {
	return `Examples:

    runbell version`
}

// Run prints the version, and what it was built with.
func (versionCmd) Run(s *streams, version versionText) error {
	_, err := fmt.Fprintln(s.Out, versionLine(string(version)))
	return err
}

func versionLine(version string) string {
	return fmt.Sprintf("runbell %s (%s %s/%s)", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// describe names the build: the linked version, the module's, or the commit.
func describe(linked string) string {
	if linked != "" {
		return linked
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "dev"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	commit, dirty := "", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			commit = s.Value[:min(len(s.Value), 12)]
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = "-dirty"
		}
	}
	if commit == "" {
		return "dev"
	}
	return "dev-" + commit + dirty
}
