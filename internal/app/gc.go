package app

import (
	"context"
	"fmt"
	"io"
	"strconv"

	"runbell/internal/client"
	"runbell/internal/run"
)

type gcCmd struct {
	remote
	DryRun bool `help:"Print what would be removed, without removing it."`
}

func (gcCmd) Help() string {
	return "The server does this when it starts and once an hour. It does not disturb runs that are being recorded. " +
		"'runbell project update' sets how long data is kept.\n" + `

Examples:

    runbell gc --dry-run
    runbell gc --json | jq '.projects'`
}

// Run removes what is past its retention.
func (c *gcCmd) Run(ctx context.Context, s *session) error {
	done, err := s.GC(ctx, c.DryRun)
	if err != nil {
		return err
	}
	total := done.Value
	for done.Value.More {
		if done, err = s.GC(ctx, false); err != nil {
			return err
		}
		total = addGC(total, done.Value)
	}
	if s.json {
		return s.printValue(total)
	}
	return printGC(s.Out, total)
}

// addGC adds up what two calls removed.
func addGC(a, b client.GC) client.GC {
	a.Files, a.Sessions, a.Invitations, a.More = a.Files+b.Files, a.Sessions+b.Sessions, a.Invitations+b.Invitations,
		b.More
	for _, p := range b.Projects {
		found := false
		for n, known := range a.Projects {
			if found = known.ProjectID == p.ProjectID; found {
				a.Projects[n] = client.Removed{ProjectID: p.ProjectID, Runs: known.Runs + p.Runs,
					Artifacts:     known.Artifacts + p.Artifacts,
					ArtifactBytes: known.ArtifactBytes + p.ArtifactBytes, ConsoleOutputs: known.ConsoleOutputs + p.ConsoleOutputs,
					Deliveries: known.Deliveries + p.Deliveries}
				break
			}
		}
		if !found {
			a.Projects = append(a.Projects, p)
		}
	}
	return a
}

func printGC(w io.Writer, g client.GC) error {
	var rows [][]string
	for _, p := range g.Projects {
		rows = append(rows, []string{p.ProjectID, strconv.Itoa(p.Runs), strconv.Itoa(p.Artifacts),
			run.FormatSize(p.ArtifactBytes), strconv.Itoa(p.ConsoleOutputs), strconv.Itoa(p.Deliveries)})
	}
	if err := table(w, "No data is past its retention.", []string{"PROJECT", "RUNS", "ARTIFACTS", "SIZE",
		"CONSOLE OUTPUTS", "DELIVERIES"}, rows); err != nil {
		return err
	}
	verb := "Removed"
	if g.DryRun {
		verb = "Would remove"
	}
	_, err := fmt.Fprintf(w, "\n%s %d artifact files, %d old sessions and %d expired invitations.\n", verb, g.Files,
		g.Sessions, g.Invitations)
	return err
}
