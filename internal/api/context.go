package api

import (
	"context"
	"slices"

	"runbell/internal/auth"
	"runbell/internal/run"
	"runbell/internal/store"
)

// failureContext is what a person needs to find the cause of failures.
type failureContext struct {
	Access   keyAccess     `json:"access" doc:"The access of the key: read or write."`
	Projects []projectName `json:"projects,omitempty" doc:"Without parameters: the projects that the key can see, at most 100."`
	Run      *runSummary   `json:"run,omitempty"`
	Failed   *failedTests  `json:"failedTests,omitempty"`
	Test     *failedTest   `json:"test,omitempty" doc:"With test_id."`
}

type projectName struct {
	ProjectID string `json:"projectId"`
	Name      string `json:"name"`
}

type failedTests struct {
	List     []failedTest `json:"list"`
	Total    int          `json:"total"`
	NextPage nextPage     `json:"nextPage"`
}

type failedTest struct {
	InstanceID string        `json:"instanceId"`
	GroupID    string        `json:"groupId"`
	Spec       string        `json:"spec"`
	TestID     *string       `json:"testId" doc:"null: the spec could not run."`
	Signature  *string       `json:"signature"`
	Title      []string      `json:"title"`
	State      run.TestState `json:"state"`
	Message    string        `json:"message" doc:"The error in one line."`
	Attempts   []testAttempt `json:"attempts"`
}

const maxContext = 50

var details = []string{"default", "compact", "summary"}

func contextFilters() []param {
	return []param{
		{name: "run_id", doc: "The run."},
		{name: "instance_id", doc: "The execution of a spec."},
		{name: "test_id", doc: "A test of the execution; requires instance_id."},
		{name: "attempt", doc: "Only this attempt of the test, from 0; requires test_id.", format: "integer"},
		{name: "detail", doc: "default: every attempt; compact: the last one; summary: none, only the message.",
			enum: details},
		{name: "format", doc: "Only json is supported.", enum: []string{"json"}},
		{name: "page", doc: "The number of the page of failed tests, from 0.", format: "integer"},
		{name: "limit", doc: "Maximum number of failed tests, 1 to 50. Default: 10.", format: "integer"},
	}
}

// contextQuery is the parameters of contextFilters.
type contextQuery struct {
	runID, instanceID, testID string
	attempt                   int // -1 is every one
	detail                    string
	sheet                     sheet
}

func (r *request) contextQuery() (q contextQuery, err error) {
	q = contextQuery{runID: r.query.Get("run_id"), instanceID: r.query.Get("instance_id"), testID: r.query.Get("test_id")}
	if q.testID != "" && q.instanceID == "" {
		return q, run.Errorf(run.Invalid, "instance_id is missing: a test_id is unique only within its spec.")
	}
	if q.attempt, err = r.whole("attempt", 0, 1000, -1); err != nil {
		return q, err
	}
	if q.attempt >= 0 && q.testID == "" {
		return q, run.Errorf(run.Invalid, "attempt requires test_id.")
	}
	if q.detail, err = choice(r, "detail", details, "default"); err != nil {
		return q, err
	}
	if _, err = choice(r, "format", []string{"json"}, "json"); err != nil {
		return q, err
	}
	if q.sheet.page, err = r.whole("page", 0, maxSheet, 0); err != nil {
		return q, err
	}
	q.sheet.limit, err = r.whole("limit", 1, maxContext, defaultLimit)
	return q, err
}

func (a *api) context(r *request) (failureContext, error) {
	q, err := r.contextQuery()
	if err != nil {
		return failureContext{}, err
	}
	out := failureContext{Access: readOnly}
	if r.by.Access == auth.Write {
		out.Access = readWrite
	}
	err = a.DB.Read(r.Context(), func(tx *store.Tx) error {
		if q.runID == "" && q.instanceID == "" {
			list, _, err := r.visible(tx, store.Page{Limit: maxLimit})
			for _, p := range list {
				out.Projects = append(out.Projects, projectName{p.ID, p.Name})
			}
			return err
		}
		instances, err := q.instances(r.Context(), tx)
		if err != nil {
			return err
		}
		owner, err := tx.Run(r.Context(), q.runID)
		if err == nil && !r.by.Sees(owner.ProjectID) {
			err = run.Missing("run", q.runID)
		}
		if err != nil {
			return err
		}
		summary, err := a.summarize(r.Context(), tx, owner)
		if err != nil {
			return err
		}
		out.Run = &summary
		if q.testID != "" {
			out.Test, err = q.test(r.Context(), tx, owner, instances[0])
			return err
		}
		out.Failed, err = q.failures(r.Context(), tx, owner, instances)
		return err
	})
	return out, err
}

// instances are the executions that the query is about. It sets the run of one.
func (q *contextQuery) instances(ctx context.Context, tx *store.Tx) ([]run.Instance, error) {
	if q.instanceID == "" {
		return tx.Instances(ctx, q.runID)
	}
	i, err := tx.Instance(ctx, q.instanceID)
	if err == nil && (i.MachineID == "" || q.runID != "" && q.runID != i.RunID) {
		err = run.Missing("instance", q.instanceID)
	}
	q.runID = i.RunID
	return []run.Instance{i}, err
}

// failures lists a page of what failed. Specs before the page are counted by their own
// counts, and not read.
func (q *contextQuery) failures(ctx context.Context, tx *store.Tx, owner run.Run,
	instances []run.Instance) (*failedTests, error) {
	out := &failedTests{List: []failedTest{}}
	first, end := q.sheet.page*q.sheet.limit, (q.sheet.page+1)*q.sheet.limit
	for _, i := range instances {
		from, to := out.Total, out.Total+i.Counts.Failures
		out.Total = to
		if i.Counts.Failures == 0 || to <= first || from >= end {
			continue
		}
		list, err := q.failuresOf(ctx, tx, owner, i)
		if err != nil {
			return nil, err
		}
		for n, f := range list {
			if from+n >= first && from+n < end {
				out.List = append(out.List, f)
			}
		}
	}
	out.NextPage = q.sheet.next(out.Total)
	return out, nil
}

// failuresOf lists what failed of a spec.
func (q *contextQuery) failuresOf(ctx context.Context, tx *store.Tx, owner run.Run,
	i run.Instance) ([]failedTest, error) {
	announcement, outcome, err := tx.Tests(ctx, i.ID)
	if err != nil {
		return nil, err
	}
	var list []failedTest
	for _, t := range run.Tests(announcement, outcome) {
		if t.Result.State == run.Failed {
			list = append(list, q.show(owner, i, t))
		}
	}
	if len(list) == 0 && i.Exception != "" {
		list = append(list, failedTest{InstanceID: i.ID, GroupID: i.GroupName, Spec: i.Spec, Title: []string{},
			State: run.Failed, Message: run.Headline(i.Exception), Attempts: []testAttempt{}})
	}
	return list, nil
}

func (q *contextQuery) test(ctx context.Context, tx *store.Tx, owner run.Run, i run.Instance) (*failedTest, error) {
	announcement, outcome, err := tx.Tests(ctx, i.ID)
	if err != nil {
		return nil, err
	}
	tests := run.Tests(announcement, outcome)
	n := slices.IndexFunc(tests, func(t run.Test) bool { return t.ID == q.testID && t.Done })
	if n < 0 {
		return nil, run.Missing("test", q.testID)
	}
	shown := q.show(owner, i, tests[n])
	return &shown, nil
}

func (q *contextQuery) show(owner run.Run, i run.Instance, t run.Test) failedTest {
	out := failedTest{InstanceID: i.ID, GroupID: i.GroupName, Spec: i.Spec, TestID: &t.ID,
		Signature: new(run.Signature(owner.ProjectID, i.Spec, t.Title)), Title: append([]string{}, t.Title...),
		State: t.Result.State, Attempts: showTests([]run.Test{t})[0].Attempts}
	if f, any := t.Failure(); any {
		out.Message = run.Headline(f.Text())
	}
	switch {
	case q.attempt >= 0:
		out.Attempts = out.Attempts[min(q.attempt, len(out.Attempts)):min(q.attempt+1, len(out.Attempts))]
	case q.detail == "compact":
		out.Attempts = out.Attempts[max(0, len(out.Attempts)-1):]
	case q.detail == "summary":
		out.Attempts = []testAttempt{}
	}
	return out
}
