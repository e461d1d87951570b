package api

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"runbell/internal/run"
	"runbell/internal/store"
)

// What filters can be set to: the values of terms, and pull requests. A new run takes its
// branch and its pull request to the front of these lists. So that a client who walks
// through one meets each item once, the cursors say as of when it is walked: newer runs
// change no place.

// walk reads the page of such a list, and as of when it is walked: zero if the walk begins.
func (r *request) walk() (page store.Page, asOf time.Time, err error) {
	if page, err = r.page(); err != nil {
		return page, asOf, err
	}
	for name, at := range map[string]*store.Position{"starting_after": page.After, "ending_before": page.Before} {
		if at == nil {
			continue
		}
		n := strings.LastIndexByte(at.ID, '@')
		us, err := strconv.ParseInt(at.ID[n+1:], 36, 64)
		if n < 0 || err != nil {
			return page, asOf, run.Errorf(run.Invalid, "%s must be the cursor of an item of this list.", name)
		}
		at.ID, asOf = at.ID[:n], time.UnixMicro(us).UTC()
	}
	return page, asOf, nil
}

// begin makes a project's walk begin now, unless it has begun.
func begin(ctx context.Context, tx *store.Tx, projectID string, asOf *time.Time) (err error) {
	if asOf.IsZero() {
		*asOf, err = tx.NewestRun(ctx, projectID)
	}
	return err
}

func walkCursor(at time.Time, id string, asOf time.Time) string {
	return cursorOf(at, id+"@"+strconv.FormatInt(asOf.UnixMicro(), 36))
}

type termValue struct {
	Value    string    `json:"value"`
	LastSeen timestamp `json:"lastSeen" doc:"When the latest run with this value was created."`
	Cursor   string    `json:"cursor"`
}

const maxTermSearch = 128

func termFilters() []param {
	list := cursors()
	list[0].doc = "Maximum number of items, 1 to 100. Default: 100."
	return append(list,
		param{name: "dir", doc: "Sorted by when the values were last seen. Default: desc.", enum: []string{"asc", "desc"}},
		param{name: "search", doc: "Part of the value, in any case; at most 128 characters."})
}

func (a *api) terms(r *request) ([]termValue, bool, error) {
	term := store.Term(r.PathValue("term"))
	if !slices.Contains(store.Terms(), term) {
		return nil, false, run.Errorf(run.NotFound, "There is no term %q: use %s.", run.Clip(string(term), 40),
			oneOf(store.Terms()))
	}
	page, asOf, err := r.walk()
	if err != nil {
		return nil, false, err
	}
	if r.query.Get("limit") == "" {
		page.Limit = maxLimit
	}
	dir, err := choice(r, "dir", []string{"asc", "desc"}, "desc")
	if err != nil {
		return nil, false, err
	}
	search, err := r.text("search", maxTermSearch)
	if err != nil {
		return nil, false, err
	}
	var list []store.TermValue
	err = a.DB.Read(r.Context(), func(tx *store.Tx) error {
		if _, err := tx.Project(r.Context(), r.id()); err != nil {
			return err
		}
		if err := begin(r.Context(), tx, r.id(), &asOf); err != nil {
			return err
		}
		list, err = tx.TermValues(r.Context(), r.id(), term, asOf)
		return err
	})
	if err != nil {
		return nil, false, err
	}
	part := strings.ToLower(search)
	list = slices.DeleteFunc(list, func(v store.TermValue) bool {
		return !strings.Contains(strings.ToLower(v.Value),
			part)
	})
	list, more := pageOf(list, page, dir == "asc")
	out := make([]termValue, len(list))
	for n, v := range list {
		out[n] = termValue{v.Value, timestamp(v.LastSeen), walkCursor(v.LastSeen, v.Value, asOf)}
	}
	return out, more, nil
}

// pageOf cuts a page out of values in the order of their last time.
func pageOf(list []store.TermValue, page store.Page, ascending bool) ([]store.TermValue, bool) {
	compare := func(a, b store.TermValue) int {
		order := cmp.Or(b.LastSeen.Compare(a.LastSeen), cmp.Compare(b.Value, a.Value))
		if ascending {
			return -order
		}
		return order
	}
	slices.SortFunc(list, compare)
	switch {
	case page.After != nil:
		at := store.TermValue{Value: page.After.ID, LastSeen: page.After.At}
		list = slices.DeleteFunc(list, func(v store.TermValue) bool { return compare(v, at) <= 0 })
	case page.Before != nil:
		at := store.TermValue{Value: page.Before.ID, LastSeen: page.Before.At}
		list = slices.DeleteFunc(list, func(v store.TermValue) bool { return compare(v, at) >= 0 })
		more := len(list) > page.Limit
		return list[max(0, len(list)-page.Limit):], more
	}
	more := len(list) > page.Limit
	return list[:min(len(list), page.Limit)], more
}

type pullRequest struct {
	PullID  int          `json:"pr_id" doc:"The number at the Git host."`
	Title   *string      `json:"title"`
	URL     *string      `json:"url"`
	Author  *string      `json:"author" doc:"The account at the Git host."`
	Branch  *string      `json:"branch"`
	LastRun timestamp    `json:"lastRunAt"`
	Runs    []runSummary `json:"runs" doc:"The latest runs, newest first."`
	Cursor  string       `json:"cursor"`
}

const (
	maxPulls       = 50
	maxRunsPerPull = 10
)

func pullFilters() []param {
	list := cursors()
	list[0].doc = "Maximum number of items, 1 to 50. Default: 10."
	return append(list,
		param{name: "runs_per_pr", doc: "Maximum number of runs of each, 1 to 10. Default: 1.", format: "integer"},
		param{name: "tags[]", doc: "A tag of the run.", repeats: true}, tagOperator,
		param{name: "branches[]", repeats: true},
		param{name: "authors[]", doc: "The name of the commit's author.", repeats: true},
		param{name: "status", doc: "The status of the latest run.", enum: texts(statuses), repeats: true})
}

func (a *api) pullRequests(r *request) ([]pullRequest, bool, error) {
	page, asOf, err := r.walk()
	if err != nil {
		return nil, false, err
	}
	if page.Limit, err = r.whole("limit", 1, maxPulls, defaultLimit); err != nil {
		return nil, false, err
	}
	each, err := r.whole("runs_per_pr", 1, maxRunsPerPull, 1)
	if err != nil {
		return nil, false, err
	}
	filter, err := r.runFilter()
	if err != nil {
		return nil, false, err
	}
	var out []pullRequest
	var more bool
	err = a.DB.Read(r.Context(), func(tx *store.Tx) error {
		if _, err := tx.Project(r.Context(), r.id()); err != nil {
			return err
		}
		if err := begin(r.Context(), tx, r.id(), &asOf); err != nil {
			return err
		}
		latest, m, err := tx.LatestOfPulls(r.Context(), r.id(), filter, asOf, page)
		if err != nil {
			return err
		}
		more = m
		for _, v := range latest {
			of := store.RunFilter{Pull: v.Commit.PullRequest.Number, Tags: filter.Tags, AnyTag: filter.AnyTag,
				Branches: filter.Branches, Authors: filter.Authors}
			shown, err := a.showPull(r, tx, of, each)
			if err != nil {
				return err
			}
			shown.LastRun, shown.Cursor = timestamp(v.CreatedAt), walkCursor(v.CreatedAt, v.ID, asOf)
			out = append(out, shown)
		}
		return nil
	})
	return out, more, err
}

func (a *api) showPull(r *request, tx *store.Tx, of store.RunFilter, each int) (pullRequest, error) {
	runs, _, err := tx.Runs(r.Context(), r.id(), of, store.Page{Limit: each})
	if err != nil {
		return pullRequest{}, err
	}
	out := pullRequest{PullID: of.Pull, Runs: []runSummary{}}
	for n, v := range runs {
		if pull := v.Commit.PullRequest; n == 0 && pull != nil {
			out.Title, out.URL, out.Author, out.Branch = text(pull.Title), text(pull.URL), text(pull.Author),
				text(v.Commit.Branch)
		}
		shown, err := a.summarize(r.Context(), tx, v)
		if err != nil {
			return out, err
		}
		out.Runs = append(out.Runs, shown)
	}
	return out, nil
}
