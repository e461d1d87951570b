package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"runbell/internal/artifact"
	"runbell/internal/client"
	"runbell/internal/config"
	"runbell/internal/history"
	"runbell/internal/lifecycle"
	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/webhook"
)

const (
	day     = 24 * time.Hour
	specs   = 20 // of a run
	tests   = 10 // of a spec
	writers = 32
	// shop keeps what new projects keep; museum keeps everything, but for half of the
	// bytes of its files.
	shop, museum = "shop", "museum"
)

// year is what was recorded, and what has to become of it.
type year struct {
	runs, files int
	size        int64
	began       time.Time
	random      *rand.Rand
	past        []past
}

// past is a run of the year.
type past struct {
	ID         string
	Project    string
	At         time.Time
	Bad        bool // failed or flaky
	Flaky      bool
	Pinned     bool
	Running    bool
	Files      int
	DeliveryID string
}

// shorten has the server keep less: from now on, most of the year is due.
func shorten(ctx context.Context, c *client.Client) error {
	k := run.DefaultRetention()
	_, err := c.UpdateProject(ctx, shop, client.ProjectSettings{RunDays: &k.Runs, ArtifactsFailedDays: &k.FailedArtifacts,
		ArtifactsPassedDays: &k.PassedArtifacts, OutputDays: &k.Output, RetentionDays: &k.Deliveries})
	if err != nil {
		return err
	}
	u, err := c.Usage(ctx, museum)
	if err != nil {
		return err
	}
	half := u.Value.ArtifactBytes / 2
	_, err = c.UpdateProject(ctx, museum, client.ProjectSettings{ArtifactsMaxBytes: &half})
	return err
}

// open opens the database of a data directory.
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

// write records the year into a new data directory, by the verbs that reporters use.
func (y *year) write(ctx context.Context, dir string) error {
	db, err := open(ctx, dir)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	y.random, y.began = rand.New(rand.NewPCG(1, 2)), time.Now()
	if err := db.Write(ctx, func(tx *store.Tx) error {
		var failed []error
		for _, id := range []string{shop, museum} {
			p := run.NewProject(id)
			p.Name, p.Keep = id, run.Retention{Deliveries: run.MaxRetentionDays}
			_, err := tx.InsertProject(ctx, p)
			failed = append(failed, err)
		}
		e := webhook.NewEndpoint("chat", shop)
		e.URL, e.Secret = "https://hooks.example.test/runbell", webhook.NewSecret()
		return errors.Join(append(failed, tx.InsertEndpoint(ctx, e))...)
	}); err != nil {
		return err
	}
	files := artifact.NewDisk(filepath.Join(dir, "artifacts"))
	if err := files.Check(ctx); err != nil { // makes the directories
		return err
	}
	defer func() { _ = files.Close() }()
	y.draw()
	if err := y.each(func(n int) error { return y.record(ctx, db, filepath.Join(dir, "artifacts"), n) }); err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	return history.NewWorker(db, log, prometheus.NewRegistry()).Catch(ctx) // else the server would begin with that
}

// saved is what has to be known of a year that was written, beside its data.
type saved struct {
	Size  int64
	Began time.Time
	Past  []past
}

const savedName = "year.json"

// save writes the year into a directory, for [year.load].
func (y *year) save(ctx context.Context, dir string) error {
	if err := y.write(ctx, dir); err != nil {
		return err
	}
	doc, err := json.Marshal(saved{y.size, y.began, y.past})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, savedName), doc, 0o600)
}

// load takes a year that was saved from its directory to another one. It is as old as what
// was saved: some hours at most, or days are over that were not.
func (y *year) load(from, dir string) error {
	doc, err := os.ReadFile(filepath.Join(from, savedName))
	if err != nil {
		return err
	}
	var s saved
	if err := json.Unmarshal(doc, &s); err != nil {
		return err
	}
	if age := time.Since(s.Began); age > oldest {
		return fmt.Errorf("%s was written %s ago: write it again", from, age.Round(time.Minute))
	}
	y.size, y.began, y.past, y.runs = s.Size, s.Began, s.Past, len(s.Past)
	if err := os.Rename(from, dir); err == nil {
		return nil
	}
	return errors.Join(os.CopyFS(dir, os.DirFS(from)), os.RemoveAll(from)) // it is on another disk
}

// oldest is how old a year may be: no run is nearer than that to the end of a day.
const oldest = 4 * time.Hour

// draw decides what the runs of the year are. None is near the hour at which a day is
// over, so that it does not matter when exactly the server removes.
func (y *year) draw() {
	for n := range y.runs {
		ago := time.Duration(float64(365*day) * (1 - float64(n)/float64(y.runs)))
		ago = ago.Truncate(day) + time.Duration(float64(day)*(.2+.6*y.random.Float64()))
		p := past{At: y.began.Add(-ago), Project: shop, Files: (n+1)*y.files/y.runs - n*y.files/y.runs}
		switch n % 10 {
		case 0:
			p.Bad = true
		case 1:
			p.Bad, p.Flaky = true, true
		case 2, 3:
			p.Project = museum
		}
		p.Pinned, p.Running = n%50 == 4, n%200 == 5
		y.past = append(y.past, p)
	}
}

// each calls a function for every run, for some at once.
func (y *year) each(f func(n int) error) error {
	var next atomic.Int64
	errs := make([]error, writers)
	var done sync.WaitGroup
	for w := range writers {
		done.Go(func() {
			for n := int(next.Add(1)) - 1; n < len(y.past) && errs[w] == nil; n = int(next.Add(1)) - 1 {
				errs[w] = f(n)
				if n%(y.runs/10+1) == 0 {
					fmt.Fprintf(os.Stderr, "wrote %d of %d runs, %s\n", n, y.runs, time.Since(y.began).Round(time.Second))
				}
			}
		})
	}
	done.Wait()
	return errors.Join(errs...)
}

// record writes a run.
func (y *year) record(ctx context.Context, db *store.DB, dir string, n int) error {
	p := &y.past[n]
	runs := lifecycle.New(db, "http://localhost", func(...string) {}).At(p.At)
	var names []string
	for i := range specs {
		names = append(names, fmt.Sprintf("cypress/e2e/area-%02d/spec-%04d.cy.js", i, (n*specs+i)%2000))
	}
	joined, err := runs.Join(ctx, lifecycle.Join{ProjectID: p.Project, CIBuildID: fmt.Sprint("build-", n), Specs: names,
		Commit: run.Commit{Branch: "main", Message: "feat: a change", SHA: fmt.Sprintf("%040d", n)}})
	if err != nil {
		return err
	}
	p.ID = joined.RunID
	claimed, err := runs.Claim(ctx, lifecycle.Claim{RunID: p.ID, MachineID: joined.MachineID, Limit: specs})
	if err != nil {
		return err
	}
	for i, instance := range claimed.Instances {
		if p.Running && i == specs-1 {
			break
		}
		announcement, outcome := documents(p.Bad && i == 0, p.Flaky)
		if _, err := runs.Complete(ctx, instance.ID, announcement, outcome); err != nil {
			return err
		}
		if err := runs.Output(ctx, instance.ID, strings.Repeat("    ✓ shows a thing on a page (32ms)\n", 52)); err != nil {
			return err
		}
	}
	if err := y.store(ctx, db, dir, p, claimed.Instances[0].ID); err != nil {
		return err
	}
	if p.Pinned {
		if _, err := runs.Pin(ctx, p.ID, "Ada"); err != nil {
			return err
		}
	}
	if p.Project == museum {
		return nil
	}
	return deliver(ctx, db, p)
}

// documents are those of a spec, of which one test failed or was flaky.
func documents(bad, flaky bool) (*run.Announcement, run.Outcome) {
	var a run.Announcement
	var o run.Outcome
	for n := range tests {
		id := fmt.Sprint("r", n)
		a.Tests = append(a.Tests, run.Announced{ID: id, Title: []string{"checkout", fmt.Sprintf("takes step %d", n)}, Body: "() => {}"})
		o.Results = append(o.Results, run.Result{ID: id, State: run.Passed, Attempts: []run.Attempt{{State: run.Passed, Duration: 40}}})
	}
	if bad {
		failure := &run.Failure{Name: "AssertionError", Message: "Timed out retrying after 4000ms: Expected to find an element.",
			Stack: "AssertionError: …" + strings.Repeat("\n    at Context.eval (webpack:///./cypress/e2e/checkout/pay.cy.js:41:8)", 8)}
		last := run.Failed
		if flaky {
			last = run.Passed
		}
		o.Results[0] = run.Result{ID: "r0", State: last, Attempts: []run.Attempt{{State: run.Failed, Error: failure}, {State: last}}}
	}
	return &a, o
}

// store stores the files of a run, in one transaction.
func (y *year) store(ctx context.Context, db *store.DB, dir string, p *past, instanceID string) error {
	var list []run.Artifact
	for n := range p.Files {
		id := run.ArtifactID(instanceID, run.ScreenshotArtifact, fmt.Sprint(n))
		a := run.Artifact{ID: id, ProjectID: p.Project, RunID: p.ID, InstanceID: instanceID, Kind: run.ScreenshotArtifact,
			ContentType: "image/png", Size: y.size, StoredAt: p.At, FileKey: artifact.NewKey(id)}
		f, err := os.Create(filepath.Join(dir, a.FileKey))
		if err == nil {
			_, err = io.CopyN(f, zeros{}, y.size)
		}
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
		list = append(list, a)
	}
	return db.Write(ctx, func(tx *store.Tx) error {
		for _, a := range list {
			if err := tx.InsertFile(ctx, a.FileKey, a.ProjectID, a.Size, tx.Now.Add(time.Hour)); err != nil {
				return err
			}
			if _, err := tx.PutArtifact(ctx, a); err != nil {
				return err
			}
		}
		return nil
	})
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// deliver writes a delivery of then, which succeeded.
func deliver(ctx context.Context, db *store.DB, p *past) error {
	return db.Write(ctx, func(tx *store.Tx) error {
		tx.Now = p.At
		e := webhook.Event{ID: webhook.NewID("evt_", tx.Now), ProjectID: p.Project, Scope: run.RunScope, Kind: webhook.RunFinish,
			Payload: []byte(`{"event":"RUN_FINISH"}`), CreatedAt: tx.Now}
		id, err := tx.InsertTest(ctx, webhook.NewEndpoint("chat", p.Project), e)
		if err != nil {
			return err
		}
		p.DeliveryID = id
		if _, err := tx.TakeLane(ctx, "chat", "year", tx.Now.Add(time.Hour)); err != nil {
			return err
		}
		work, err := tx.Work(ctx, "chat", store.QueuePosition{}, 1, nil)
		if err != nil || len(work.Claims) != 1 {
			return fmt.Errorf("%d deliveries are due: %w", len(work.Claims), err)
		}
		outcome := &store.Outcome{Delivery: work.Claims[0].Delivery, EndedAt: tx.Now,
			Decision: webhook.Decision{State: webhook.Delivered}, Attempt: webhook.Attempt{DeliveryID: id, Number: 1, StartedAt: tx.Now, Class: webhook.OK, Status: 204}}
		if _, err := tx.RecordAttempts(ctx, "year", []*store.Outcome{outcome}); err != nil {
			return err
		}
		return tx.LeaveLane(ctx, "chat", "year")
	})
}
