package ui

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"runbell/internal/auth"
	"runbell/internal/run"
	"runbell/internal/store"
)

// What a run's page shows at most, however large the run. What is left out is
// said, and linked to: /run/{runId}/specs lists all specs, /run/{runId}/spec
// has one of them with every test.
const (
	maxSpecs    = 100    // specs listed
	maxRead     = 20_000 // tests looked at to find those worth showing
	maxTests    = 50     // tests that failed, were flaky or skipped, with their errors
	maxOfSpec   = 50     // of these, of one spec
	maxFailures = 100    // lines of "What failed"
	maxGroups   = 100    // groups listed
	maxEvents   = 100    // webhook events listed
	// maxDeliveries is how many deliveries of a run are listed.
	maxDeliveries = 200
	maxRunText    = 1 << 20 // bytes of errors and console output
	refresh       = 2       // seconds between two looks at a run that is running
)

// runPage is all about one run.
type runPage struct {
	layout
	RunURL  string
	Build   string
	Verdict verdict
	Running bool
	Paused  bool // the reader turned refreshing off

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

	Branch     string
	Commit     *commitView
	Repository string
	Tags       []string
	CI         string
	CIURL      string
	Client     string
	// Browser and OS are those of the only group, if it is the implicit one:
	// it is the run then, and not listed. So is its Deadline.
	Browser  string
	OS       string
	Deadline time.Time

	Failures     []failureLine
	MoreFailures int
	Groups       []groupView
	MoreGroups   int
	List         []specView
	MoreSpecs    int
	SpecsURL     string
	Events       []eventView
	MoreEvents   int
	Timeline     *timeline
	FailedText   string // what failed, for an issue or a chat
	CancelURL    string // "" for who may not, or when it is over
}

// verdict is what a state and its counts amount to.
type verdict struct {
	Word     string // in capitals, as webhooks and the API have it
	Tone     tone
	Sentence string
}

func verdictOf(state run.State, c run.Counts) verdict {
	bad := c.Failures + c.Skipped
	switch status := run.StatusOf(state, c); {
	case state == run.Canceled:
		return verdict{"CANCELED", toneIdle, "Canceled before it was finished, so its status is FAILED."}
	case state == run.TimedOut:
		return verdict{"TIMED OUT", toneWarn, "It went silent before it was finished, so its status is FAILED."}
	case status == run.StatusRunning:
		return verdict{string(status), toneRun, "Still running; nothing has failed so far."}
	case status == run.StatusFailing:
		return verdict{string(status), toneFail, fmt.Sprintf("Still running, and %s not pass.", did(bad))}
	case status == run.StatusPassed && c.Flaky > 0:
		return verdict{string(status), tonePass, fmt.Sprintf("Finished: everything passed, %s only when retried.", count(c.Flaky, "test"))}
	case status == run.StatusPassed:
		return verdict{string(status), tonePass, "Finished: everything passed."}
	default:
		return verdict{string(status), toneFail, fmt.Sprintf("Finished, but %s not pass.", did(bad))}
	}
}

func did(n int) string { return count(n, "test") + " did" }

// segment is a part of the bar under the numbers, in thousandths of its width.
type segment struct {
	Tone tone
	X, W int
}

// barOf draws the counts of completed specs in proportion. What is missing of
// its width are the specs that have not completed.
func barOf(c run.Counts, completed, specs int) []segment {
	c.Announced = 0
	tests := c.Overall()
	if tests == 0 || specs == 0 {
		return nil
	}
	width := 1000 * completed / specs
	var out []segment
	done := 0
	for _, part := range []struct {
		tone tone
		n    int
	}{{toneFail, c.Failures}, {toneSkip, c.Skipped}, {toneFlaky, c.Flaky}, {tonePass, c.Passes - c.Flaky}, {toneIdle, c.Pending}} {
		if part.n <= 0 {
			continue
		}
		x := done * width / tests
		done += part.n
		out = append(out, segment{part.tone, x, max(3, done*width/tests-x)}) // thin, but there
	}
	return out
}

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
	Short, URL, Subject, Body, Author string
}

type failureLine struct {
	URL   string
	Spec  string
	Path  []string // of titles, without the last
	Title string
	Error string
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

// elapsed is how long something has worked.
type elapsed struct {
	Took  time.Duration
	Since time.Time // when it began, of what still works; the page counts on from there
}

func elapsedOf(r run.Run, groups []run.Group, now time.Time) elapsed {
	e := elapsed{Took: r.Elapsed(r.LastReport(groups), now)}
	if r.State == run.Running && r.RunningGroups > 0 {
		e.Since = r.CreatedAt
	}
	return e
}

// now is the instant of a page. A page that looks for something new knows the time
// itself: what it gets must differ only when something has happened.
func (r *request) now(tx *store.Tx) time.Time {
	if r.live() {
		return time.Time{}
	}
	return tx.Now
}

// live says that a page of ours looks for something new, see static/runbell.js.
func (r *request) live() bool { return r.Header.Get("Runbell-Live") != "" }

// ofRun answers with a page about a run: 304 where the reader has it already,
// which costs a few rows, else what load makes of the run. Readers who may not
// see the run get the same answer as for a run that does not exist.
func (u *ui) ofRun(r *request, load func(*store.Tx, run.Run, run.Project) ([]byte, error)) error {
	ctx := r.Context()
	found, project, tag, err := u.findRun(r)
	switch {
	case err != nil:
		return err
	case tag == "":
		u.toSignIn(r)
		return nil
	case matches(r.Header.Get("If-None-Match"), `W/"`+tag+`"`):
		r.unchanged(tag)
		return nil
	}
	page := func() (body []byte, err error) {
		err = u.db.Read(ctx, func(tx *store.Tx) error {
			body, err = load(tx, found, project)
			return err
		})
		return body, err
	}
	if !r.signedIn() {
		packed, err := u.pages.get(ctx, publicKey(r, tag), page)
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
func (u *ui) findRun(r *request) (found run.Run, project run.Project, tag string, err error) {
	ctx := r.Context()
	err = u.db.Read(ctx, func(tx *store.Tx) error {
		found, err = tx.Run(ctx, r.PathValue("runId"))
		if run.KindOf(err) == run.NotFound && !r.signedIn() {
			return nil
		}
		if err != nil {
			return err
		}
		project, err = tx.Project(ctx, found.ProjectID)
		if err != nil {
			return err
		}
		if !r.signedIn() && !project.PublicRuns {
			return nil
		}
		state := fmt.Appendf(nil, "%s %d %q %q %s %s", build, found.Rev, project.Name, r.who.Name, r.who.ID, r.who.Role)
		if r.signedIn() {
			deliveries, _, err := tx.Deliveries(ctx, store.DeliveryFilter{RunID: found.ID}, store.Page{Limit: maxDeliveries})
			if err != nil {
				return err
			}
			for _, d := range deliveries {
				state = fmt.Appendf(state, " %s %s %d", d.ID, d.State, d.Attempts)
			}
		}
		if found.State == run.Running {
			state = fmt.Appendf(state, " %d", r.now(tx).Unix()) // how long it has worked
		}
		sum := sha256.Sum256(state)
		tag = hex.EncodeToString(sum[:12])
		return nil
	})
	return found, project, tag, err
}

func (u *ui) run(r *request) error {
	return u.ofRun(r, func(tx *store.Tx, found run.Run, project run.Project) ([]byte, error) {
		p, err := u.loadRun(r, tx, found, project)
		if err != nil {
			return nil, err
		}
		return u.views.run.render(p)
	})
}

func (u *ui) runURL(id string) string { return u.base + "/run/" + url.PathEscape(id) }

func (u *ui) loadRun(req *request, tx *store.Tx, r run.Run, project run.Project) (runPage, error) {
	ctx := req.Context()
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
	events, err := tx.Events(ctx, r.ID)
	if err != nil {
		return runPage{}, err
	}
	p := runPage{
		RunURL: u.runURL(r.ID), SpecsURL: u.runURL(r.ID) + "/specs",
		Build:   r.CIBuildID,
		Running: r.State == run.Running, Paused: req.URL.Query().Get("refresh") == "off",
		Started: r.CreatedAt, Finished: r.FinishedAt, CloseAt: r.CloseAt,
	}
	for _, g := range groups {
		p.Counts = p.Counts.Plus(g.Counts)
		p.Specs += g.Specs
		p.Completed += g.Completed
	}
	p.Heard = r.LastReport(groups)
	p.Verdict = verdictOf(r.State, p.Counts)
	p.layout = u.layout(req, p.Verdict.Word+" · "+run.Clip(r.CIBuildID, 100), p.Verdict.Tone)
	p.Project = u.nav(project, "runs")
	p.Bar = barOf(p.Counts, p.Completed, p.Specs)
	p.Elapsed = elapsedOf(r, groups, req.now(tx))
	if p.Running && !p.Paused {
		p.Live, p.Reload = refresh, true
	}
	p.describe(r)
	p.addGroups(r, groups, req.now(tx))
	deliveries, err := u.deliveriesOf(req, tx, r)
	if err != nil {
		return p, err
	}
	p.addEvents(r, events, deliveries)
	if p.Running && req.may(auth.CancelRuns) {
		p.CancelURL = p.RunURL + "/cancel"
	}

	specs := sortSpecs(groups, machines, instances)
	p.MoreSpecs = max(0, len(specs)-maxSpecs)
	named := r.Explicit || len(groups) > 1
	listed := map[string]bool{}
	for _, s := range specs[:min(len(specs), maxSpecs)] {
		listed[s.ID] = true
	}
	p.Timeline = timelineOf(r, specs, p.Heard, named, func(s specRef) string {
		if v := u.specLine(r, s, false); listed[s.ID] {
			return "#" + v.ID
		} else {
			return v.URL
		}
	})
	b := reader{budget: budget{maxRunText}, tests: maxTests, read: maxRead, limits: onRunPage}
	for _, s := range specs[:min(len(specs), maxSpecs)] {
		v, lines, err := u.loadSpec(ctx, tx, r, s, named, &b)
		if err != nil {
			return p, err
		}
		p.List = append(p.List, v)
		p.Failures = append(p.Failures, lines...)
	}
	p.Failures = p.Failures[:min(len(p.Failures), maxFailures)]
	p.MoreFailures = max(0, p.Counts.Failures-len(p.Failures))
	p.FailedText = p.failedText(u.public + "/run/" + r.ID)
	return p, nil
}

// failedText is what failed as lines of plain text (and of Markdown).
func (p *runPage) failedText(url string) string {
	if len(p.Failures) == 0 {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s failed in %s", count(p.Counts.Failures, "test"), p.Build)
	if p.Branch != "" {
		fmt.Fprintf(&b, " (%s)", p.Branch)
	}
	fmt.Fprintf(&b, "\n%s\n", url)
	for _, f := range p.Failures {
		fmt.Fprintf(&b, "\n- %s: %s", f.Spec, strings.Join(append(slices.Clone(f.Path), f.Title), " › "))
		if f.Error != "" {
			fmt.Fprintf(&b, "\n  %s", f.Error)
		}
	}
	if p.MoreFailures > 0 {
		fmt.Fprintf(&b, "\n\nand %s more.", number(p.MoreFailures))
	}
	return b.String()
}

// maxReason is how much of a reason to cancel is kept.
const maxReason = 500

func (u *ui) cancelRun(r *request) error {
	reason := strings.TrimSpace(r.PostFormValue("reason"))
	if len([]rune(reason)) > maxReason {
		return run.Errorf(run.Invalid, "A reason has at most %d characters.", maxReason)
	}
	id := r.PathValue("runId")
	if _, err := u.runs.Cancel(r.Context(), id, r.who.Name, reason); err != nil {
		return err
	}
	return r.to(u.runURL(id))
}

// describe fills in where the run came from.
func (p *runPage) describe(r run.Run) {
	if c := r.Cancellation; c != nil {
		p.Canceled = &cancellation{Actor: run.Clip(run.Plain(c.Actor), 200), Reason: run.Clip(run.Plain(c.Reason), 1000), At: c.At}
	}
	remote, known := parseRemote(r.Commit.RemoteOrigin)
	if known {
		p.Repository = remote.String()
	}
	subject, body, _ := strings.Cut(strings.TrimSpace(run.Plain(r.Commit.Message)), "\n")
	c := commitView{Short: run.Clip(r.Commit.SHA, 40), Subject: run.Clip(subject, 300), Body: run.Clip(strings.TrimSpace(body), 4000), Author: run.Clip(r.Commit.AuthorName, 200)}
	if commitSHA.MatchString(r.Commit.SHA) {
		c.Short = r.Commit.SHA[:7]
	}
	if known {
		c.URL = remote.commitURL(r.Commit.SHA)
	}
	if c != (commitView{}) {
		p.Commit = &c
	}
	p.Branch = run.Clip(r.Commit.Branch, 300)
	p.Tags = r.Tags
	p.CI, p.CIURL = providerName(r.CI.Provider), r.CI.URL()
	if r.Client.Name != "" {
		p.Client = run.Clip(strings.TrimSpace(r.Client.Name+" "+r.Client.Version), 100)
	}
	if f := r.Client.Framework; f.Version != "" && r.Client.Name != f.Name {
		p.Client = strings.TrimPrefix(p.Client+", "+frameworkName(f.Name)+" "+run.Clip(f.Version, 40), ", ")
	}
}

func (p *runPage) addGroups(r run.Run, groups []run.Group, now time.Time) {
	p.MoreGroups = max(0, len(groups)-maxGroups)
	for _, g := range groups {
		if g.State == run.TimedOut && len(p.Silences) < maxGroups {
			s := silence{For: g.InactivityTimeout, Heard: g.HeardAt, Lost: g.Claimed - g.Completed, NotBegun: g.Specs - g.Claimed}
			if g.Explicit {
				s.Group = g.Name
			}
			p.Silences = append(p.Silences, s)
		}
	}
	for n, g := range groups[:min(len(groups), maxGroups)] {
		v := groupView{ID: fmt.Sprintf("group-%d", n+1), Name: g.Name, Verdict: verdictOf(g.State, g.Counts), Counts: g.Counts, Specs: g.Specs, Done: g.Completed,
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

// specRef is a spec with what its state depends on.
type specRef struct {
	*run.Instance
	group      *run.Group
	groupIndex int
	machine    int // its number; 0 if no machine has the spec
	among      int // of so many
	state      specState
}

// specState is a state of a spec; rank is its place in lists.
type specState struct {
	Word string
	Tone tone
	rank int
}

func stateOfSpec(i *run.Instance, group run.State) specState {
	switch {
	case !i.CompletedAt.IsZero() && (!i.Counts.Green() || i.Exception != ""):
		return specState{"failed", toneFail, 0}
	case !i.CompletedAt.IsZero() && i.Counts.Flaky > 0:
		return specState{"flaky", toneFlaky, 3}
	case !i.CompletedAt.IsZero() && i.Counts.Passes == 0:
		return specState{"pending", toneIdle, 5}
	case !i.CompletedAt.IsZero():
		return specState{"passed", tonePass, 4}
	case i.MachineID != "" && group == run.Running:
		return specState{"running", toneRun, 2}
	case i.MachineID != "":
		return specState{"no results", toneWarn, 1}
	case group == run.Running:
		return specState{"waiting", toneIdle, 6}
	default:
		return specState{"not run", toneIdle, 6}
	}
}

// sortSpecs puts those first that people come for.
func sortSpecs(groups []run.Group, machines map[string]int, instances []run.Instance) []specRef {
	index := make(map[string]int, len(groups))
	for i, g := range groups {
		index[g.Name] = i
	}
	specs := make([]specRef, len(instances))
	for n := range instances {
		i := &instances[n]
		at := index[i.GroupName]
		specs[n] = specRef{Instance: i, group: &groups[at], groupIndex: at, machine: machines[i.MachineID], among: len(machines), state: stateOfSpec(i, groups[at].State)}
	}
	slices.SortFunc(specs, func(a, b specRef) int {
		return cmp.Or(a.state.rank-b.state.rank, a.groupIndex-b.groupIndex, a.Position-b.Position)
	})
	return specs
}
