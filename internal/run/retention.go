package run

import "time"

// Retention is for how many days a project keeps what; 0 is forever. Days count
// from the end of a run, and for deliveries from when they were queued.
type Retention struct {
	Runs int // with all that belongs to them
	// FailedArtifacts is for runs that did not pass or have flaky tests, PassedArtifacts for the others.
	FailedArtifacts int
	PassedArtifacts int
	Output          int // console output
	Deliveries      int // at least 1
	// ArtifactBytes is how much the artifacts of the project may take; those of the
	// oldest runs go first. 0 is no limit.
	ArtifactBytes int64
}

// DefaultRetention is that of a new project. Screenshots and videos are large, and
// looked at soon or never; console output and deliveries are read while somebody
// looks for a cause; what the tests did half a year ago still tells of trends.
func DefaultRetention() Retention {
	return Retention{Runs: 180, FailedArtifacts: 30, PassedArtifacts: 7, Output: 30, Deliveries: 30}
}

// Limits on what a project may set.
const (
	MaxRetentionDays = 3650
	MaxArtifactBytes = 1 << 50 // 1 PiB
)

// ArtifactDays is how long the artifacts of a run are kept that ended in a state
// with counts.
func (k Retention) ArtifactDays(s State, c Counts) int {
	if StatusOf(s, c) == StatusPassed && c.Flaky == 0 {
		return k.PassedArtifacts
	}
	return k.FailedArtifacts
}

// Before is the instant before which something must have ended for its days to be
// over now. It is zero where it is kept forever.
func Before(days int, now time.Time) time.Time {
	if days == 0 {
		return time.Time{}
	}
	return now.Add(-time.Duration(days) * 24 * time.Hour)
}

// Holding is what a run keeps, as retention looks at it.
type Holding struct {
	RunID         string
	State         State
	Counts        Counts
	FinishedAt    time.Time // zero while running
	Pinned        bool
	Artifacts     int
	ArtifactBytes int64
}

// ends says whether anything of the run may be removed at all: running and pinned
// runs keep everything.
func (h Holding) ends() bool { return !h.Pinned && h.State.Terminal() }

// RunOver says whether the run itself goes now.
func (k Retention) RunOver(h Holding, now time.Time) bool {
	return h.ends() && over(k.Runs, h.FinishedAt, now)
}

// ArtifactsOver says whether the days of the run's artifacts are over.
func (k Retention) ArtifactsOver(h Holding, now time.Time) bool {
	return h.ends() && over(k.ArtifactDays(h.State, h.Counts), h.FinishedAt, now)
}

// Excess says whether the artifacts of a run go because those of the project take too
// many bytes more than they may. The run that ended first must be asked first.
func (h Holding) Excess(bytes int64) bool { return h.ends() && bytes > 0 }

func over(days int, since, now time.Time) bool {
	return days > 0 && since.Before(Before(days, now))
}

// LatestOver is the instant before which a run must have ended for one of its days to
// be over; zero if it keeps everything forever.
func (k Retention) LatestOver(now time.Time) (latest time.Time) {
	for _, days := range []int{k.Runs, k.FailedArtifacts, k.PassedArtifacts} {
		if at := Before(days, now); at.After(latest) {
			latest = at
		}
	}
	return latest
}

// check says which setting is wrong, by its name in the REST API.
func (k Retention) check() error {
	for _, days := range []struct {
		name         string
		value, least int
	}{
		{"runDays", k.Runs, 0}, {"artifactsFailedDays", k.FailedArtifacts, 0}, {"artifactsPassedDays", k.PassedArtifacts, 0},
		{"outputDays", k.Output, 0}, {"retentionDays", k.Deliveries, 1},
	} {
		if days.value < days.least || days.value > MaxRetentionDays {
			return Errorf(Invalid, "%s must be a number from %d to %d.", days.name, days.least, MaxRetentionDays)
		}
	}
	if k.ArtifactBytes < 0 || k.ArtifactBytes > MaxArtifactBytes {
		return Errorf(Invalid, "artifactsMaxBytes must be a number from 0 to %d.", int64(MaxArtifactBytes))
	}
	return nil
}
