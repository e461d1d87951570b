package app

import (
	"context"
	"fmt"
	"io"

	"runbell/internal/client"
)

type runPinCmd struct {
	ID string `arg:"" name:"run" help:"The runId, a prefix of it, or the build id."`
}

func (runPinCmd) Help() string {
	return `A pinned run keeps its results, artifacts and console output past their retention.

Examples:

    runbell run pin 6d4d09d9`
}

// Run pins a run.
func (c *runPinCmd) Run(ctx context.Context, s *session) error {
	id, err := s.findRun(ctx, c.ID)
	if err != nil {
		return err
	}
	pinned, err := s.PinRun(ctx, id)
	if err != nil {
		return err
	}
	return show(s, pinned, func(w io.Writer, p client.Pinned) error {
		_, err := fmt.Fprintf(w, "Run %s is pinned.\n", p.RunID)
		return err
	})
}

type runUnpinCmd struct {
	ID string `arg:"" name:"run" help:"The runId, a prefix of it, or the build id."`
}

func (runUnpinCmd) Help() string {
	return `Examples:

    runbell run unpin 6d4d09d9`
}

// Run unpins a run.
func (c *runUnpinCmd) Run(ctx context.Context, s *session) error {
	id, err := s.findRun(ctx, c.ID)
	if err != nil {
		return err
	}
	unpinned, err := s.UnpinRun(ctx, id)
	if err != nil {
		return err
	}
	return show(s, unpinned, func(w io.Writer, p client.Pinned) error {
		_, err := fmt.Fprintf(w, "Run %s is not pinned. It is removed after its retention.\n", p.RunID)
		return err
	})
}

type runDeleteCmd struct {
	ID  string `arg:"" name:"run" help:"The runId, a prefix of it, or the build id."`
	Yes bool   `short:"y" help:"Do not ask for confirmation."`
}

func (runDeleteCmd) Help() string {
	return "Deletes the run with its screenshots, videos and console output. Its deliveries stay in the log of their " +
		"webhook. Cancel a running run first, and unpin a pinned one.\n" + `

Examples:

    runbell run delete 6d4d09d9 --yes`
}

// Run deletes a run.
func (c *runDeleteCmd) Run(ctx context.Context, s *session) error {
	id, err := s.findRun(ctx, c.ID)
	if err != nil {
		return err
	}
	if !c.Yes {
		if err := s.ask(fmt.Sprintf("Delete run %s with its artifacts? This cannot be undone.", id)); err != nil {
			return err
		}
	}
	deleted, err := s.DeleteRun(ctx, id)
	if err != nil {
		return err
	}
	return show(s, deleted, func(w io.Writer, d client.DeletedRun) error {
		_, err := fmt.Fprintf(w, "Run %s is deleted.\n", d.RunID)
		return err
	})
}
