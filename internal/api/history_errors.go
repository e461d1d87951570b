package api

import (
	"slices"

	"runbell/internal/history"
	"runbell/internal/run"
	"runbell/internal/store"
)

type errorPage struct {
	List         []errorItem `json:"list"`
	Timeline     []errorDay  `json:"timeline" doc:"Days with an error, oldest first."`
	Count        int         `json:"count" doc:"On this page."`
	Total        int         `json:"total"`
	NextPage     nextPage    `json:"nextPage"`
	CompleteUpTo timestamp   `json:"completeUpTo" doc:"Results that arrived before this time are counted."`
}

type errorItem struct {
	Fingerprint string       `json:"fingerprint" doc:"The same for errors that differ only in numbers, ids, times, paths, URLs and quoted values."`
	Message     string       `json:"message" doc:"The headline of one of them."`
	Category    *string      `json:"error_category" doc:"Always null, like the next two: Runbell groups errors by message only."`
	Action      *string      `json:"error_action"`
	Target      *string      `json:"error_target"`
	Count       int          `json:"count" doc:"Results that failed or were flaky with this error, and specs that crashed with it."`
	Details     errorDetails `json:"details"`
	FirstSeen   timestamp    `json:"firstSeen"`
	LastSeen    timestamp    `json:"lastSeen"`
}

type errorDetails struct {
	Tests    counted `json:"tests"`
	Branches counted `json:"branches"`
}

type counted struct {
	Count int `json:"count"`
}

type errorDay struct {
	Date  timestamp   `json:"date"`
	Count int         `json:"count"`
	Items []errorItem `json:"items" doc:"The top errors of the day."`
}

func showErrors(list []history.Error) []errorItem {
	out := make([]errorItem, len(list))
	for n, e := range list {
		out[n] = errorItem{Fingerprint: e.Fingerprint, Message: e.Headline, Count: e.Count,
			Details: errorDetails{counted{e.Tests}, counted{e.Branches}}, FirstSeen: timestamp(e.FirstSeen),
			LastSeen: timestamp(e.LastSeen)}
	}
	return out
}

var errorMetrics = map[string]history.ErrorOrder{"occurrence": history.ByCount, "test": history.ByTests,
	"branch": history.ByBranches}

func errorFilters() []param {
	return period(slices.Concat([]param{
		{name: "tags_logical_operator", doc: "Whether a run needs all of tags[], or one of them. Default: OR.",
			enum: []string{"AND", "OR"}},
		{name: "error_message", doc: "Part of the message, in any case; at most 200 characters."},
		{name: "order_by", doc: "Default: count.", enum: texts(history.ErrorOrders())},
		{name: "group_by[]", enum: []string{"message"}, repeats: true},
		{name: "metric", doc: "How the items of a day are chosen. Default: occurrence.",
			enum: []string{"occurrence", "test", "branch"}},
		{name: "top_n", doc: "Maximum number of items per day, 1 to 50. Default: 5.", format: "integer"}}, sheets(100))...)
}

func (r *request) errorQuery() (q history.ErrorQuery, s sheet, err error) {
	for _, name := range []string{"error_target", "error_category", "error_action"} {
		if r.query.Get(name) != "" {
			return q, s, run.Errorf(run.Invalid,
				"%s is not supported, because Runbell groups errors only by message: use error_message.", name)
		}
	}
	if q.Filter, err = r.historyFilter("tags_logical_operator", "OR"); err != nil {
		return q, s, err
	}
	if s, err = r.sheet(100); err != nil {
		return q, s, err
	}
	if q.Message, err = r.text("error_message", maxPart); err != nil {
		return q, s, err
	}
	if q.Order, err = choice(r, "order_by", history.ErrorOrders(), history.ByCount); err != nil {
		return q, s, err
	}
	if _, err := choices(r, "group_by", []string{"message"}); err != nil {
		return q, s, err
	}
	metric, err := choice(r, "metric", []string{"occurrence", "test", "branch"}, "occurrence")
	if err != nil {
		return q, s, err
	}
	q.TopBy, q.Page, q.Limit, q.Ascending = errorMetrics[metric], s.page, s.limit, s.ascending
	q.Top, err = r.whole("top_n", 1, 50, 5)
	return q, s, err
}

func (a *api) errors(r *request) (errorPage, error) {
	q, s, err := r.errorQuery()
	if err != nil {
		return errorPage{}, err
	}
	var out errorPage
	out.CompleteUpTo, err = a.inHistory(r, func(tx *store.Tx) error {
		found, err := a.Explorer.Errors(r.Context(), tx, r.id(), q)
		out.List, out.Timeline = showErrors(found.List), make([]errorDay, len(found.Timeline))
		for n, d := range found.Timeline {
			out.Timeline[n] = errorDay{timestamp(d.Day), d.Count, showErrors(d.Top)}
		}
		out.Count, out.Total, out.NextPage = len(found.List), found.Total, s.next(found.Total)
		return err
	})
	return out, err
}

// Results of a test.
