// Package importer writes the histories of other systems as runs.
//
// [SorryCypress] reads what mongodump or mongoexport make of the database of
// sorry-cypress: dump.go reads the files, sorrycypress.go translates the
// collections. The shapes are those of its package common, version 2.6.
package importer

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"go.mongodb.org/mongo-driver/v2/bson"

	"runbell/internal/artifact"
	"runbell/internal/endpoint"
	"runbell/internal/intake"
	"runbell/internal/intake/cypress"
	"runbell/internal/lifecycle"
	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/webhook"
)

// atOnce is how many runs are written at the same time: they share commits.
const atOnce = 16

// Report says what an import has done.
type Report struct {
	Projects int // that were created
	Runs     int // that were imported now
	Specs    int // of those, with results
	Files    int // screenshots and videos that were copied now
	Before   int // runs that were there before, left as they are
	Problems []string
}

// Options are what an import writes with.
type Options struct {
	DB        *store.DB
	Runs      *lifecycle.Service
	Endpoints *endpoint.Service
	// Artifacts gets the screenshots and videos that are in Files, by the ends of
	// their addresses. Both may be nil.
	Artifacts *artifact.Service
	Files     artifact.Store
	Progress  func(Report) // is called with what was done so far, after each run
}

// SorryCypress imports a dump of sorry-cypress' database, with the times of then;
// no webhook hears of it. Runs keep their ids. It can be stopped and repeated: what
// is there stays.
//
// No server may use the database meanwhile: it would time out runs that are
// imported in part.
func SorryCypress(ctx context.Context, dir string, o Options) (_ Report, err error) {
	files := map[string]string{}
	for _, name := range []string{"projects", "runs", "instances"} {
		if files[name], err = findCollection(dir, name); err != nil {
			return Report{}, err
		}
	}
	if files["runs"] == "" {
		return Report{}, fmt.Errorf("%s has no runs.bson or runs.json: name the directory that 'mongodump --out' made, or "+
			"one with what mongoexport wrote", dir)
	}
	instances, err := openDocuments(files["instances"], "instanceId")
	if err != nil {
		return Report{}, err
	}
	defer func() { err = errors.Join(err, instances.close()) }()
	im := &sorryImport{Options: o, instances: instances, deadlines: map[time.Time]bool{}, warned: map[string]bool{}}
	if files["projects"] != "" {
		if err := eachDocument(files["projects"],
			func(_ int64, doc bson.Raw) error { return im.project(ctx, doc) }); err != nil {
			return im.report, err
		}
	}
	if err := im.allRuns(ctx, files["runs"]); err != nil {
		return im.report, err
	}
	if err := im.expire(ctx); err != nil || o.Artifacts == nil || o.Files == nil {
		return im.report, err
	}
	// After the runs are over: an upload counts as a report.
	err = im.copyFiles(ctx, files["runs"])
	return im.report, err
}

// sorryImport is an import under way.
type sorryImport struct {
	Options
	instances *documents

	mu        sync.Mutex
	report    Report
	deadlines map[time.Time]bool // when something ends by itself
	warned    map[string]bool    // projects, see warnOfRemoval
}

// problem notes what could not be imported. Those who read it can look at some, not
// at thousands.
func (im *sorryImport) problem(format string, args ...any) {
	im.mu.Lock()
	defer im.mu.Unlock()
	const most = 100
	if len(im.report.Problems) < most {
		im.report.Problems = append(im.report.Problems, fmt.Sprintf(format, args...))
	}
}

// decode reads a document into the fields of v.
func decode(doc bson.Raw, v any) error {
	text, err := bson.MarshalExtJSON(doc, false, false)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, v)
}

// moment is a time as text, as a BSON date, or none.
type moment struct{ time.Time }

// UnmarshalJSONFrom takes any value; what is no time is none.
func (m *moment) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	raw, err := d.ReadValue()
	if err != nil {
		return err
	}
	text := raw
	var date struct {
		Date jsontext.Value `json:"$date"`
	}
	if raw.Kind() == '{' && json.Unmarshal(raw, &date) == nil {
		text = date.Date
	}
	if text.Kind() != '"' || json.Unmarshal(text, &m.Time) != nil {
		m.Time = time.Time{}
	}
	m.Time = m.UTC().Truncate(time.Microsecond)
	return nil
}

// sorryProject is a document of the collection projects.
type sorryProject struct {
	ProjectID                intake.Text            `json:"projectId"`
	CreatedAt                moment                 `json:"createdAt"`
	InactivityTimeoutSeconds intake.Number          `json:"inactivityTimeoutSeconds"`
	Hooks                    intake.List[sorryHook] `json:"hooks"`
}

type sorryHook struct {
	HookType intake.Text  `json:"hookType"`
	URL      intake.Text  `json:"url"`
	Headers  intake.Text  `json:"headers"` // a JSON object as text
	Events   intake.Texts `json:"hookEvents"`
}

// project creates a project that is not there yet, with its webhooks.
func (im *sorryImport) project(ctx context.Context, doc bson.Raw) error {
	var p sorryProject
	if err := decode(doc, &p); err != nil {
		im.problem("A project cannot be read: %v.", err)
		return nil
	}
	id := string(p.ProjectID)
	created, err := im.createProject(ctx, id, time.Duration(p.InactivityTimeoutSeconds.Int())*time.Second,
		p.CreatedAt.Time)
	if err != nil && run.KindOf(err) != run.Internal {
		im.problem("Project %q is not imported: %v", id, err)
		return nil
	}
	if err != nil || !created {
		return err
	}
	for _, h := range p.Hooks {
		if err := im.hook(ctx, id, h); err != nil {
			return err
		}
	}
	return nil
}

// createProject reports false for a project that is there already. A project keeps
// what is imported until somebody says for how long.
func (im *sorryImport) createProject(ctx context.Context, id string, timeout time.Duration,
	at time.Time) (created bool, err error) {
	if err := run.CheckProjectID(id); err != nil {
		return false, err
	}
	p := run.NewProject(id)
	p.Keep.Runs, p.Keep.FailedArtifacts, p.Keep.PassedArtifacts = 0, 0, 0
	if timeout > 0 {
		p.InactivityTimeout = min(max(timeout, run.MinInactivity), run.MaxInactivity)
	}
	err = im.DB.Write(ctx, func(tx *store.Tx) (err error) {
		if p.CreatedAt = at; at.IsZero() {
			p.CreatedAt = tx.Now
		}
		created, err = tx.InsertProject(ctx, p)
		return err
	})
	if created {
		im.count(func(r *Report) { r.Projects++ })
	}
	return created, err
}

// hook creates a webhook of a project, disabled: sorry-cypress may still call it.
func (im *sorryImport) hook(ctx context.Context, projectID string, h sorryHook) error {
	if h.HookType != "GENERIC_HOOK" {
		im.problem("Project %q has a hook of type %s, which is not imported.", projectID, h.HookType)
		return nil
	}
	events := []webhook.Kind{}
	for _, e := range h.Events {
		if kind := webhook.Kind(e); slices.Contains(webhook.Kinds(), kind) {
			events = append(events, kind)
		}
	}
	headers := map[string]string{}
	if h.Headers != "" && json.Unmarshal([]byte(h.Headers), &headers) != nil {
		im.problem("A webhook of project %q is imported without its headers: they are not a JSON object of strings.",
			projectID)
	}
	_, err := im.Endpoints.Create(ctx, projectID,
		endpoint.Settings{URL: new(string(h.URL)), Headers: &headers, Events: &events,
			Label: new("imported from sorry-cypress"), Enabled: new(false)}, "by the import")
	if err != nil && run.KindOf(err) != run.Internal {
		im.problem("A webhook of project %q is not imported: %v", projectID, err)
		return nil
	}
	return err
}

// sorryRun is a document of the collection runs.
type sorryRun struct {
	RunID          intake.Text `json:"runId"`
	CreatedAt      moment      `json:"createdAt"`
	CypressVersion intake.Text `json:"cypressVersion"`
	Meta           struct {
		CIBuildID intake.Text    `json:"ciBuildId"`
		ProjectID intake.Text    `json:"projectId"`
		Commit    jsontext.Value `json:"commit"`
		Platform  jsontext.Value `json:"platform"`
		CI        jsontext.Value `json:"ci"`
	} `json:"meta"`
	Specs []sorrySpec `json:"specs"`
}

type sorrySpec struct {
	Spec        intake.Text `json:"spec"`
	GroupID     intake.Text `json:"groupId"`
	InstanceID  intake.Text `json:"instanceId"`
	MachineID   intake.Text `json:"machineId"`
	ClaimedAt   moment      `json:"claimedAt"`
	CompletedAt moment      `json:"completedAt"`
}

// sorryInstance is a document of the collection instances: what the reporter sent,
// with the tests of the first request merged into the results.
type sorryInstance struct {
	Tests   jsontext.Value `json:"_createTestsPayload"`
	Results jsontext.Value `json:"results"`
}

// allRuns imports runs, several at a time. Those that cannot be imported are
// problems; an error of the database ends the import.
func (im *sorryImport) allRuns(ctx context.Context, path string) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var work sync.WaitGroup
	places := make(chan struct{}, atOnce)
	err := eachDocument(path, func(_ int64, doc bson.Raw) error {
		var r sorryRun
		if err := decode(doc, &r); err != nil {
			im.problem("A run cannot be read: %v.", err)
			return nil
		}
		select {
		case places <- struct{}{}:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		work.Go(func() {
			defer func() { <-places }()
			if err := im.run(ctx, r); err != nil && run.KindOf(err) == run.Internal {
				cancel(fmt.Errorf("run %s: %w", r.RunID, err))
			} else if err != nil {
				im.problem("Run %s is not imported, or only in part: %v", r.RunID, err)
			}
		})
		return nil
	})
	work.Wait()
	return errors.Join(err, context.Cause(ctx))
}

// run imports one run: its machines join when it began, and claim and report when
// they did. A run that is over is left as it is.
func (im *sorryImport) run(ctx context.Context, r sorryRun) error {
	if r.RunID == "" || len(r.RunID) > run.MaxNameLength || r.CreatedAt.IsZero() || len(r.Specs) == 0 {
		return run.Errorf(run.Invalid, "it has no id, no specs, or no creation time.")
	}
	projectID := string(r.Meta.ProjectID)
	if _, err := im.createProject(ctx, projectID, 0, r.CreatedAt.Time); err != nil {
		return err
	}
	var project run.Project
	over := false
	err := im.DB.Read(ctx, func(tx *store.Tx) (err error) {
		if project, err = tx.Project(ctx, projectID); err != nil {
			return err
		}
		known, err := tx.Run(ctx, string(r.RunID))
		if run.KindOf(err) == run.NotFound {
			return nil
		}
		over = known.State != run.Running
		return err
	})
	if err != nil {
		return err
	}
	if over {
		im.count(func(report *Report) { report.Before++ })
		return nil
	}
	im.warnOfRemoval(project, r.CreatedAt.Time)
	machines, err := im.join(ctx, r)
	if err != nil {
		return err
	}
	steps := r.steps(machines)
	last, completed := r.CreatedAt.Time, 0
	for _, s := range steps {
		if err := im.take(ctx, r, s); err != nil {
			return err
		}
		last = s.at
		if s.complete {
			completed++
		}
	}
	im.count(func(report *Report) {
		report.Runs++
		report.Specs += completed
		im.deadlines[last.Add(project.CompletionDelay)] = true
		if completed < len(r.Specs) {
			im.deadlines[last.Add(project.InactivityTimeout)] = true
		}
	})
	return nil
}

// warnOfRemoval notes, once for each project, that runs are imported which the
// server will remove because they are old.
func (im *sorryImport) warnOfRemoval(p run.Project, created time.Time) {
	im.mu.Lock()
	warned := im.warned[p.ID]
	old := p.Keep.Runs > 0 && created.Before(run.Before(p.Keep.Runs, im.DB.Now()))
	im.warned[p.ID] = warned || old
	im.mu.Unlock()
	if old && !warned {
		im.problem("Project %q keeps runs for %d days, and older ones are imported: the server removes them unless you "+
			"raise runDays first.", p.ID, p.Keep.Runs)
	}
}

// count changes the report, and shows it.
func (im *sorryImport) count(change func(*Report)) {
	im.mu.Lock()
	defer im.mu.Unlock()
	change(&im.report)
	im.Progress(im.report)
}

// join lets all machines of a run join when it began. It returns the id of the
// machine that has run each instance.
func (im *sorryImport) join(ctx context.Context, r sorryRun) (machines map[intake.Text]string, err error) {
	machines = map[intake.Text]string{}
	runs := im.Runs.At(r.CreatedAt.Time)
	group := map[string]intake.Text{} // of each machine
	for _, g := range r.groups() {
		j, err := r.request(g)
		if err != nil {
			return nil, err
		}
		for _, s := range r.Specs {
			if s.GroupID != g {
				continue
			}
			id := string(s.MachineID)
			if other, ok := group[id]; id == "" || ok && other != g {
				id += "-" + string(g) // old versions do not say which machine it was
			}
			machines[s.InstanceID] = id
			if _, joined := group[id]; joined {
				continue
			}
			group[id] = g
			j.MachineID, j.Fingerprint = id, "import "+string(r.RunID)+" "+id
			if _, err := runs.Join(ctx, j); err != nil {
				return nil, err
			}
		}
	}
	return machines, nil
}

// groups are the groups of a run in the order in which they joined.
func (r sorryRun) groups() (list []intake.Text) {
	for _, s := range r.Specs {
		if !slices.Contains(list, s.GroupID) {
			list = append(list, s.GroupID)
		}
	}
	return list
}

// request is what a machine of a group has sent to join.
func (r sorryRun) request(group intake.Text) (lifecycle.Join, error) {
	request := struct {
		ProjectID intake.Text    `json:"projectId"`
		CIBuildID intake.Text    `json:"ciBuildId"`
		Group     intake.Text    `json:"group,omitempty"`
		Specs     []intake.Text  `json:"specs"`
		Commit    jsontext.Value `json:"commit,omitempty"`
		Platform  jsontext.Value `json:"platform,omitempty"`
		CI        jsontext.Value `json:"ci,omitempty"`
	}{r.Meta.ProjectID, r.Meta.CIBuildID, group, nil, r.Meta.Commit, r.Meta.Platform, r.Meta.CI}
	if group == r.Meta.CIBuildID { // what sorry-cypress calls a group without a name
		request.Group = ""
	}
	for _, s := range r.Specs {
		if s.GroupID == group {
			request.Specs = append(request.Specs, s.Spec)
		}
	}
	doc, err := json.Marshal(request)
	if err != nil {
		return lifecycle.Join{}, err
	}
	j, err := cypress.ReadJoin(doc)
	j.RunID, j.Parallel = string(r.RunID), true
	j.Client = run.Client{Name: "cypress",
		Framework: run.Framework{Name: "cypress", Version: intake.Short(r.CypressVersion, 40)}}
	return j, err
}

// step is a spec that a machine claimed, or that it reported.
type step struct {
	at       time.Time
	complete bool
	spec     sorrySpec
	machine  string
}

// steps are what the machines of a run did, in order.
func (r sorryRun) steps(machines map[intake.Text]string) (list []step) {
	for _, s := range r.Specs {
		claimed, completed := s.ClaimedAt.Time, s.CompletedAt.Time
		if claimed.IsZero() {
			claimed = completed
		}
		if claimed.IsZero() {
			continue
		}
		claimed = later(claimed, r.CreatedAt.Time)
		list = append(list, step{claimed, false, s, machines[s.InstanceID]})
		if !completed.IsZero() {
			list = append(list, step{later(completed, claimed), true, s, machines[s.InstanceID]})
		}
	}
	slices.SortStableFunc(list, func(a, b step) int { return a.at.Compare(b.at) })
	return list
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// take repeats a step. The claim of a spec that was claimed already answers with
// the same instance, so a report finds it.
func (im *sorryImport) take(ctx context.Context, r sorryRun, s step) error {
	runs := im.Runs.At(s.at)
	claimed, err := runs.Claim(ctx,
		lifecycle.Claim{RunID: string(r.RunID), MachineID: s.machine, Spec: string(s.spec.Spec), Limit: 1, Late: s.complete})
	if err != nil || !s.complete {
		return err
	}
	if len(claimed.Instances) == 0 {
		return run.Errorf(run.Conflict, "spec %q belongs to another machine.", s.spec.Spec)
	}
	tests, outcome, err := im.results(s.spec.InstanceID)
	if err != nil {
		if run.KindOf(err) == run.Internal {
			return err
		}
		outcome = run.Outcome{Warnings: []string{fmt.Sprintf("The results of spec %q could not be imported: %v", s.spec.Spec,
			err)}}
	}
	_, err = runs.Complete(ctx, claimed.Instances[0].ID, tests, outcome)
	return err
}

// results reads what a spec came to.
func (im *sorryImport) results(instanceID intake.Text) (*run.Announcement, run.Outcome, error) {
	var none run.Outcome
	doc, ok, err := im.instances.get(string(instanceID))
	if err != nil {
		return nil, none, err
	}
	var i sorryInstance
	if ok {
		err = decode(doc, &i)
	}
	if err != nil || i.Results.Kind() != '{' {
		return nil, none, run.Errorf(run.NotFound, "the dump does not have them.")
	}
	outcome, err := cypress.ReadResults(i.Results)
	if err != nil {
		return nil, none, err
	}
	if i.Tests.Kind() != '{' {
		i.Tests = i.Results // its tests have their titles
	}
	tests, err := cypress.ReadTests(i.Tests)
	return &tests, outcome, err
}

// expire times out the runs that never came to an end, and closes those that did,
// each when it was due.
func (im *sorryImport) expire(ctx context.Context) error {
	for _, at := range slices.SortedFunc(maps.Keys(im.deadlines), time.Time.Compare) {
		if _, err := im.Runs.At(at).Sweep(ctx); err != nil {
			return err
		}
	}
	return nil
}
