package run_test

import (
	"testing"
	"time"

	"runbell/internal/run"
)

// What is due of a run at an instant.
func TestRetention(t *testing.T) {
	const day = 24 * time.Hour
	now := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	k := run.Retention{Runs: 10, FailedArtifacts: 5, PassedArtifacts: 2, Output: 3, Deliveries: 1}
	passed, failed := run.Counts{Passes: 1}, run.Counts{Failures: 1}
	for name, c := range map[string]struct {
		h              run.Holding
		run, artifacts bool
		excess         bool
	}{
		"passed, to the instant":    {run.Holding{State: run.Finished, Counts: passed, FinishedAt: now.Add(-2 * day)}, false, false, true},
		"passed, a moment later":    {run.Holding{State: run.Finished, Counts: passed, FinishedAt: now.Add(-2*day - 1)}, false, true, true},
		"flaky counts as failed":    {run.Holding{State: run.Finished, Counts: run.Counts{Passes: 1, Flaky: 1}, FinishedAt: now.Add(-3 * day)}, false, false, true},
		"failed":                    {run.Holding{State: run.Finished, Counts: failed, FinishedAt: now.Add(-6 * day)}, false, true, true},
		"skipped counts as failed":  {run.Holding{State: run.Finished, Counts: run.Counts{Skipped: 1}, FinishedAt: now.Add(-3 * day)}, false, false, true},
		"canceled counts as failed": {run.Holding{State: run.Canceled, Counts: passed, FinishedAt: now.Add(-3 * day)}, false, false, true},
		"timed out":                 {run.Holding{State: run.TimedOut, Counts: passed, FinishedAt: now.Add(-6 * day)}, false, true, true},
		"the run too":               {run.Holding{State: run.Finished, Counts: passed, FinishedAt: now.Add(-11 * day)}, true, true, true},
		"pinned":                    {run.Holding{State: run.Finished, Counts: passed, FinishedAt: now.Add(-99 * day), Pinned: true}, false, false, false},
		"running":                   {run.Holding{State: run.Running, Counts: passed}, false, false, false},
	} {
		if got := k.RunOver(c.h, now); got != c.run {
			t.Errorf("%s: the run goes: %v", name, got)
		}
		if got := k.ArtifactsOver(c.h, now); got != c.artifacts {
			t.Errorf("%s: its artifacts go: %v", name, got)
		}
		if got := c.h.Excess(1); got != c.excess || c.h.Excess(0) {
			t.Errorf("%s: they go because there are too many: %v", name, got)
		}
	}
	if forever := (run.Retention{}); !run.Before(0, now).IsZero() || !forever.LatestOver(now).IsZero() ||
		forever.RunOver(run.Holding{State: run.Finished}, now) || forever.ArtifactsOver(run.Holding{State: run.Finished}, now) {
		t.Error("something that is kept forever is over")
	}
	if got := k.LatestOver(now); !got.Equal(now.Add(-2 * day)) {
		t.Errorf("the latest is %v", got)
	}
}

func TestRetentionSettings(t *testing.T) {
	for says, change := range map[string]func(*run.Retention){
		"runDays must be a number from 0 to 3650.":                       func(k *run.Retention) { k.Runs = -1 },
		"artifactsFailedDays must be a number from 0 to 3650.":           func(k *run.Retention) { k.FailedArtifacts = 3651 },
		"artifactsPassedDays must be a number from 0 to 3650.":           func(k *run.Retention) { k.PassedArtifacts = -1 },
		"outputDays must be a number from 0 to 3650.":                    func(k *run.Retention) { k.Output = 3651 },
		"retentionDays must be a number from 1 to 3650.":                 func(k *run.Retention) { k.Deliveries = 0 },
		"artifactsMaxBytes must be a number from 0 to 1125899906842624.": func(k *run.Retention) { k.ArtifactBytes = -1 },
		"": func(k *run.Retention) { *k = run.Retention{Deliveries: 1} },
	} {
		p := run.NewProject("shop")
		change(&p.Keep)
		err := p.Check()
		if got := run.KindOf(err); says != "" && (got != run.Invalid || err.Error() != says) || says == "" && err != nil {
			t.Errorf("%v, want %q", err, says)
		}
	}
}
