package api

import (
	"slices"

	"runbell/internal/history"
	"runbell/internal/store"
)

type specPage struct {
	List         []specFile `json:"list"`
	Total        int        `json:"total"`
	NextPage     nextPage   `json:"nextPage"`
	CompleteUpTo timestamp  `json:"completeUpTo" doc:"Results that arrived before this time are counted."`
}

type specFile struct {
	Signature string      `json:"signature"`
	Spec      string      `json:"spec"`
	Metrics   specMetrics `json:"metrics"`
}

type specMetrics struct {
	AvgDuration       float64 `json:"avgDuration" doc:"Milliseconds, of executions that did not fail."`
	FailedExecutions  int     `json:"failedExecutions"`
	FailureRate       float64 `json:"failureRate"`
	FlakeRate         float64 `json:"flakeRate"`
	FlakyExecutions   int     `json:"flakyExecutions"`
	FullyReported     int     `json:"fullyReported" doc:"Executions in which every announced test has a result."`
	OverallExecutions int     `json:"overallExecutions"`
	SuiteSize         int     `json:"suiteSize" doc:"The largest number of tests in one execution."`
	TimeoutExecutions int     `json:"timeoutExecutions"`
	TimeoutRate       float64 `json:"timeoutRate"`
}

const maxPart = 200 // characters of what is searched for

func specFilters() []param {
	return period(slices.Concat([]param{tagOperator,
		{name: "specNameFilter", doc: "Part of the path, in any case; at most 200 characters."},
		{name: "includeFailedInDuration", doc: "Whether executions that failed count in avgDuration. Default: false.",
			enum: []string{"true", "false"}},
		{name: "order", doc: "Default: avgDuration.", enum: texts(history.SpecOrders())}}, sheets(50))...)
}

func (a *api) specFiles(r *request) (specPage, error) {
	var q history.SpecQuery
	var err error
	if q.Filter, err = r.historyFilter("tag_operator", "AND"); err != nil {
		return specPage{}, err
	}
	s, err := r.sheet(50)
	if err != nil {
		return specPage{}, err
	}
	if q.Order, err = choice(r, "order", history.SpecOrders(), history.ByAvgDuration); err != nil {
		return specPage{}, err
	}
	if q.Spec, err = r.text("specNameFilter", maxPart); err != nil {
		return specPage{}, err
	}
	all, err := r.yes("includeFailedInDuration")
	if err != nil {
		return specPage{}, err
	}
	q.FailedInDuration, q.Page, q.Limit, q.Ascending = all != nil && *all, s.page, s.limit, s.ascending
	out := specPage{List: []specFile{}}
	out.CompleteUpTo, err = a.inHistory(r, func(tx *store.Tx) error {
		list, total, err := a.Explorer.Specs(r.Context(), tx, r.id(), q)
		for _, v := range list {
			m := v.Metrics
			out.List = append(out.List, specFile{v.Signature, v.Path,
				specMetrics{m.AvgDuration, m.Failed, m.FailureRate, m.FlakeRate, m.Flaky, m.FullyReported, m.Overall, m.SuiteSize,
					m.TimedOut, m.TimeoutRate}})
		}
		out.Total, out.NextPage = total, s.next(total)
		return err
	})
	return out, err
}

// Tests.
