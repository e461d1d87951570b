package ui

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"runbell/internal/auth"
	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/web"
	"runbell/internal/webhook"
)

// The limits of a run's page. The page says what is left out, and links to it: /run/{runId}/specs lists all specs,
// /run/{runId}/spec has one of them with every test.
const (
	maxSpecs    = 100    // specs listed
	maxRead     = 20_000 // tests looked at to find those worth showing
	maxTests    = 50     // tests shown below their specs
	maxOfSpec   = 50     // of these, of one spec
	maxFailures = 100    // tests listed among the failures
	maxGroups   = 100    // groups listed
	maxEvents   = 100    // webhook events listed
	// maxDeliveries is how many deliveries of a run are listed.
	maxDeliveries = 200
	maxRunText    = 1 << 20 // bytes of errors and console output
	refresh       = 2       // seconds between two looks at a run that is running
)

// runPage shows one run.
type runPage struct {
	layout
	crumbs
	Running bool
	Paused  bool // the reader turned live updates off

	Lead      figure
	Figures   []figure
	Counts    run.Counts
	Bar       []segment
	Specs     int
	Completed int
	Elapsed   elapsed

	Started  time.Time
	Finished time.Time // zero while running
	Heard    time.Time // the last report of a run that is running
	CloseAt  time.Time

	Canceled *cancellation
	Silences []silence
	source

	// Browser, OS and Deadline belong to the implicit group, if the run has no other: then the page does not list groups.
	Browser  string
	OS       string
	Deadline time.Time
	Warnings []run.Warning

	Compared     comparison
	Failures     []*failureGroup
	MoreFailures int
	Groups       []groupView
	MoreGroups   int
	Filter       specFilter
	List         []specView
	MoreSpecs    int
	SpecsURL     string // of all that match the filter
	Events       []eventView
	MoreEvents   int
	Timeline     *timeline
	FailedText   string // the failures as text, for an issue or a chat
	CancelURL    string // "" if the reader may not, or the run is over
	kept
}

// kept is whether and for how long the run is kept.
type kept struct {
	Pinned           *pinned // nil for readers who have not signed in
	ArtifactsRemoved time.Time
	OutputRemoved    time.Time
	// The addresses of what the reader may do; "" is not allowed.
	PinURL, UnpinURL, DeleteURL string
}

type pinned struct {
	By string
	At time.Time
}

func (u *ui) keptOf(req *request, r run.Run) kept {
	k := kept{ArtifactsRemoved: r.ArtifactsRemovedAt, OutputRemoved: r.OutputRemovedAt}
	isPinned := !r.PinnedAt.IsZero()
	if isPinned && req.signedIn() {
		k.Pinned = &pinned{run.Clip(run.Plain(r.PinnedBy), 200), r.PinnedAt}
	}
	switch may := req.may(auth.ManageRuns); {
	case may && isPinned:
		k.UnpinURL = u.runURL(r.ID) + "/unpin"
	case may:
		k.PinURL = u.runURL(r.ID) + "/pin"
	}
	if req.may(auth.ManageProjects) && r.State.Terminal() && !isPinned {
		k.DeleteURL = u.runURL(r.ID) + "/delete"
	}
	return k
}

func (u *ui) pinRun(r *request) error {
	id := r.PathValue("runId")
	if _, err := u.runs.Pin(r.Context(), id, r.who.Name); err != nil {
		return err
	}
	return r.to(u.runURL(id))
}

func (u *ui) unpinRun(r *request) error {
	id := r.PathValue("runId")
	if _, err := u.runs.Unpin(r.Context(), id); err != nil {
		return err
	}
	return r.to(u.runURL(id))
}

func (u *ui) deleteRun(r *request) error {
	id := r.PathValue("runId")
	var of run.Run
	err := u.db.Read(r.Context(), func(tx *store.Tx) (err error) {
		of, err = tx.Run(r.Context(), id)
		return err
	})
	if err != nil {
		return err
	}
	if err := u.sweeper.DeleteRun(r.Context(), id); err != nil {
		return err
	}
	return r.to(u.projectURL(of.ProjectID, "?done=rundeleted"))
}

// source is where a run came from.
type source struct {
	Branch, BranchURL         string
	Commit                    *commitView
	AuthorURL                 string
	Repository, RepositoryURL string
	Tags                      []tagView
	CI, CIURL, Job            string
	Pull, PullURL             string
	Client                    string
}

// tagView is a tag with the runs that have it.
type tagView struct{ Name, URL string }

type cancellation struct {
	Actor, Reason string
	At            time.Time
}

// silence is why a group was timed out.
type silence struct {
	Group    string // "" for the only one
	For      time.Duration
	Heard    time.Time
	Lost     int // specs that were started and not reported
	NotBegun int
}

type commitView struct {
	Short, URL, Body, Author string
}

type groupView struct {
	ID       string // anchor
	Name     string
	Verdict  verdict
	Browser  string
	OS       string
	Counts   run.Counts
	Specs    int
	Done     int
	Elapsed  elapsed
	Deadline time.Time // of a group that is running
}

// runState is a run with what its pages need of the rest.
type runState struct {
	run        run.Run
	project    run.Project
	deliveries []webhook.Delivery // only for readers who have signed in
}

// ofRun serves a page about a run: 304 if the reader has it already, which costs a few rows, otherwise the page that
// load makes from the run and the parameters. Readers who may not see the run get the same response as for a run that
// does not exist.
func (u *ui) ofRun(r *request, parameters []string, load func(*store.Tx, runState) ([]byte, error)) error {
	ctx := r.Context()
	at, tag, err := u.findRun(r)
	switch {
	case err != nil:
		return err
	case tag == "":
		u.toSignIn(r)
		return nil
	}
	u.artifacts.Shown(at.run.ID)
	if web.Matches(r.Header.Get("If-None-Match"), `W/"`+tag+`"`) {
		r.unchanged(tag)
		return nil
	}
	page := func() (body []byte, err error) {
		err = u.db.Read(ctx, func(tx *store.Tx) error {
			body, err = load(tx, at)
			return err
		})
		return body, err
	}
	if !r.signedIn() {
		packed, err := u.pages.get(ctx, auth.Network(web.Address(r.Request)), publicKey(r, tag, parameters), page)
		if err != nil {
			return err
		}
		r.unchanged(tag)
		return r.writePacked(packed)
	}
	body, err := page()
	if err != nil {
		return err
	}
	r.unchanged(tag)
	r.write(http.StatusOK, body)
	return nil
}

// findRun finds the run of a page, with a tag that changes when the page does.
// The tag is empty if the reader may not see the run.
func (u *ui) findRun(r *request) (at runState, tag string, err error) {
	ctx := r.Context()
	err = u.db.Read(ctx, func(tx *store.Tx) error {
		at.run, err = tx.Run(ctx, r.PathValue("runId"))
		if run.KindOf(err) == run.NotFound && !r.signedIn() {
			return nil
		}
		if err != nil {
			return err
		}
		at.project, err = tx.Project(ctx, at.run.ProjectID)
		if err != nil {
			return err
		}
		if !r.signedIn() && !at.project.PublicRuns {
			return nil
		}
		expecting := tx.Now.Sub(at.run.FinishedAt) < uploading
		state := fmt.Appendf(nil, "%s %t %t %d %q %q %s %s %s", build(), u.artifacts != nil, expecting, at.run.Rev,
			at.project.Name, r.who.Name, r.who.ID, r.who.Role, r.theme())
		if r.signedIn() {
			if at.deliveries, _, err = tx.Deliveries(ctx, store.DeliveryFilter{RunID: at.run.ID},
				store.Page{Limit: maxDeliveries}); err != nil {
				return err
			}
			for _, d := range at.deliveries {
				state = fmt.Appendf(state, " %s %s %d", d.ID, d.State, d.Attempts)
			}
		}
		compared, err := comparisonTag(ctx, tx, at.project, at.run)
		if err != nil {
			return err
		}
		state = append(state, compared...)
		if at.run.State == run.Running {
			state = fmt.Appendf(state, " %d", r.now(tx).Unix()) // how long it has worked
		}
		sum := sha256.Sum256(state)
		tag = hex.EncodeToString(sum[:12])
		return nil
	})
	return at, tag, err
}

func (u *ui) run(r *request) error {
	return u.ofRun(r, []string{"show", "q", "sort", "refresh"}, func(tx *store.Tx, at runState) ([]byte, error) {
		p, err := u.loadRun(r, tx, at)
		if err != nil {
			return nil, err
		}
		return u.views.run.render(p)
	})
}

func (u *ui) runURL(id string) string { return u.base + "/run/" + url.PathEscape(id) }

func (u *ui) loadRun(req *request, tx *store.Tx, at runState) (runPage, error) {
	ctx, r := req.Context(), at.run
	groups, err := tx.Groups(ctx, r.ID)
	if err != nil {
		return runPage{}, err
	}
	instances, err := tx.Instances(ctx, r.ID)
	if err != nil {
		return runPage{}, err
	}
	machines, err := tx.MachineNumbers(ctx, r.ID)
	if err != nil {
		return runPage{}, err
	}
	p := runPage{crumbs: u.crumbs(r, at.project, groups),
		Running: r.State == run.Running, Paused: req.URL.Query().Get("refresh") == "off",
		Started: r.CreatedAt, Finished: r.FinishedAt, CloseAt: r.CloseAt, Heard: r.LastReport(groups)}
	if p.Warnings, err = tx.Warnings(ctx, r.ID); err != nil {
		return runPage{}, err
	}
	for _, g := range groups {
		p.Counts = p.Counts.Plus(g.Counts)
		p.Specs += g.Specs
		p.Completed += g.Completed
	}
	p.Filter = req.specFilter(p.RunURL)
	p.Lead, p.Figures = figures(r.State, p.Counts, p.Completed, p.Specs, p.Filter)
	p.SpecsURL = p.Filter.at(p.RunURL + "/specs")
	p.layout = u.layout(req, p.Verdict.Word+" · "+p.Subject, p.Verdict.Tone)
	p.Project = u.nav(at.project, "runs")
	p.Bar = barOf(p.Counts, p.Completed, p.Specs)
	p.Elapsed = elapsedOf(r, p.Heard, req.now(tx))
	if p.Running && !p.Paused {
		p.Live, p.Reload = refresh, true
	}
	if p.Running && req.may(auth.ManageRuns) {
		p.CancelURL = p.RunURL + "/cancel"
	}
	if c := r.Cancellation; c != nil {
		p.Canceled = &cancellation{Actor: run.Clip(run.Plain(c.Actor), 200), Reason: run.Clip(run.Plain(c.Reason), 1000),
			At: c.At}
	}
	p.source, p.kept = u.sourceOf(req, r), u.keptOf(req, r)
	p.addGroups(r, groups, req.now(tx))
	if err := u.addEvents(req, tx, at, &p); err != nil {
		return p, err
	}
	if err := u.addSpecs(req, tx, at, sortSpecs(groups, machines, instances), &p); err != nil {
		return p, err
	}
	if p.Compared, err = u.compared(req, tx, at, p.Failures); err != nil {
		return p, err
	}
	if p.Compared.Counting && p.Live == 0 && !p.Paused {
		p.Live = refresh // until the comparison is whole
	}
	return p, nil
}

// addSpecs adds the failures, the timeline, and the specs that match the filter.
func (u *ui) addSpecs(req *request, tx *store.Tx, at runState, all []specRef, p *runPage) error {
	x := u.specReader(req, tx, at.run, len(p.Groups) > 0)
	f := collect(maxFailures)
	for _, s := range all {
		if s.CompletedAt.IsZero() || s.Counts.Failures == 0 && s.Exception == "" {
			continue
		}
		if len(f.byID) == maxFailures {
			break
		}
		reported, err := x.tests(s)
		if err != nil {
			return err
		}
		if err := x.failuresIn(f, s, reported); err != nil {
			return err
		}
	}
	p.Failures = f.list
	if len(f.list) > 0 && !p.Running { // while the run is running, folded specs must stay folded
		f.list[0].Tests[0].Open = true
	}
	p.MoreFailures = max(0, p.Counts.Failures-f.shown)
	if len(f.list) > 0 {
		p.FailedText = fmt.Sprintf("%s of %s failed: %s", number(p.Counts.Failures), count(p.Counts.Overall(), "test"),
			p.Subject)
		if p.Branch != "" {
			p.FailedText += " (" + p.Branch + ")"
		}
		p.FailedText += "\n" + u.public + "/run/" + at.run.ID + "\n" + f.text()
		if p.MoreFailures > 0 {
			p.FailedText += "\n\nand " + number(p.MoreFailures) + " more."
		}
	}

	list := p.Filter.apply(all)
	p.MoreSpecs = max(0, len(list)-maxSpecs)
	list = list[:min(len(list), maxSpecs)]
	listed := map[string]bool{}
	for _, s := range list {
		v, err := x.spec(s, p.Filter, f)
		if err != nil {
			return err
		}
		listed[s.ID] = true
		p.List = append(p.List, v)
	}
	p.Timeline = timelineOf(at.run, all, p.Heard, x.named, func(s specRef) string {
		if v := u.specLine(at.run, s, false); listed[s.ID] {
			return "#" + v.ID
		} else {
			return v.URL
		}
	})
	return nil
}

// maxReason is how much of a reason to cancel is kept.
const maxReason = 500

func (u *ui) cancelRun(r *request) error {
	reason := strings.TrimSpace(r.PostFormValue("reason"))
	if len([]rune(reason)) > maxReason {
		return run.Errorf(run.Invalid, "The reason must have at most %d characters.", maxReason)
	}
	id := r.PathValue("runId")
	if _, err := u.runs.Cancel(r.Context(), id, r.who.Name, reason); err != nil {
		return err
	}
	return r.to(u.runURL(id))
}

// subjectOf is the title of a run: the subject of its commit, or its build.
func subjectOf(r run.Run) string {
	subject, _, _ := strings.Cut(strings.TrimSpace(run.Plain(r.Commit.Message)), "\n")
	if subject = run.Clip(strings.TrimSpace(subject), 300); subject != "" {
		return subject
	}
	return r.CIBuildID
}

// jobOf is the name of the CI job, "" if it is not known.
func jobOf(ci run.CI) string {
	for _, name := range []string{"githubWorkflow", "circleJob", "jobName", "ciJobName", "buildkitePipelineSlug"} {
		if job := ci.Params[name]; job != "" {
			return run.Clip(job, 80)
		}
	}
	return ""
}

// pullName is the text of a link to a pull request.
func pullName(pr run.PullRequest) string {
	if pr.Number == 0 {
		return "Pull request"
	}
	return fmt.Sprintf("Pull request #%d", pr.Number)
}

// sourceOf says where a run came from, with links to runs like it for readers who may see them.
func (u *ui) sourceOf(req *request, r run.Run) source {
	s := source{Branch: run.Clip(r.Commit.Branch, 300), CI: providerName(r.CI.Provider), CIURL: r.CI.URL(),
		Job: jobOf(r.CI)}
	like := func(name, value string) string {
		if value == "" || !req.signedIn() {
			return ""
		}
		return withValues(u.projectURL(r.ProjectID, ""), url.Values{name: {value}})
	}
	remote, known := run.ParseRemote(r.Commit.RemoteOrigin)
	if known {
		s.Repository, s.RepositoryURL = remote.String(), remote.URL()
	}
	_, body, _ := strings.Cut(strings.TrimSpace(run.Plain(r.Commit.Message)), "\n")
	c := commitView{Short: r.Commit.Short(), Body: run.Clip(strings.TrimSpace(body), 4000),
		Author: run.Clip(r.Commit.AuthorName, 200)}
	if known {
		c.URL = remote.CommitURL(r.Commit.SHA)
	}
	if c != (commitView{}) {
		s.Commit = &c
	}
	if pr := r.Commit.PullRequest; pr != nil {
		s.Pull, s.PullURL = pullName(*pr), pr.URL
	}
	s.BranchURL, s.AuthorURL = like("branch", r.Commit.Branch), like("author", r.Commit.AuthorName)
	for _, t := range r.Tags {
		s.Tags = append(s.Tags, tagView{t, like("tag", t)})
	}
	if r.Client.Name != "" {
		s.Client = run.Clip(strings.TrimSpace(r.Client.Name+" "+r.Client.Version), 100)
	}
	if f := r.Client.Framework; f.Version != "" && r.Client.Name != f.Name {
		s.Client = strings.TrimPrefix(s.Client+", "+frameworkName(f.Name)+" "+run.Clip(f.Version, 40), ", ")
	}
	return s
}

func (p *runPage) addGroups(r run.Run, groups []run.Group, now time.Time) {
	p.MoreGroups = max(0, len(groups)-maxGroups)
	for _, g := range groups {
		if g.State == run.TimedOut && len(p.Silences) < maxGroups {
			s := silence{For: g.InactivityTimeout, Heard: g.HeardAt, Lost: g.Claimed - g.Completed,
				NotBegun: g.Specs - g.Claimed}
			if g.Explicit {
				s.Group = g.Name
			}
			p.Silences = append(p.Silences, s)
		}
	}
	for n, g := range groups[:min(len(groups), maxGroups)] {
		v := groupView{ID: fmt.Sprintf("group-%d", n+1), Name: g.Name, Verdict: verdictOf(g.State, g.Counts),
			Counts: g.Counts, Specs: g.Specs, Done: g.Completed,
			Browser: run.Clip(strings.TrimSpace(g.Platform.BrowserName+" "+g.Platform.BrowserVersion), 100),
			OS:      osOf(g.Platform),
			Elapsed: elapsed{Took: g.Elapsed(now)}}
		if g.State == run.Running {
			v.Elapsed.Since, v.Deadline = g.CreatedAt, g.Deadline()
		}
		p.Groups = append(p.Groups, v)
	}
	if len(groups) == 1 && !groups[0].Explicit {
		only := p.Groups[0]
		p.Browser, p.OS, p.Deadline, p.Groups = only.Browser, only.OS, only.Deadline, nil
	}
}

// osOf avoids "linux Debian - 12": distributions are known to be Linux.
func osOf(p run.Platform) string {
	name := map[string]string{"linux": "Linux", "darwin": "macOS", "win32": "Windows"}[p.OSName]
	if name == "" {
		name = p.OSName
	}
	version := strings.ReplaceAll(p.OSVersion, " - ", " ")
	if p.OSName == "linux" && version != "" && version[0] > '9' {
		name = ""
	}
	return run.Clip(strings.TrimSpace(name+" "+version), 100)
}
