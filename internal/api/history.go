package api

import (
	"strconv"

	"runbell/internal/run"
	"runbell/internal/store"
)

// period reads the dates that calls about the past need.
func (r *request) period(f *store.HistoryFilter) (err error) {
	f.Since, f.Until, err = r.dates()
	switch {
	case err != nil:
		return err
	case f.Since.IsZero():
		return run.Errorf(run.Invalid, "date_start is missing: send a time such as 2026-01-31T12:00:00Z, or a date.")
	case f.Until.IsZero():
		return run.Errorf(run.Invalid, "date_end is missing: send a time such as 2026-01-31T12:00:00Z, or a date.")
	}
	return nil
}

func period(more ...param) []param {
	return append([]param{
		{name: "date_start", doc: "Runs that were created at or after this time.", format: "date-time", required: true},
		{name: "date_end", doc: "Runs that were created before this time. A date without a time includes that day.",
			format: "date-time", required: true},
		{name: "tags[]", doc: "A tag of the run.", repeats: true},
		{name: "branches[]", repeats: true},
		{name: "authors[]", doc: "The name of the commit's author.", repeats: true},
		{name: "groups[]", repeats: true},
	}, more...)
}

var tagOperator = param{name: "tag_operator", doc: "Whether a run needs all of tags[], or one of them. Default: AND.",
	enum: []string{"AND", "OR"}}

// historyFilter reads the parameters of period and the operator of tags.
func (r *request) historyFilter(operator, absent string) (f store.HistoryFilter, err error) {
	if err := r.period(&f); err != nil {
		return f, err
	}
	for _, p := range []struct {
		into  *[]string
		names []string // the others are older ones of Currents
	}{{&f.Tags, []string{"tags", "tag"}}, {&f.Branches, []string{"branches", "branch"}},
		{&f.Authors, []string{"authors", "git_author"}}, {&f.Groups, []string{"groups", "group"}}} {
		if *p.into, err = r.all(p.names...); err != nil {
			return f, err
		}
	}
	f.AnyTag, err = r.anyTag(operator, absent)
	return f, err
}

// anyTag reads the operator of tags: whether a run needs only one of them.
func (r *request) anyTag(operator, absent string) (bool, error) {
	op, err := choice(r, operator, []string{"AND", "OR"}, absent)
	return op == "OR", err
}

// whole reads a parameter that is a number from least to most.
func (r *request) whole(name string, least, most, absent int) (int, error) {
	s := r.query.Get(name)
	if s == "" {
		return absent, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < least || n > most {
		return 0, run.Errorf(run.Invalid, "%s must be a number from %d to %d.", name, least, most)
	}
	return n, nil
}

// yes reads a parameter that is true or false, nil if absent.
func (r *request) yes(name string) (*bool, error) {
	v, err := choice(r, name, []string{"true", "false"}, "")
	if v == "" {
		return nil, err
	}
	return new(v == "true"), err
}

// text reads a parameter that is a part of something.
func (r *request) text(name string, most int) (string, error) {
	v := r.query.Get(name)
	return v, checkText(name, v, 0, most)
}

// sheet is a page with a number.
type sheet struct {
	page, limit int
	ascending   bool
}

const maxSheet = 1_000_000

func sheets(limit int) []param {
	return []param{
		{name: "page", doc: "The number of the page, from 0.", format: "integer"},
		{name: "limit", doc: "Maximum number of items, 1 to " + strconv.Itoa(limit) + ". Default: 50.", format: "integer"},
		{name: "dir", doc: "Default: desc.", enum: []string{"asc", "desc"}},
	}
}

func (r *request) sheet(limit int) (s sheet, err error) {
	if s.page, err = r.whole("page", 0, maxSheet, 0); err != nil {
		return s, err
	}
	if s.limit, err = r.whole("limit", 1, limit, 50); err != nil {
		return s, err
	}
	dir, err := choice(r, "dir", []string{"asc", "desc"}, "desc")
	s.ascending = dir == "asc"
	return s, err
}

// nextPage is the number of the next page, and false in JSON if it is 0.
type nextPage int

// MarshalJSON writes the number or false.
func (n nextPage) MarshalJSON() ([]byte, error) {
	if n == 0 {
		return []byte("false"), nil
	}
	return strconv.AppendInt(nil, int64(n), 10), nil
}

func (s sheet) next(total int) nextPage {
	if (s.page+1)*s.limit >= total {
		return 0
	}
	return nextPage(s.page + 1)
}

// inHistory runs f on a project that exists, and answers up to when the history is
// complete.
func (a *api) inHistory(r *request, f func(*store.Tx) error) (upTo timestamp, err error) {
	err = a.DB.Read(r.Context(), func(tx *store.Tx) error {
		if _, err := tx.Project(r.Context(), r.id()); err != nil {
			return err
		}
		at, err := tx.HistoryCompleteUpTo(r.Context())
		if err != nil {
			return err
		}
		upTo = timestamp(at)
		return f(tx)
	})
	return upTo, err
}

// Insights.
