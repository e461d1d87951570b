package api

import (
	"runbell/internal/history"
	"runbell/internal/run"
	"runbell/internal/store"
)

type projectInsights struct {
	ProjectID  string         `json:"projectId"`
	DateStart  timestamp      `json:"dateStart"`
	DateEnd    timestamp      `json:"dateEnd"`
	Resolution string         `json:"resolution"`
	Tags       []string       `json:"tags"`
	Branches   []string       `json:"branches"`
	Authors    []string       `json:"authors"`
	Groups     []string       `json:"groups"`
	Results    insightResults `json:"results"`
}

type insightResults struct {
	Overall  insight              `json:"overall"`
	Timeline []map[string]insight `json:"timeline" doc:"Oldest first. Each has one key, the start of the step. Weeks begin on Monday; all times are UTC."`
}

type insight struct {
	Runs  runMetrics    `json:"runs"`
	Tests resultMetrics `json:"tests"`
}

type runMetrics struct {
	Total              int     `json:"total"`
	Cancelled          int     `json:"cancelled"`
	Timeouts           int     `json:"timeouts"`
	Completed          int     `json:"completed" doc:"Whether every spec has results."`
	Failed             int     `json:"failed" doc:"Including runs that were canceled or timed out."`
	Passed             int     `json:"passed"`
	AvgDurationSeconds float64 `json:"avgDurationSeconds" doc:"Of runs that ended."`
	AvgSuccessRate     float64 `json:"avgSuccessRate" doc:"The average share of tests that passed in runs that ended: 0 to 1."`
}

type resultMetrics struct {
	Total   int `json:"total"`
	Failed  int `json:"failed"`
	Passed  int `json:"passed"`
	Pending int `json:"pending"`
	Skipped int `json:"skipped"`
	Flaky   int `json:"flaky"`
}

func showInsight(i history.Insight) insight {
	c := i.Tests
	return insight{
		runMetrics{i.Runs, i.Canceled, i.TimedOut, i.Finished, i.Failed, i.Passed, i.AvgDuration.Seconds(), i.SuccessRate},
		resultMetrics{c.Overall(), c.Failures, c.Passes, c.Pending, c.Skipped, c.Flaky},
	}
}

func (a *api) insights(r *request) (projectInsights, error) {
	f, err := r.historyFilter("tag_operator", "AND")
	if err != nil {
		return projectInsights{}, err
	}
	by, err := choice(r, "resolution", history.Resolutions(), history.Daily)
	if err != nil {
		return projectInsights{}, err
	}
	if by.Steps(f.Since, f.Until) > history.MaxSteps {
		return projectInsights{}, run.Errorf(run.Invalid,
			"resolution %s has more than %d steps in this period: use a coarser one.", by, history.MaxSteps)
	}
	list := func(v []string) []string { return append([]string{}, v...) }
	out := projectInsights{ProjectID: r.id(), DateStart: timestamp(f.Since), DateEnd: timestamp(f.Until),
		Resolution: string(by), Tags: list(f.Tags), Branches: list(f.Branches), Authors: list(f.Authors),
		Groups: list(f.Groups)}
	_, err = a.inHistory(r, func(tx *store.Tx) error {
		overall, timeline, err := history.Insights(r.Context(), tx, r.id(), f, by)
		out.Results = insightResults{showInsight(overall), make([]map[string]insight, len(timeline))}
		for n, step := range timeline {
			out.Results.Timeline[n] = map[string]insight{step.Start.Format(timeLayout): showInsight(step)}
		}
		return err
	})
	return out, err
}

// Spec files.
