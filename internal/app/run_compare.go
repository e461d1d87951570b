package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"runbell/internal/client"
)

type runCompareCmd struct {
	whichRun
}

func (runCompareCmd) Help() string {
	return `Compares the run with the last finished run of its branch, and with that of the default branch.

Examples:

    runbell run compare 6d4d09d9
    runbell run compare --latest --project my-shop --branch fix/cart`
}

// Run compares a run with earlier ones.
func (c *runCompareCmd) Run(ctx context.Context, s *session) error {
	r, err := c.read(ctx, s)
	if err != nil {
		return err
	}
	if s.json {
		var answer struct {
			Comparison json.RawMessage `json:"comparison"`
		}
		if err := json.Unmarshal(r.JSON, &answer); err != nil {
			return err
		}
		return s.printJSON(answer.Comparison)
	}
	return show(s, r, func(w io.Writer, r client.Run) error {
		compared := r.Comparison
		if compared == nil || compared.Branch == nil && compared.DefaultBranch == nil {
			_, err := fmt.Fprintln(w, "There is no earlier run to compare with.")
			return err
		}
		for _, with := range []*client.Compared{compared.Branch, compared.DefaultBranch} {
			if with != nil {
				printComparison(w, *with)
			}
		}
		if !compared.Complete {
			fmt.Fprintln(w, "\nThe latest results are still being counted, and not compared yet.")
		}
		return nil
	})
}

func printComparison(w io.Writer, c client.Compared) {
	fmt.Fprintf(w, "Compared with %s on %s (run %s):\n", printable(c.CIBuildID), printable(c.BranchName), c.RunID)
	any := false
	for _, part := range []struct {
		name string
		list client.Changes
	}{{"newly failing", c.NewlyFailing}, {"still failing", c.StillFailing}, {"newly flaky", c.NewlyFlaky},
		{"fixed", c.Fixed}, {"new", c.NewTests}, {"slower", c.Slower}} {
		if part.list.Total == 0 {
			continue
		}
		any = true
		fmt.Fprintf(w, "  %d %s\n", part.list.Total, part.name)
		for _, t := range part.list.Tests {
			more := ""
			switch {
			case t.Since != nil:
				more = " (since " + when(t.Since.CreatedAt) + ")"
			case t.BeforeMs != nil && t.NowMs != nil:
				more = fmt.Sprintf(" (%s, was %s)", milliseconds(*t.NowMs), milliseconds(*t.BeforeMs))
			}
			fmt.Fprintf(w, "    %s: %s%s\n", printable(t.Spec), printable(strings.Join(t.Title, " > ")), more)
		}
		if left := part.list.Total - len(part.list.Tests); left > 0 {
			fmt.Fprintf(w, "    and %d more\n", left)
		}
	}
	if !any {
		fmt.Fprintln(w, "  nothing changed")
	}
}

type runFindCmd struct {
	Project string   `required:"" help:"The projectId." var:"RUNBELL_PROJECT" placeholder:"ID"`
	Build   string   `help:"The run of exactly this build, in whatever state." placeholder:"ID"`
	Branch  string   `help:"Without --build: the latest finished run of this branch." placeholder:"NAME"`
	Tag     []string `help:"Without --build: the latest finished run with all these tags." placeholder:"TAG"`
}

func (runFindCmd) Help() string {
	return `Examples:

    runbell run find --project my-shop --build 1234
    runbell run find --project my-shop --branch main --tag nightly --json | jq -r .runUrl`
}

// Run finds a run and shows it.
func (c *runFindCmd) Run(ctx context.Context, s *session) error {
	if c.Build == "" && c.Branch == "" && len(c.Tag) == 0 {
		return usagef("say which run: --build ID, or --branch NAME and --tag TAG")
	}
	r, err := s.FindRun(ctx, c.Project, c.Build, c.Branch, c.Tag)
	if err != nil {
		return err
	}
	return show(s, r, func(w io.Writer, r client.Run) error { return printRun(w, r, nil, 0) })
}

type runResetCmd struct {
	ID      string   `arg:"" name:"run" help:"The runId, a prefix of it, or the build id."`
	Machine []string `help:"Only specs of these machines. Default: all machines." placeholder:"ID"`
	Yes     bool     `short:"y" help:"Do not ask for confirmation."`
}

func (runResetCmd) Help() string {
	return `Resets the specs of these machines that failed or have no results, so that other machines can claim them. Their
results are removed, and later reports of them are refused. Name machines that have ended or are stuck.

Examples:

    runbell run reset 6d4d09d9 --machine 0b6f7a5e-6f0c-4a39-9a43-6a3b1f0f9d11`
}

// Run resets specs of a run.
func (c *runResetCmd) Run(ctx context.Context, s *session) error {
	id, err := s.findRun(ctx, c.ID)
	if err != nil {
		return err
	}
	machines := c.Machine
	if len(machines) == 0 {
		r, err := s.Run(ctx, id)
		if err != nil {
			return err
		}
		if machines = machinesOf(r.Value); len(machines) == 0 {
			return errors.New("nothing to reset: every spec of these machines passed")
		}
	}
	if !c.Yes {
		if err := s.ask(fmt.Sprintf("Remove the results of specs of run %s that did not pass?", id)); err != nil {
			return err
		}
	}
	reset, err := s.ResetRun(ctx, id, machines)
	if err != nil {
		return err
	}
	return show(s, reset, func(w io.Writer, r client.ResetRun) error {
		var rows [][]string
		for _, spec := range r.Specs {
			rows = append(rows, []string{spec.Spec, spec.GroupID, spec.MachineID})
		}
		return table(w, "Nothing was reset: all specs of these machines have passed.", []string{"RESET", "GROUP", "MACHINE"},
			rows)
	})
}

// machinesOf are those that have a spec that did not pass.
func machinesOf(r client.Run) []string {
	var ids []string
	for _, spec := range r.Specs {
		if spec.MachineID != nil && (spec.Results == nil || hasFailed(spec)) && !slices.Contains(ids, *spec.MachineID) {
			ids = append(ids, *spec.MachineID)
		}
	}
	return ids
}
