package store

import (
	"context"
	"strconv"
	"strings"
	"time"

	"runbell/internal/database"
	"runbell/internal/run"
)

// RunFilter narrows a list of runs. Empty fields have no effect.
type RunFilter struct {
	Tags     []string
	AnyTag   bool // one of Tags is enough; else all are needed
	Branches []string
	Authors  []string
	Pull     int    // the number of a pull request
	Search   string // part of the ciBuildId or of the commit message
	States   []run.State
	Statuses []run.Status
	Since    time.Time
	Until    time.Time
	// Limit is a place beyond which the search does not go.
	Limit *Position
}

// Indexed reports whether the database reads only matching runs for the filter.
func (f RunFilter) Indexed() bool {
	return len(f.Tags)+len(f.States)+len(f.Statuses)+f.Pull == 0 && f.Search == "" &&
		(len(f.Branches) == 0 || len(f.Authors) == 0)
}

// runIndex names the index of a branch's or an author's runs. SQLite has no statistics,
// and would use the index of all runs for a search with a limit.
func (tx *Tx) runIndex(f RunFilter) string {
	switch {
	case len(f.Branches) == 1:
		return tx.OnSQLite(` INDEXED BY run_branch_created`)
	case len(f.Branches) == 0 && len(f.Authors) == 1:
		return tx.OnSQLite(` INDEXED BY run_author_created`)
	default:
		return ""
	}
}

// Runs lists the runs of a project, newest first.
func (tx *Tx) Runs(ctx context.Context, projectID string, f RunFilter, page Page) ([]run.Run, bool, error) {
	q := query{text: `SELECT ` + runColumns + ` FROM run` + tx.runIndex(f) + ` WHERE project_id = $1`,
		args: []any{projectID}}
	q.tags("tags", f.Tags, f.AnyTag)
	q.in("branch", f.Branches)
	q.in("author", f.Authors)
	if f.Pull > 0 {
		q.where(`pull_request = ? AND pull_request > 0`, f.Pull)
	}
	if f.Search != "" {
		part := document(f.Search)   // the commit is JSON text
		part = part[1 : len(part)-1] // without its quotes
		// The database lowers both sides, because the two databases treat letters outside
		// ASCII differently. The message is the last field of the document.
		q.where(`LOWER(ci_build_id) LIKE LOWER(?) ESCAPE '!' OR LOWER(commit_info) LIKE LOWER(?) ESCAPE '!'`,
			"%"+likeLiteral(f.Search)+"%", `%"message":"%`+likeLiteral(part)+"%")
	}
	states := make([]string, len(f.States))
	for i, s := range f.States {
		states[i] = string(s)
	}
	q.in("state", states)
	q.statuses(f.Statuses)
	q.between(f.Since, f.Until)
	q.upTo(f.Limit, page)
	return paged(ctx, tx, q, page, scanRun)
}

// NewestRun is when the newest run of a project was created; zero if it has none.
func (tx *Tx) NewestRun(ctx context.Context, projectID string) (time.Time, error) {
	var at database.NullInt64
	err := tx.QueryRow(ctx, `SELECT MAX(created_at) FROM run WHERE project_id = $1`, projectID).Scan(&at)
	return timeOrZero(at), err
}

// LatestOfPulls lists the latest run of each pull request of a project that matches the
// filter, newest first. Statuses are those of that run. Only ID, CreatedAt and the
// number of the pull request are set. Runs that were created after asOf change no place in the
// list: of a pull request that has none before, the first one counts.
func (tx *Tx) LatestOfPulls(ctx context.Context, projectID string, f RunFilter, asOf time.Time,
	page Page) ([]run.Run, bool, error) {
	q := query{text: `SELECT id, created_at, pull_request FROM (
		SELECT id, created_at, pull_request, state, ROW_NUMBER() OVER (PARTITION BY pull_request
			ORDER BY CASE WHEN created_at <= $2 THEN -created_at ELSE created_at END, id DESC) AS nth
		FROM run WHERE project_id = $1 AND pull_request > 0`, args: []any{projectID, micros(asOf)}}
	q.tags("tags", f.Tags, f.AnyTag)
	q.in("branch", f.Branches)
	q.in("author", f.Authors)
	q.text += `) AS run WHERE nth = 1`
	q.statuses(f.Statuses)
	return paged(ctx, tx, q, page, func(r database.Row) (run.Run, error) {
		v := run.Run{Commit: run.Commit{PullRequest: &run.PullRequest{}}}
		var created int64
		err := r.Scan(&v.ID, &created, &v.Commit.PullRequest.Number)
		v.CreatedAt = timeOf(created)
		return v, err
	})
}

// Term is a field by which runs can be filtered.
type Term string

// The terms.
const (
	TagTerm              Term = "tag"
	GroupTerm            Term = "group"
	BranchTerm           Term = "branch"
	AuthorNameTerm       Term = "authorName"
	AuthorEmailTerm      Term = "authorEmail"
	FrameworkTerm        Term = "framework"
	FrameworkVersionTerm Term = "frameworkVersion"
	ClientVersionTerm    Term = "clientVersion"
)

// Terms lists them.
func Terms() []Term {
	return []Term{TagTerm, GroupTerm, BranchTerm, AuthorNameTerm, AuthorEmailTerm, FrameworkTerm, FrameworkVersionTerm,
		ClientVersionTerm}
}

// TermValue is a value of a term, and when the latest run with it was created: as of some
// instant, or the first one if all are newer.
type TermValue struct {
	Value    string
	LastSeen time.Time
}

// termRuns limits how many runs TermValues reads.
const termRuns = 20_000

// TermValues lists the values that a term has in the latest runs of a project. Groups
// without a name are left out.
func (tx *Tx) TermValues(ctx context.Context, projectID string, term Term, asOf time.Time) ([]TermValue, error) {
	column, join := map[Term]string{TagTerm: "r.tags", GroupTerm: "g.name", BranchTerm: "r.branch",
		AuthorNameTerm: "r.author", AuthorEmailTerm: "r.commit_info", FrameworkTerm: "r.client",
		FrameworkVersionTerm: "r.client", ClientVersionTerm: "r.client"}[term], ""
	if term == GroupTerm {
		join = ` JOIN run_group g ON g.run_id = r.id AND g.explicit = 1`
	}
	rows, err := tx.Query(ctx, `SELECT `+column+
		`, COALESCE(MAX(CASE WHEN r.created_at <= $3 THEN r.created_at END), MIN(r.created_at))
		FROM (SELECT * FROM run WHERE project_id = $1 ORDER BY created_at DESC, id DESC LIMIT $2) AS r`+
		join+
		` GROUP BY `+column, projectID, termRuns, micros(asOf))
	seen, until := map[string]int64{}, micros(asOf)
	_, err = database.All(rows, err, func(r database.Row) (string, error) {
		var text string
		var at int64
		if err := r.Scan(&text, &at); err != nil {
			return "", err
		}
		values, err := term.values(text)
		for _, v := range values {
			was, known := seen[v]
			switch {
			case v == "":
			case known && max(was, at) <= until:
				seen[v] = max(was, at)
			case known:
				seen[v] = min(was, at)
			default:
				seen[v] = at
			}
		}
		return "", err
	})
	list := make([]TermValue, 0, len(seen))
	for v, at := range seen {
		list = append(list, TermValue{v, timeOf(at)})
	}
	return list, err
}

// values reads the values of a term from its column.
func (t Term) values(text string) (values []string, err error) {
	var commit run.Commit
	var client run.Client
	switch t {
	case TagTerm:
		err = parse(text, &values)
		return values, err
	case AuthorEmailTerm:
		err = parse(text, &commit)
		return []string{commit.AuthorEmail}, err
	case FrameworkTerm:
		err = parse(text, &client)
		return []string{client.Framework.Name}, err
	case FrameworkVersionTerm:
		err = parse(text, &client)
		return []string{client.Framework.Version}, err
	case ClientVersionTerm:
		err = parse(text, &client)
		return []string{client.Version}, err
	default:
		return []string{text}, nil
	}
}

// SearchLimit returns the last run that a search should read: depth runs after a
// position, of the project and of the branch or author of the filter. It also reports
// whether there is one. Without it, a search that finds little would read every run.
func (tx *Tx) SearchLimit(ctx context.Context, projectID string, f RunFilter, page Page,
	depth int) (Position, bool, error) {
	q := query{text: `SELECT created_at, id FROM run` + tx.runIndex(f) + ` WHERE project_id = $1`, args: []any{projectID}}
	q.in("branch", f.Branches)
	if len(f.Branches) == 0 {
		q.in("author", f.Authors)
	}
	q.between(f.Since, f.Until)
	return tx.limit(ctx, q, page, depth)
}

// Choices are the branches, authors and tags of a project's latest runs.
type Choices struct{ Branches, Authors, Tags []string }

// RunChoices lists the values by which the latest runs of a project can be filtered.
func (tx *Tx) RunChoices(ctx context.Context, projectID string) (Choices, error) {
	const latest = 300
	seen := map[string]bool{}
	var c Choices
	rows, err := tx.Query(ctx, `SELECT branch, author, tags FROM run WHERE project_id = $1
		ORDER BY created_at DESC, id DESC LIMIT $2`, projectID, latest)
	_, err = database.All(rows, err, func(r database.Row) (string, error) {
		var branch, author, doc string
		if err := r.Scan(&branch, &author, &doc); err != nil {
			return "", err
		}
		var tags []string
		if err := parse(doc, &tags); err != nil {
			return "", err
		}
		add := func(list *[]string, kind, value string) {
			if value != "" && !seen[kind+value] {
				seen[kind+value] = true
				*list = append(*list, value)
			}
		}
		add(&c.Branches, "b", branch)
		add(&c.Authors, "a", author)
		for _, t := range tags {
			add(&c.Tags, "t", t)
		}
		return "", nil
	})
	return c, err
}

// GroupChoices lists the groups of a project's latest runs that somebody named.
func (tx *Tx) GroupChoices(ctx context.Context, projectID string) ([]string, error) {
	const latest = 300
	rows, err := tx.Query(ctx, `SELECT DISTINCT g.name
		FROM (SELECT id FROM run WHERE project_id = $1 ORDER BY created_at DESC, id DESC LIMIT $2) AS r
		JOIN run_group g ON g.run_id = r.id AND g.explicit = 1 ORDER BY g.name`, projectID, latest)
	return database.All(rows, err, func(r database.Row) (name string, err error) { err = r.Scan(&name); return name, err })
}

// RecentRun is a run in a strip of the latest runs. Of Run it has the id, build, commit,
// state, running groups and times.
type RecentRun struct {
	run.Run
	Counts     run.Counts
	LastReport time.Time
}

// RecentRuns lists the latest runs of a project, of one branch if it is given,
// newest first.
func (tx *Tx) RecentRuns(ctx context.Context, projectID, branch string, limit int) ([]RecentRun, error) {
	const columns = `id, ci_build_id, commit_info, state, running_groups, created_at, finished_at`
	q := query{text: `SELECT ` + columns + ` FROM run WHERE project_id = $1`, args: []any{projectID}}
	if branch != "" {
		q.where(`branch = ?`, branch)
	}
	rows, err := tx.Query(ctx, `SELECT `+prefixed("r", columns)+`, MAX(g.heard_at), `+sumOfGroups+`
		FROM (`+q.text+` ORDER BY created_at DESC, id DESC LIMIT `+strconv.Itoa(limit)+`) AS r LEFT
			JOIN run_group g ON g.run_id = r.id
		GROUP BY `+prefixed("r", columns)+` ORDER BY r.created_at DESC, r.id DESC`, q.args...)
	return database.All(rows, err, func(r database.Row) (RecentRun, error) {
		var v RecentRun
		var commit string
		var created int64
		var finished, heard database.NullInt64
		c := &v.Counts
		if err := r.Scan(&v.ID, &v.CIBuildID, &commit, &v.State, &v.RunningGroups, &created, &finished, &heard,
			&c.Announced, &c.Passes, &c.Failures, &c.Pending, &c.Skipped, &c.Retries, &c.Flaky); err != nil {
			return v, err
		}
		v.CreatedAt, v.FinishedAt, v.LastReport = timeOf(created), timeOrZero(finished), timeOrZero(heard)
		if !heard.Valid {
			v.LastReport = v.CreatedAt
		}
		return v, parse(commit, &v.Commit)
	})
}

// sumOfGroups are the counts of a run from its groups g.
const sumOfGroups = `CAST(COALESCE(SUM(g.announced), 0) AS BIGINT), CAST(COALESCE(SUM(g.passes), 0) AS BIGINT),
	CAST(COALESCE(SUM(g.failures), 0) AS BIGINT), CAST(COALESCE(SUM(g.pending), 0) AS BIGINT),
	CAST(COALESCE(SUM(g.skipped), 0) AS BIGINT), CAST(COALESCE(SUM(g.retries), 0) AS BIGINT),
	CAST(COALESCE(SUM(g.flaky), 0) AS BIGINT)`

// statuses adds the condition that a run has one of the statuses, see
// run.StatusOf.
func (q *query) statuses(list []run.Status) {
	const red = `EXISTS (SELECT 1 FROM run_group g WHERE g.run_id = run.id AND g.failures + g.skipped > 0)`
	var conditions []string
	for _, s := range list {
		switch s {
		case run.StatusRunning:
			conditions = append(conditions, `(state = 'running' AND NOT `+red+`)`)
		case run.StatusFailing:
			conditions = append(conditions, `(state = 'running' AND `+red+`)`)
		case run.StatusPassed:
			conditions = append(conditions, `(state = 'finished' AND NOT `+red+`)`)
		case run.StatusFailed:
			conditions = append(conditions, `(state IN ('timed_out', 'canceled') OR (state = 'finished' AND `+red+`))`)
		}
	}
	if len(conditions) > 0 {
		q.where(strings.Join(conditions, " OR "))
	}
}

// tags adds the condition that a column with a JSON list of tags has all of the tags, or
// any of them.
func (q *query) tags(column string, tags []string, anyTag bool) {
	if len(tags) == 0 {
		return
	}
	conditions, args := []string{}, []any{}
	for _, t := range tags {
		// With the character before it in the list, because another tag may end in a quote and t.
		tag := likeLiteral(document(t)) + "%"
		conditions, args = append(conditions, `(`+column+` LIKE ? ESCAPE '!' OR `+column+` LIKE ? ESCAPE '!')`),
			append(args, "["+tag, "%,"+tag)
	}
	joint := " AND "
	if anyTag {
		joint = " OR "
	}
	q.where(strings.Join(conditions, joint), args...)
}

// anyLike adds the condition that a JSON column has one of the values under a key.
func (q *query) anyLike(column, key string, values []string) {
	if len(values) == 0 {
		return
	}
	conditions, args := []string{}, []any{}
	for _, v := range values {
		conditions = append(conditions, column+` LIKE ? ESCAPE '!'`)
		args = append(args, "%"+likeLiteral(key+document(v))+"%")
	}
	q.where(strings.Join(conditions, " OR "), args...)
}

func likeLiteral(s string) string {
	return strings.NewReplacer("!", "!!", "%", "!%", "_", "!_").Replace(s)
}
