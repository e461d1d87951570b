package api

import (
	"fmt"

	"runbell/internal/run"
	"runbell/internal/store"
)

const maxReason = 500

type cancelRequest struct {
	Reason nullable[string] `json:"reason" doc:"At most 500 characters."`
}

type canceledRun struct {
	RunID       string     `json:"runId"`
	Cancelled   bool       `json:"cancelled" doc:"false if the run had already ended."`
	CancelledAt *timestamp `json:"cancelledAt"`
	Actor       *string    `json:"actor"`
	Reason      *string    `json:"reason"`
}

func showCanceled(v run.Run) canceledRun {
	out := canceledRun{RunID: v.ID, Cancelled: v.State == run.Canceled}
	if c := v.Cancellation; c != nil {
		out.CancelledAt, out.Actor, out.Reason = known(c.At), &c.Actor, &c.Reason
	}
	return out
}

func (a *api) cancelRun(r *request, b cancelRequest) (canceledRun, error) {
	reason := b.Reason.or("")
	if err := checkText("reason", reason, 0, maxReason); err != nil {
		return canceledRun{}, err
	}
	v, err := a.Runs.Cancel(r.Context(), r.id(), "api", reason)
	return showCanceled(v), err
}

type cancelGitHubRequest struct {
	GitHubRunID      number           `json:"githubRunId"`
	GitHubRunAttempt number           `json:"githubRunAttempt"`
	ProjectID        nullable[string] `json:"projectId" doc:"Only runs of this project."`
	CIBuildID        nullable[string] `json:"ciBuildId" doc:"Only runs of this build."`
}

type canceledRuns struct {
	Runs []canceledRun `json:"runs" doc:"The runs that were canceled; empty if none was running."`
}

func (a *api) cancelGitHub(r *request, b cancelGitHubRequest) (canceledRuns, error) {
	projectID, buildID := b.ProjectID.or(""), b.CIBuildID.or("")
	for _, f := range []struct {
		name, value string
		least       int
	}{
		{"githubRunId", string(b.GitHubRunID), 1}, {"githubRunAttempt", string(b.GitHubRunAttempt), 1},
		{"projectId", projectID, 0}, {"ciBuildId", buildID, 0},
	} {
		if err := checkText(f.name, f.value, f.least, run.MaxNameLength); err != nil {
			return canceledRuns{}, err
		}
	}
	out := canceledRuns{Runs: []canceledRun{}}
	var running []run.Run
	err := a.DB.Read(r.Context(), func(tx *store.Tx) (err error) {
		if projectID != "" {
			if err := r.sees(projectID); err != nil {
				return err
			}
			if _, err := tx.Project(r.Context(), projectID); err != nil {
				return err
			}
		}
		running, err = tx.RunningOf(r.Context(), run.CI{Provider: "githubActions", Params: map[string]string{
			"githubRunId": string(b.GitHubRunID), "githubRunAttempt": string(b.GitHubRunAttempt)}})
		return err
	})
	if err != nil {
		return out, err
	}
	reason := fmt.Sprintf("GitHub Actions run %s, attempt %s was canceled", run.Clip(string(b.GitHubRunID), 40),
		run.Clip(string(b.GitHubRunAttempt), 40))
	for _, v := range running {
		if !r.by.Sees(v.ProjectID) || projectID != "" && v.ProjectID != projectID || buildID != "" && v.CIBuildID != buildID {
			continue
		}
		after, err := a.Runs.Cancel(r.Context(), v.ID, "api", reason)
		if err != nil {
			return out, err
		}
		if after.State == run.Canceled { // it may have ended by itself meanwhile
			out.Runs = append(out.Runs, showCanceled(after))
		}
	}
	return out, nil
}

type cancelBuildRequest struct {
	RecordKey string           `json:"recordKey"`
	ProjectID string           `json:"projectId"`
	CIBuildID nullable[string] `json:"ciBuildId" doc:"The build to cancel, unless you send runId."`
	RunID     nullable[string] `json:"runId"`
	Reason    nullable[string] `json:"reason" doc:"The reason, shown to machines and people."`
}

type canceledBuild struct {
	RunID        *string       `json:"runId" doc:"null if there was nothing to cancel."`
	Cancellation *cancellation `json:"cancellation"`
}

// cancelBuild is what "currents cancel" calls at the end of a CI job: having
// nothing to cancel must not fail the job.
func (a *api) cancelBuild(r *request, b cancelBuildRequest) (canceledBuild, error) {
	runID, buildID := b.RunID.or(""), b.CIBuildID.or("")
	if b.ProjectID == "" {
		return canceledBuild{}, run.Errorf(run.Invalid, "projectId is missing.")
	}
	if runID == "" && buildID == "" {
		return canceledBuild{}, run.Errorf(run.Invalid, "Say what to cancel: send ciBuildId or runId.")
	}
	for name, value := range map[string]string{"projectId": b.ProjectID, "runId": runID, "ciBuildId": buildID,
		"reason": b.Reason.or("")} {
		if err := checkText(name, value, 0, run.MaxNameLength); err != nil {
			return canceledBuild{}, err
		}
	}
	if err := a.Keys.Record(r.Context(), b.ProjectID, b.RecordKey); err != nil {
		return canceledBuild{}, err
	}
	var target run.Run
	err := a.DB.Read(r.Context(), func(tx *store.Tx) (err error) {
		if runID != "" {
			target, err = tx.Run(r.Context(), runID)
		} else {
			target, err = tx.Build(r.Context(), b.ProjectID, buildID)
		}
		return err
	})
	if run.KindOf(err) == run.NotFound || err == nil && target.ProjectID != b.ProjectID {
		return canceledBuild{}, nil // the key is good for one project: others have no runs
	}
	if err != nil {
		return canceledBuild{}, err
	}
	v, err := a.Runs.Cancel(r.Context(), target.ID, "record-key", b.Reason.or("api"))
	if err != nil || v.State != run.Canceled {
		return canceledBuild{}, err
	}
	return canceledBuild{&v.ID, showCancellation(v.Cancellation)}, nil
}

type heartbeatRequest struct {
	MachineID string `json:"machineId" doc:"The machineId from the response to POST /runs."`
}

// maxMachineCredential leaves room for the signature after a name that a client
// chose.
const maxMachineCredential = 2 * run.MaxNameLength

type heartbeatAnswer struct {
	Cancelled bool    `json:"cancelled"`
	Reason    *string `json:"reason" doc:"Who canceled the run, and why."`
}

func (a *api) heartbeat(r *request, b heartbeatRequest) (heartbeatAnswer, error) {
	if err := checkText("machineId", b.MachineID, 1, maxMachineCredential); err != nil {
		return heartbeatAnswer{}, err
	}
	machineID, err := a.Reporters.Machine(r.id(), b.MachineID)
	if err != nil {
		return heartbeatAnswer{}, err
	}
	heard, err := a.Runs.Heartbeat(r.Context(), r.id(), machineID)
	return heartbeatAnswer{heard.Cancelled, text(heard.Reason)}, err
}
