package recorder

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

// machine is this process's share of a run.
type machine struct {
	o       Options
	say     *progress
	keep    *transcript
	project project
	watcher *watcher
	only    []string // the patterns of --spec
	config  watched  // the configuration, once Cypress has read it
	below   string   // see belowRoot

	server   *server
	sender   *sender
	specs    []string // of the run, once they are known
	request  joinRequest
	joined   joined
	isJoined chan struct{} // closed by then
	recorded bool          // the server hands out specs; otherwise they run unrecorded
	journal  *journal      // nil before the join

	ran      map[string]bool // specs
	known    map[string]bool // instances that this machine has claimed
	plan     [][]string      // of all machines, by start of Cypress; nil if there is none
	waiting  []claimedSpec   // claimed specs of a start that crashed before it ran them
	claimed  int             // specs of the run that all machines have claimed
	starts   int             // of Cypress
	outcomes []outcome
	failed   []string // tests, by spec and title
	total    tally
	failures int  // as Cypress counts them for its exit code
	broken   bool // Cypress does not even start
	clock    clock

	mu        sync.Mutex
	bridge    *bridge
	cancelled string // why the server asked to stop
}

func newMachine(o Options) *machine {
	m := &machine{say: &progress{to: o.Err, color: o.Color}, keep: &transcript{}, isJoined: make(chan struct{}),
		ran: map[string]bool{}, known: map[string]bool{}}
	m.server = newServer(o.Server, o.Version, o.ServerWait, m.say.warn)
	m.sender = newSender(m.server, nil, o.Key, m.say.warn, m.cancel)
	o.Server = withoutCredentials(o.Server) // from here on it is only printed
	m.o = o
	m.only = splitGlobs(o.Specs, o.Dir)
	return m
}

// record runs specs until none are left, and returns the exit code.
func (m *machine) record(ctx context.Context) (int, error) {
	// Sending continues after an interruption, as long as there is time.
	sending, stopSending := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stopSending(nil)
	m.sender.start(sending)

	var background sync.WaitGroup
	alive, stopBeating := context.WithCancel(context.WithoutCancel(ctx))
	background.Go(func() { m.beat(alive) })
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(interrupted)
		deadline := time.AfterFunc(interruptTime, func() { stopSending(context.Cause(ctx)) })
		defer deadline.Stop()
		var both sync.WaitGroup
		both.Go(func() { m.node().interrupt(cypressTime) })
		if m.hasJoined() && !m.o.LeaveOnInterrupt {
			both.Go(func() { m.cancelRun(ctx) })
		}
		both.Wait()
		stopSending(context.Cause(ctx)) // the journal keeps unsent results
	})

	err := m.loop(ctx)
	if !stop() {
		<-interrupted
	}
	m.server.patient(m.lastPatience(), func() { m.sender.close(sending) })
	stopBeating()
	background.Wait()
	return m.finish(ctx, err)
}

func (m *machine) hasJoined() bool {
	select {
	case <-m.isJoined:
		return true
	default:
		return false
	}
}

// lastPatience is how long the end waits for an unreachable server: not at all if the
// outage is already long.
func (m *machine) lastPatience() time.Duration {
	if !m.recorded {
		return min(m.o.ServerWait, time.Second)
	}
	return m.o.ServerWait
}

// errNothingLeft means that no spec is left for this machine.
var errNothingLeft = errors.New("nothing is left to run")

// loop starts Cypress until nothing is left to run.
func (m *machine) loop(ctx context.Context) error {
	for ctx.Err() == nil && m.whyCancelled() == "" {
		s := &start{results: map[string]runResult{}}
		var err error
		if m.specs != nil {
			err = m.claim(ctx, s)
		}
		if err == nil {
			err = m.run(ctx, s)
		}
		if errors.Is(err, errNothingLeft) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// claim claims the specs of a start. It returns errNothingLeft if there are none.
func (m *machine) claim(ctx context.Context, s *start) error {
	if len(m.waiting) > 0 {
		s.specs, m.waiting = m.waiting, nil
		return nil
	}
	err := m.claimPlanned(ctx, s)
	want := m.batchSize()
	if len(s.specs) > 0 {
		want = 0
	}
	for err == nil && m.recorded && len(s.specs) < want {
		var c claimed
		if c, err = m.server.claim(ctx, m.joined, min(want-len(s.specs), maxClaim)); err != nil || len(c.Specs) == 0 {
			break
		}
		m.claimed = c.Claimed
		m.got(s, c.Specs...)
	}
	if err != nil {
		if err := m.withoutServer(ctx, err); err != nil {
			return err
		}
		if m.whyCancelled() != "" {
			return errNothingLeft
		}
	}
	if m.recorded {
		m.clock.claimed(len(s.specs), m.claimed)
	} else {
		mine := map[string]bool{}
		for _, spec := range s.specs {
			mine[spec.Spec] = true
		}
		for _, spec := range m.specs {
			if !m.ran[spec] && !mine[spec] && len(s.specs) < want {
				s.specs = append(s.specs, claimedSpec{Spec: spec})
			}
		}
	}
	if len(s.specs) == 0 {
		return errNothingLeft
	}
	return nil
}

// claimPlanned claims the specs of the first start of the plan that no other
// machine has taken, by name.
func (m *machine) claimPlanned(ctx context.Context, s *start) error {
	for len(m.plan) > 0 && len(s.specs) == 0 && m.recorded {
		planned := m.plan[0]
		m.plan = m.plan[1:]
		for i, spec := range planned {
			c, err := m.server.claimSpec(ctx, m.joined, spec, false)
			if err != nil {
				return err
			}
			m.claimed = c.Claimed
			if c.InstanceID != "" {
				m.got(s, c.claimedSpec)
			} else if i == 0 {
				break // another machine has begun to claim them
			}
		}
	}
	return nil
}

// got adds specs to a start. The response to a repeated claim may contain specs that this
// machine already had.
func (m *machine) got(s *start, specs ...claimedSpec) {
	for _, spec := range specs {
		if !m.known[spec.InstanceID] {
			m.known[spec.InstanceID] = true
			s.specs = append(s.specs, spec)
		}
	}
}

// maxClaim is how many specs a server hands out at once.
const maxClaim = 100

// withoutServer decides what to do after a failed claim. With nil, the machine continues
// without the server.
func (m *machine) withoutServer(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	r, ok := refused(err)
	switch {
	case !ok:
		err = fmt.Errorf("%s cannot be reached: %w", m.o.Server, err)
	case r.Code == "RUN_CANCELLED":
		m.cancel(strings.Join(r.Details, " "))
		return nil
	case r.Code != "RUN_TIMED_OUT": // after a timeout, the specs still run
		return r
	}
	if m.o.RequireServer {
		return err
	}
	m.away(err)
	return nil
}

// away notes and prints why the server no longer hands out specs.
func (m *machine) away(why error) {
	m.recorded = false
	m.say.loud(
		why.Error(),
		"The specs still run, but are NOT RECORDED for now:",
		"this machine runs every one that it has not run yet. Results are kept in a",
		"file and sent at the end, or later with 'runbell cypress upload'.")
}

func (m *machine) soFar() string {
	if len(m.outcomes) == 0 {
		return ""
	}
	return fmt.Sprintf(" So far: %s.", m.total)
}

// node is the bridge that runs now.
func (m *machine) node() *bridge {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.bridge
}

// report writes the results of a spec into the journal and queues them for the server.
func (m *machine) report(spec claimedSpec, output string, took time.Duration, problem bool, r report, t tally) {
	r.locate(m.below)
	m.ran[spec.Spec] = true
	m.total = m.total.plus(t)
	m.failed = append(m.failed, r.failed(spec.Spec)...)
	m.outcomes = append(m.outcomes, outcome{spec: spec.Spec, took: took, tally: t, problem: problem})
	if err := m.queue(spec.Spec, spec.InstanceID, m.withoutKey(output), r); err != nil {
		m.say.warn("%s: %v", spec.Spec, err)
	}
}

func (m *machine) queue(spec, id, output string, r report) error {
	var body bytes.Buffer
	e := json.NewEncoder(&body)
	e.SetEscapeHTML(false)
	if err := e.Encode(r); err != nil {
		return err
	}
	number, err := m.journal.append(line{Entry: &entry{Spec: spec, InstanceID: id, Report: body.Bytes(), Output: output,
		Video: r.Video, Screenshots: r.Screenshots}})
	if number >= 0 {
		m.sender.queue <- number
	}
	return err
}

// withoutKey hides the record key in a text.
func (m *machine) withoutKey(text string) string {
	if m.o.Key == "" {
		return text
	}
	return strings.ReplaceAll(text, m.o.Key, "(record key)")
}

// beat tells the server that this machine is alive until its work is done. It does so
// often enough that a lost message does no harm.
func (m *machine) beat(ctx context.Context) {
	select {
	case <-m.isJoined:
	case <-ctx.Done():
		return
	}
	every := 30 * time.Second
	if timeout := time.Duration(m.joined.InactivityTimeoutMS) * time.Millisecond; timeout > 0 {
		every = min(every, timeout/4)
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		// Other requests report the same errors.
		if cancelled, reason, err := m.server.heartbeat(ctx, m.joined); err == nil && cancelled {
			m.cancel(reason)
			return
		}
	}
}

// cancel notes that the server asked to stop. The current spec may end.
func (m *machine) cancel(reason string) {
	if reason == "" {
		reason = "it was canceled"
	}
	m.mu.Lock()
	first := m.cancelled == ""
	if first {
		m.cancelled = reason
	}
	m.mu.Unlock()
	if first {
		m.say.warn("Run canceled: %s. No more specs are started.", strings.TrimSuffix(reason, "."))
	}
}

func (m *machine) whyCancelled() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.cancelled
}

// cancelRun cancels the run for all machines, because this one was interrupted.
func (m *machine) cancelRun(ctx context.Context) {
	why := context.Cause(ctx)
	ctx, done := context.WithTimeout(context.WithoutCancel(ctx), interruptTime-500*time.Millisecond)
	defer done()
	if err := m.server.cancel(ctx, m.request.ProjectID, m.o.Key, m.joined.RunID, m.request.CIBuildID,
		fmt.Sprintf("%s: %v", hostname(), why)); err != nil {
		m.say.warn("The run could not be canceled: %v", err)
		return
	}
	m.say.say("The run is canceled.")
}

// finish prints the summary and decides the exit code.
func (m *machine) finish(ctx context.Context, stopped error) (int, error) {
	if m.journal == nil { // it never joined a run
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		return m.exitCode(), stopped
	}
	m.say.summary(m.outcomes)
	lost := m.journal.lost()
	if lost > 0 {
		m.say.loud(fmt.Sprintf("The results of %d of %d specs could not be sent, nor kept: they are lost.", lost,
			len(m.outcomes)))
	}
	if unsent := len(m.journal.unsent()) - lost; unsent > 0 {
		m.say.loud(
			fmt.Sprintf("The results of %d of %d specs could not be sent. They are in", unsent, len(m.outcomes)),
			"    "+m.journal.path,
			"Send them with: runbell cypress upload "+m.journal.path)
	}
	if err := m.journal.close(); err != nil {
		m.say.warn("%v", err)
	}
	code := m.exitCode()
	switch {
	case ctx.Err() != nil:
		m.conclude("Interrupted.")
		return 0, context.Cause(ctx)
	case stopped != nil:
		m.conclude("")
		return max(1, code), stopped
	case m.whyCancelled() != "":
		code = max(1, code) // specs are missing: the job must not pass
		m.conclude(fmt.Sprintf("The run was canceled. Exit code %d.", code))
	default:
		m.conclude(m.verdict(code))
	}
	return code, nil
}

// conclude prints the last line: the result and the URL.
func (m *machine) conclude(how string) {
	m.say.failed(m.failed)
	m.journal.mu.Lock()
	url := m.journal.joined.RunURL
	m.journal.mu.Unlock()
	if url != "" {
		how = strings.TrimSpace(how + " Run: " + url)
	}
	if how != "" {
		m.say.say("%s", how)
	}
}

// verdict explains the exit code.
func (m *machine) verdict(code int) string {
	switch t := m.total; {
	case code == 0 && len(m.outcomes) == 0:
		return "Nothing was left to run on this machine."
	case code == 0 && t.tests() == 0:
		return "No tests ran."
	case code == 0:
		return fmt.Sprintf("No test failed: %s.", t)
	case t.failed == 0:
		return fmt.Sprintf("Cypress failed. Exit code %d, like Cypress.", code)
	case m.project.PosixExitCodes:
		return fmt.Sprintf("%s failed. Exit code %d, as with --posix-exit-codes.", plural(t.failed, "test"), code)
	default:
		return fmt.Sprintf("%s failed. Exit code %d, like Cypress.", plural(t.failed, "test"), code)
	}
}

// exitCode is the one of 'cypress run': how many tests failed. It is limited, because a
// number above 255 would wrap around, possibly to 0.
func (m *machine) exitCode() int {
	if m.project.PosixExitCodes {
		return min(m.failures, 1)
	}
	return min(m.failures, 255)
}
