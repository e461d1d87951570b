package store

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"runbell/internal/database"
	"runbell/internal/run"
)

// A run's rev is the sum of its own and its groups': so a verb on one group writes only
// that group's row.
const runColumns = `id, project_id, ci_build_id,
	rev + (SELECT COALESCE(CAST(SUM(g.rev) AS BIGINT), 0) FROM run_group g WHERE g.run_id = run.id), sequence, commit_info,
	tags, ci, client, fail_fast, completion_delay, state, running_groups, timed_out_groups, explicit, close_at, created_at,
	finished_at, canceled_by, cancel_reason, pinned_at, pinned_by, artifacts, artifact_bytes, artifacts_removed_at,
	output_removed_at`

func scanRun(r database.Row) (run.Run, error) {
	var v run.Run
	var commit, tags, ci, client, state string
	var delay, explicit, created int64
	var closeAt, finished, pinned, artifactsRemoved, outputRemoved database.NullInt64
	var actor, reason database.NullString
	err := r.Scan(&v.ID, &v.ProjectID, &v.CIBuildID, &v.Rev, &v.Sequence, &commit, &tags, &ci, &client, &v.FailFast,
		&delay, &state, &v.RunningGroups, &v.TimedOutGroups, &explicit, &closeAt, &created, &finished, &actor, &reason,
		&pinned, &v.PinnedBy, &v.Artifacts, &v.ArtifactBytes, &artifactsRemoved, &outputRemoved)
	if err != nil {
		return v, err
	}
	for _, d := range []struct {
		doc  string
		into any
	}{{commit, &v.Commit}, {tags, &v.Tags}, {ci, &v.CI}, {client, &v.Client}} {
		if err := parse(d.doc, d.into); err != nil {
			return v, err
		}
	}
	v.State = run.State(state)
	v.CompletionDelay = time.Duration(delay) * time.Microsecond
	v.Explicit = explicit != 0
	v.CloseAt, v.CreatedAt, v.FinishedAt = timeOrZero(closeAt), timeOf(created), timeOrZero(finished)
	v.PinnedAt, v.ArtifactsRemovedAt, v.OutputRemovedAt = timeOrZero(pinned), timeOrZero(artifactsRemoved),
		timeOrZero(outputRemoved)
	if actor.Valid {
		v.Cancellation = &run.Cancellation{Actor: actor.String, Reason: reason.String, At: v.FinishedAt}
	}
	return v, nil
}

// InsertRun stores a new run in state running. It reports false if the project already
// has a run with that ciBuildId.
func (tx *Tx) InsertRun(ctx context.Context, r run.Run) (bool, error) {
	tags := r.Tags
	if tags == nil {
		tags = []string{}
	}
	pull := 0
	if r.Commit.PullRequest != nil {
		pull = r.Commit.PullRequest.Number
	}
	n, err := tx.Exec(ctx, `INSERT INTO run (id, project_id, ci_build_id, rev, sequence, commit_info, tags, ci, client,
			fail_fast, completion_delay, state, running_groups, timed_out_groups, explicit, created_at, branch, author,
			pull_request)
		VALUES ($1, $2, $3, 1, $4, $5, $6, $7, $8, $9, $10, 'running', $11, 0, $12, $13, $14, $15, $16)
		ON CONFLICT (project_id, ci_build_id) DO NOTHING`,
		r.ID, r.ProjectID, r.CIBuildID, r.Sequence, document(r.Commit), document(tags), document(r.CI), document(r.Client),
		r.FailFast, r.CompletionDelay.Microseconds(), r.RunningGroups, flag(r.Explicit), micros(r.CreatedAt), r.Commit.Branch,
		r.Commit.AuthorName, pull)
	return n == 1, err
}

// lockedColumns are the columns that decisions of verbs depend on. Columns that are only
// for people (commit, tags, CI, client) are left out, because every request takes the
// lock, and reading a column costs time.
const lockedColumns = `id, project_id, ci_build_id, sequence, fail_fast, completion_delay, state, running_groups,
	timed_out_groups, explicit, close_at, finished_at, canceled_by, cancel_reason`

func scanLocked(r database.Row) (run.Run, error) {
	var v lockedRow
	err := r.Scan(v.fields()...)
	return v.value(), err
}

// lockedRow is a row of lockedColumns on its way to a run.Run.
type lockedRow struct {
	run.Run
	delay, explicit   int64
	closeAt, finished database.NullInt64
	actor, reason     database.NullString
}

func (v *lockedRow) fields() []any {
	return []any{&v.ID, &v.ProjectID, &v.CIBuildID, &v.Sequence, &v.FailFast, &v.delay, &v.State, &v.RunningGroups,
		&v.TimedOutGroups, &v.explicit, &v.closeAt, &v.finished, &v.actor, &v.reason}
}

func (v *lockedRow) value() run.Run {
	v.CompletionDelay = time.Duration(v.delay) * time.Microsecond
	v.Explicit = v.explicit != 0
	v.CloseAt, v.FinishedAt = timeOrZero(v.closeAt), timeOrZero(v.finished)
	if v.actor.Valid {
		v.Cancellation = &run.Cancellation{Actor: v.actor.String, Reason: v.reason.String, At: v.FinishedAt}
	}
	return v.Run
}

// CheckRun returns an error of kind NotFound unless the run exists.
func (tx *Tx) CheckRun(ctx context.Context, id string) error {
	_, err := one(tx.QueryRow(ctx, `SELECT id FROM run WHERE id = $1`, id), scanText, run.Missing("run", id))
	return err
}

// LockRun finds a run and blocks every other verb on it until the transaction ends. Rev,
// CreatedAt, Commit, Tags, CI and Client are left empty.
func (tx *Tx) LockRun(ctx context.Context, id string) (run.Run, error) {
	return one(tx.QueryRow(ctx, `SELECT `+lockedColumns+` FROM run WHERE id = $1`+tx.ForUpdate(), id),
		scanLocked, run.Missing("run", id))
}

// LockBuild is LockRun by project and ciBuildId.
func (tx *Tx) LockBuild(ctx context.Context, projectID, ciBuildID string) (run.Run, error) {
	return one(tx.QueryRow(ctx, `SELECT `+lockedColumns+` FROM run WHERE project_id = $1 AND ci_build_id = $2`+
		tx.ForUpdate(), projectID, ciBuildID), scanLocked, run.Missing("build", ciBuildID))
}

// lockedGroupColumns are the columns that verbs read for decisions and counts.
const lockedGroupColumns = `name, explicit, specs, claimed, taken_back, completed, announced, passes, failures, pending,
	skipped, retries, flaky, state, inactivity_timeout, heard_at, finished_at`

func (g *groupRow) lockedFields() []any {
	c := &g.Counts
	return []any{&g.Name, &g.explicit, &g.Specs, &g.Claimed, &g.TakenBack, &g.Completed, &c.Announced, &c.Passes,
		&c.Failures,
		&c.Pending, &c.Skipped, &c.Retries, &c.Flaky, &g.State, &g.timeout, &g.heard, &g.finished}
}

// The run comes first in these joins, because PostgreSQL locks the rows of a
// join in the order of its tables, and every verb locks the run first.
var (
	lockInstance = `SELECT ` + prefixed("r", lockedColumns) + `, ` + prefixed("g", lockedGroupColumns) + `,
			i.machine_id, i.announced, i.announced_at, i.completed_at
		FROM run r JOIN run_group g ON g.run_id = r.id JOIN instance i ON i.run_id = g.run_id AND i.group_name = g.name
		WHERE i.id = $1`
	lockMachine = `SELECT ` + prefixed("r", lockedColumns) + `, ` + prefixed("g", lockedGroupColumns) + `, m.unanswered
		FROM run r JOIN run_group g ON g.run_id = r.id JOIN machine m ON m.run_id = g.run_id AND m.group_name = g.name
		WHERE m.run_id = $1 AND m.id = $2`
)

// LockInstance is LockRun by an instance of the run, with the instance and its
// group. Fields that no decision depends on are left empty in all three.
func (tx *Tx) LockInstance(ctx context.Context, id string) (run.Run, run.Group, run.Instance, error) {
	var r lockedRow
	var g groupRow
	i := instanceRow{Instance: run.Instance{ID: id}}
	fields := slices.Concat(r.fields(), g.lockedFields(), []any{&i.machine, &i.Announced, &i.announced, &i.completed})
	err := tx.QueryRow(ctx, lockInstance+tx.ForUpdate(), id).Scan(fields...)
	if errors.Is(err, database.ErrNoRows) {
		err = run.Missing("instance", id)
	}
	if err != nil {
		return run.Run{}, run.Group{}, run.Instance{}, err
	}
	g.RunID, i.RunID, i.GroupName = r.ID, r.ID, g.Name
	return r.value(), g.value(), i.value(), nil
}

// LockMachine is LockRun with a machine that joined the run, and its group. Fields that
// no decision depends on are left empty in all three.
func (tx *Tx) LockMachine(ctx context.Context, runID, id string) (run.Run, run.Group, run.Machine, error) {
	var r lockedRow
	var g groupRow
	m := machineRow{Machine: run.Machine{ID: id, RunID: runID}}
	fields := slices.Concat(r.fields(), g.lockedFields(), []any{&m.unanswered})
	err := tx.QueryRow(ctx, lockMachine+tx.ForUpdate(), runID, id).Scan(fields...)
	if errors.Is(err, database.ErrNoRows) {
		if _, err = tx.LockRun(ctx, runID); err == nil {
			err = missingMachine(runID)
		}
	}
	if err != nil {
		return run.Run{}, run.Group{}, run.Machine{}, err
	}
	g.RunID, m.GroupName = r.ID, g.Name
	return r.value(), g.value(), m.value(), nil
}

// UpdateRun stores what run.Step changes, the cancellation, and the event
// sequence.
func (tx *Tx) UpdateRun(ctx context.Context, r run.Run) error {
	var actor, reason any
	if r.Cancellation != nil {
		actor, reason = r.Cancellation.Actor, r.Cancellation.Reason
	}
	_, err := tx.Exec(ctx, `UPDATE run SET rev = rev + 1, state = $2, running_groups = $3, timed_out_groups = $4,
		explicit = $5, close_at = $6, finished_at = $7, canceled_by = $8, cancel_reason = $9, sequence = $10
		WHERE id = $1`,
		r.ID, string(r.State), r.RunningGroups, r.TimedOutGroups, flag(r.Explicit), microsOrNull(r.CloseAt),
		microsOrNull(r.FinishedAt), actor, reason, r.Sequence)
	return err
}

// Run finds a run by its id.
func (tx *Tx) Run(ctx context.Context, id string) (run.Run, error) {
	return one(tx.QueryRow(ctx, `SELECT `+runColumns+` FROM run WHERE id = $1`, id), scanRun, run.Missing("run", id))
}

// RunDetails finds what only payloads need of a run: its commit, its tags and the default
// branch of its project.
func (tx *Tx) RunDetails(ctx context.Context,
	id string) (commit run.Commit, tags []string, defaultBranch string, err error) {
	var commitDoc, tagsDoc string
	err = tx.QueryRow(ctx, `SELECT r.commit_info, r.tags, p.default_branch FROM run r JOIN project p ON p.id = r.project_id
		WHERE r.id = $1`, id).Scan(&commitDoc, &tagsDoc, &defaultBranch)
	if err == nil {
		err = errors.Join(parse(commitDoc, &commit), parse(tagsDoc, &tags))
	}
	return commit, tags, defaultBranch, err
}

// Build finds a run by project and ciBuildId.
func (tx *Tx) Build(ctx context.Context, projectID, ciBuildID string) (run.Run, error) {
	return one(tx.QueryRow(ctx, `SELECT `+runColumns+` FROM run WHERE project_id = $1 AND ci_build_id = $2`, projectID,
		ciBuildID), scanRun, run.Missing("build", ciBuildID))
}

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

// LatestOfPulls lists the latest run of each pull request of a project that matches the
// filter, newest first. Statuses are those of that run. Only ID, CreatedAt and the
// number of the pull request are set.
func (tx *Tx) LatestOfPulls(ctx context.Context, projectID string, f RunFilter, page Page) ([]run.Run, bool, error) {
	q := query{text: `SELECT id, created_at, pull_request FROM (
		SELECT id, created_at, pull_request, state,
		ROW_NUMBER() OVER (PARTITION BY pull_request ORDER BY created_at DESC, id DESC) AS nth
		FROM run WHERE project_id = $1 AND pull_request > 0`, args: []any{projectID}}
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

// TermValue is a value of a term, and when the latest run with it was created.
type TermValue struct {
	Value    string
	LastSeen time.Time
}

// termRuns limits how many runs TermValues reads.
const termRuns = 20_000

// TermValues lists the values that a term has in the latest runs of a project. Groups
// without a name are left out.
func (tx *Tx) TermValues(ctx context.Context, projectID string, term Term) ([]TermValue, error) {
	column, join := map[Term]string{TagTerm: "r.tags", GroupTerm: "g.name", BranchTerm: "r.branch",
		AuthorNameTerm: "r.author", AuthorEmailTerm: "r.commit_info", FrameworkTerm: "r.client",
		FrameworkVersionTerm: "r.client", ClientVersionTerm: "r.client"}[term], ""
	if term == GroupTerm {
		join = ` JOIN run_group g ON g.run_id = r.id AND g.explicit = 1`
	}
	rows, err := tx.Query(ctx, `SELECT `+column+
		`, MAX(r.created_at) FROM (SELECT * FROM run WHERE project_id = $1 ORDER BY created_at DESC, id DESC LIMIT $2) AS r`+
		join+
		` GROUP BY `+column, projectID, termRuns)
	seen := map[string]int64{}
	_, err = database.All(rows, err, func(r database.Row) (string, error) {
		var text string
		var at int64
		if err := r.Scan(&text, &at); err != nil {
			return "", err
		}
		values, err := term.values(text)
		for _, v := range values {
			if v != "" {
				seen[v] = max(seen[v], at)
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

// running is the condition that a run is running. Such a run has a running group, or
// waits to be closed. Both are few, and an index finds them, however many runs there
// are. UNION would make SQLite read whole tables.
const running = `state = 'running' AND id IN (
	SELECT run_id FROM run_group WHERE look_at IS NOT NULL UNION ALL SELECT id FROM run WHERE close_at IS NOT NULL)`

// RunningOf lists the running runs whose CI parameters include all of ci.
func (tx *Tx) RunningOf(ctx context.Context, ci run.CI) ([]run.Run, error) {
	q := query{text: `SELECT ` + runColumns + ` FROM run WHERE ` + running}
	q.anyLike("ci", `"provider":`, []string{ci.Provider})
	for name, value := range ci.Params {
		q.anyLike("ci", document(name)+":", []string{value})
	}
	rows, err := tx.Query(ctx, q.text+` ORDER BY created_at, id`, q.args...)
	list, err := database.All(rows, err, scanRun)
	// The text does not tell the provider from a parameter of that name.
	return slices.DeleteFunc(list, func(r run.Run) bool {
		differs := r.CI.Provider != ci.Provider
		for name, value := range ci.Params {
			differs = differs || r.CI.Params[name] != value
		}
		return differs
	}), err
}

// ClosingRuns lists runs whose completion delay has passed at the instant of
// the transaction.
func (tx *Tx) ClosingRuns(ctx context.Context, limit int) ([]string, error) {
	rows, err := tx.Query(ctx, `SELECT id FROM run WHERE close_at IS NOT NULL AND close_at <= $1 ORDER BY close_at
		LIMIT $2`,
		micros(tx.Now), limit)
	return database.All(rows, err, scanText)
}

func scanText(r database.Row) (string, error) {
	var s string
	err := r.Scan(&s)
	return s, err
}

// NextDeadline is the earliest instant at which a group may time out or a run may
// close; false if nothing is open.
func (tx *Tx) NextDeadline(ctx context.Context) (time.Time, bool, error) {
	var at database.NullInt64
	err := tx.QueryRow(ctx, `SELECT MIN(at) FROM (
		SELECT MIN(look_at) AS at FROM run_group WHERE look_at IS NOT NULL
		UNION ALL SELECT MIN(close_at) AS at FROM run WHERE close_at IS NOT NULL) AS deadlines`).Scan(&at)
	return timeOrZero(at), at.Valid, err
}

// PinRun stores who pinned a run and when. The run must be locked.
func (tx *Tx) PinRun(ctx context.Context, id, by string) error {
	_, err := tx.Exec(ctx, `UPDATE run SET rev = rev + 1, pinned_at = $2, pinned_by = $3 WHERE id = $1`, id,
		micros(tx.Now), by)
	return err
}

// UnpinRun is the inverse of PinRun.
func (tx *Tx) UnpinRun(ctx context.Context, id string) error {
	_, err := tx.Exec(ctx, `UPDATE run SET rev = rev + 1, pinned_at = NULL, pinned_by = '' WHERE id = $1`, id)
	return err
}
