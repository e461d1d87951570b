package api

import (
	"runbell/internal/run"
)

// maxMachines limits how many machines one call resets, as Currents does.
const maxMachines = 63

type resetRequest struct {
	MachineID []string       `json:"machineId" doc:"1 to 63 machines of the run, as its specs name them."`
	Batched   nullable[bool] `json:"isBatchedOr8n" doc:"Accepted for clients of Currents, without effect."`
}

type resetRun struct {
	RunID string      `json:"runId"`
	Specs []resetSpec `json:"specs" doc:"The specs that can be claimed again: they failed, or had no results."`
}

type resetSpec struct {
	Spec      string `json:"spec"`
	GroupID   string `json:"groupId"`
	MachineID string `json:"machineId" doc:"The machine that ran the spec."`
}

func (a *api) resetRun(r *request, b resetRequest) (resetRun, error) {
	if err := a.Runs.CheckRun(r.Context(), r.id()); err != nil {
		return resetRun{}, err
	}
	if len(b.MachineID) == 0 || len(b.MachineID) > maxMachines {
		return resetRun{}, run.Errorf(run.Invalid, "machineId must be an array of 1 to %d machines.", maxMachines)
	}
	for _, id := range b.MachineID {
		if err := checkText("machineId", id, 1, run.MaxNameLength); err != nil {
			return resetRun{}, err
		}
	}
	taken, err := a.Runs.Reset(r.Context(), r.id(), b.MachineID)
	out := resetRun{RunID: r.id(), Specs: make([]resetSpec, len(taken))}
	for n, i := range taken {
		out.Specs[n] = resetSpec{i.Spec, i.GroupName, i.MachineID}
	}
	return out, err
}
