package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"time"

	"runbell/internal/auth"
	"runbell/internal/config"
	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/webhook"
)

// What is generated: 25 tests in each spec, 4 specs in each run.
const (
	project     = "shop"
	token       = "bench-session-token"
	endpointID  = "0b5c9d5e-6a1f-4a47-9d0c-7d1c1f0f6f11"
	node        = "generator"
	specsOfAll  = 2000
	specsPerRun = 4
	testsPer    = 25
	atOnce      = 200 // runs in one transaction
	largest     = 2000
	// A run has a machine, and one more for this many specs.
	specsPerMachine = 100
)

func open(ctx context.Context, dir string) (*store.DB, error) {
	cfg := config.Database{DataDir: dir}
	key, err := cfg.Key()
	if err != nil {
		return nil, err
	}
	sealer, err := webhook.NewSealer(key)
	if err != nil {
		return nil, err
	}
	return store.Open(ctx, cfg.URL(), sealer)
}

// generator makes runs as reporters would have left them.
type generator struct {
	random   *rand.Rand
	tests    string // the announcement of every spec
	green    string // the outcomes
	red      string
	flaky    string
	branches []string
	authors  []string
	start    time.Time
	runs     int
}

// generate fills an empty database with this many runs over the last year.
func generate(ctx context.Context, dir string, runs int) error {
	db, err := open(ctx, dir)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	g := &generator{random: rand.New(rand.NewPCG(1, 2)), start: time.Now().UTC().Truncate(time.Second).AddDate(-1, 0, 0),
		runs: runs, branches: []string{"main", "main", "main", "release/2.4"},
		authors: []string{"Jane Roe", "Joe Bloggs", "Ana Souza", "Kenji Itō", "Лена Орлова"}}
	for n := range 400 {
		g.branches = append(g.branches, fmt.Sprintf("feature/%d-checkout", n))
	}
	g.documents()
	if err := db.Write(ctx, func(tx *store.Tx) error { return g.ground(ctx, tx) }); err != nil {
		return err
	}
	began := time.Now()
	for n := 0; n < runs; n += atOnce {
		if err := db.Write(ctx, func(tx *store.Tx) error {
			for i := n; i < min(n+atOnce, runs); i++ {
				if err := g.run(ctx, tx, i, specsPerRun); err != nil {
					return err
				}
			}
			return g.deliver(ctx, tx)
		}); err != nil {
			return err
		}
		if n%(runs/10+1) < atOnce {
			fmt.Fprintf(os.Stderr, "generated %d of %d runs, %s\n", n, runs, time.Since(began).Round(time.Second))
		}
	}
	return db.Write(ctx, func(tx *store.Tx) error { return g.run(ctx, tx, runs, largest) })
}

// ground is what runs belong to, and an account that views them.
func (g *generator) ground(ctx context.Context, tx *store.Tx) error {
	p := run.NewProject(project)
	p.Name, p.DefaultBranch, p.CreatedAt = "Web shop", "main", g.start
	p.Keep = run.Retention{Deliveries: run.MaxRetentionDays} // else the server starts by removing most of the year
	_, errProject := tx.InsertProject(ctx, p)
	_, errAccount := tx.InsertAccount(ctx,
		store.Account{ID: "bench", Email: "bench@example.test", Name: "Bench", Role: store.Admin, CreatedAt: tx.Now})
	e := webhook.NewEndpoint(endpointID, project)
	e.URL, e.Label, e.Scope, e.Events = "https://hooks.example.test/runbell", "chat", run.RunScope,
		[]webhook.Kind{webhook.RunFinish}
	e.Secret, e.CreatedAt, e.UpdatedAt = webhook.NewSecret(), tx.Now, tx.Now
	return errors.Join(errProject, errAccount,
		tx.InsertSession(ctx, store.Session{Hash: auth.Hash(token), AccountID: "bench", CreatedAt: tx.Now, SeenAt: tx.Now}),
		tx.InsertEndpoint(ctx, e))
}

func encode(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// failureText is what the failures of the generated tests say.
const failureText = "AssertionError: Timed out retrying after 4000ms: Expected to find element: " +
	"`[data-test=\"order-number\"]`, but never found it."

func titleOf(test int) []string { return []string{"checkout", fmt.Sprintf("takes step %d", test)} }

// signature is that of a test of a spec.
func signature(spec, test int) string { return run.Signature(project, specName(spec), titleOf(test)) }

func (g *generator) documents() {
	var a run.Announcement
	var green run.Outcome
	for n := range testsPer {
		id := fmt.Sprint("r", n)
		a.Tests = append(a.Tests, run.Announced{ID: id, Title: titleOf(n), Body: "() => {}"})
		green.Results = append(green.Results,
			run.Result{ID: id, State: run.Passed, Attempts: []run.Attempt{{State: run.Passed, Duration: int64(40 * n)}}})
	}
	failure := &run.Failure{Name: "AssertionError", Message: strings.TrimPrefix(failureText, "AssertionError: "),
		Stack: "AssertionError: …" + strings.Repeat("\n    at Context.eval (webpack:///./cypress/e2e/checkout/pay.cy.js:41:8)", 8),
		Frame: &run.Frame{File: "cypress/e2e/checkout/pay.cy.js", Line: 41, Column: 8,
			Text: "  40 |     cy.location('pathname')\n> 41 |     cy.get('[data-test=\"order-number\"]')\n     |        ^"}}
	red, flaky := green, green
	red.Results = append([]run.Result{{ID: "r0", State: run.Failed,
		Attempts: []run.Attempt{{State: run.Failed, Error: failure}, {State: run.Failed, Error: failure}}}},
		green.Results[1:]...)
	flaky.Results = append([]run.Result{{ID: "r0", State: run.Passed,
		Attempts: []run.Attempt{{State: run.Failed, Error: failure}, {State: run.Passed}}}}, green.Results[1:]...)
	g.tests, g.green, g.red, g.flaky = encode(a), encode(green), encode(red), encode(flaky)
}

func runID(n int) string { return fmt.Sprintf("%08x%024x", uint32(n)*2654435761, n) }

func specName(n int) string { return fmt.Sprintf("cypress/e2e/area-%02d/spec-%04d.cy.js", n%40, n) }

// run stores one run that has finished.
func (g *generator) run(ctx context.Context, tx *store.Tx, n, specs int) error {
	at := g.start.Add(time.Duration(float64(365*24*time.Hour) * float64(n) / float64(g.runs+1)))
	id := runID(n)
	r := run.Run{ID: id, ProjectID: project, CIBuildID: fmt.Sprintf("shop-%d-1", 4_000_000+n), Sequence: 2,
		RunningGroups: 1, CreatedAt: at, Tags: []string{"nightly"},
		Commit: run.Commit{SHA: runID(n) + "00c0ffee", Branch: g.branches[g.random.IntN(len(g.branches))],
			AuthorName:   g.authors[n%len(g.authors)],
			Message:      fmt.Sprintf("feat: checkout step %d\n\nAs agreed.", n),
			RemoteOrigin: "https://github.com/acme/shop.git"},
		CI: run.CI{Provider: "githubActions",
			Params: map[string]string{"githubRepository": "acme/shop", "githubRunId": fmt.Sprint(4_000_000 + n)}},
		Client: run.Client{Name: "cypress-cloud", Version: "1.13.1"}}
	group := run.Group{RunID: id, Name: r.CIBuildID, Specs: specs, CreatedAt: at, HeardAt: at,
		InactivityTimeout: run.DefaultInactivity,
		Platform: run.Platform{OSName: "linux", OSVersion: "Debian - 12", BrowserName: "Electron",
			BrowserVersion: "106"}}
	machines := make([]run.Machine, 1+specs/specsPerMachine)
	free := make([]time.Time, len(machines)) // when each takes another spec
	for i := range machines {
		machines[i] = run.Machine{ID: fmt.Sprintf("m%d-%s", i, id), RunID: id, GroupName: group.Name, Fingerprint: "f",
			JoinedAt: at}
		free[i] = at
	}
	instances := make([]run.Instance, specs)
	for i := range instances {
		instances[i] = run.Instance{ID: fmt.Sprintf("%s-%d", id, i), RunID: id, GroupName: group.Name,
			Spec: specName((n*specsPerRun + i) % specsOfAll), Position: i}
	}
	if _, err := tx.InsertRun(ctx, r); err != nil {
		return err
	}
	if err := errors.Join(tx.InsertGroup(ctx, group), tx.InsertInstances(ctx, instances)); err != nil {
		return err
	}
	for _, m := range machines {
		if err := tx.InsertMachine(ctx, m); err != nil {
			return err
		}
	}
	clock := *tx // claims and events are stamped with the transaction's time
	for i := range instances {
		v, m := &instances[i], i%len(machines)
		v.Announced, v.AnnouncedAt, v.Duration = testsPer, free[m], time.Duration(10+g.random.IntN(40))*time.Second
		clock.Now, v.CompletedAt = free[m], free[m].Add(v.Duration)
		if err := clock.ClaimInstance(ctx, machines[m], i+1, *v); err != nil {
			return err
		}
		free[m] = v.CompletedAt
		v.Counts = run.Counts{Passes: testsPer}
		document := g.green
		switch g.random.IntN(40) {
		case 0:
			document, v.Counts = g.red, run.Counts{Passes: testsPer - 1, Failures: 1, Retries: 1}
		case 1:
			document, v.Counts = g.flaky, run.Counts{Passes: testsPer, Flaky: 1, Retries: 1}
		}
		group.Counts = group.Counts.Plus(v.Counts)
		if err := errors.Join(tx.AnnounceInstance(ctx, *v, g.tests), tx.CompleteInstance(ctx, *v, document)); err != nil {
			return err
		}
	}
	end := slices.MaxFunc(free, time.Time.Compare)
	group.Claimed, group.Completed, group.State, group.FinishedAt, group.HeardAt = specs, specs, run.Finished, end, end
	r.State, r.RunningGroups, r.FinishedAt = run.Finished, 0, end
	clock.Now = end
	payload := webhook.NewPayload(webhook.RunFinish, r, nil, group.Counts, "http://localhost/run/"+id, "main").Bytes()
	event := webhook.Event{ID: "evt_" + id, ProjectID: project, RunID: id, Scope: run.RunScope, Kind: webhook.RunFinish,
		Sequence: 2, Payload: payload, CreatedAt: end}
	if err := clock.InsertEvent(ctx, event); err != nil {
		return err
	}
	_, err := clock.QueueDelivery(ctx, webhook.NewEndpoint(endpointID, project), event)
	return errors.Join(err, tx.UpdateGroup(ctx, group), tx.UpdateRun(ctx, r))
}

// deliver records the outcomes of the pending deliveries: one of a hundred failed, but never the last, for a webhook
// that has failed since last year is disabled.
func (g *generator) deliver(ctx context.Context, tx *store.Tx) error {
	if _, err := tx.TakeLane(ctx, endpointID, node, tx.Now.Add(time.Second)); err != nil {
		return err
	}
	work, err := tx.Work(ctx, endpointID, store.QueuePosition{}, atOnce, nil)
	if err != nil {
		return err
	}
	if len(work.Claims) == 0 {
		return errors.New("the runs queued no deliveries")
	}
	var outcomes []*store.Outcome
	for n, c := range work.Claims {
		o := &store.Outcome{Delivery: c.Delivery, EndedAt: c.CreatedAt, Decision: webhook.Decision{State: webhook.Delivered},
			Attempt: webhook.Attempt{DeliveryID: c.ID, Number: 1, StartedAt: c.CreatedAt, Duration: 30 * time.Millisecond,
				Class: webhook.OK, Status: 204}}
		if g.random.IntN(100) == 0 && n < len(work.Claims)-1 {
			o.Attempt.Class, o.Attempt.Status, o.Attempt.Error, o.Decision.State = webhook.BadStatus, 500,
				"The receiver answered 500.", webhook.Failed
		}
		outcomes = append(outcomes, o)
	}
	if _, err := tx.RecordAttempts(ctx, node, outcomes); err != nil {
		return err
	}
	return tx.LeaveLane(ctx, endpointID, node)
}
