package recorder

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// machine is this process's share of a run.
type machine struct {
	o       Options
	say     *progress
	keep    *transcript
	start   func() (*bridge, project, error)
	project project
	specs   []string

	server   *server
	request  joinRequest
	joined   joined
	recorded bool // the server hands out specs; else they run unrecorded
	journal  *journal
	sender   *sender

	ran      map[string]bool // specs
	known    map[string]bool // instances that were handed out to us
	outcomes []outcome
	total    tally
	failures int  // as Cypress counts them for its exit code
	broken   bool // Cypress does not even start
	clock    clock

	mu        sync.Mutex
	bridge    *bridge
	cancelled string // why the server wants no more
}

// record runs specs until none are left, and returns the exit code.
func (m *machine) record(ctx context.Context) (int, error) {
	// Sending outlives an interruption, for as long as there is time.
	sending, stopSending := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stopSending(nil)
	m.sender = newSender(m.server, m.journal, m.o.Key, len(m.specs)+1, m.say.warn, m.cancel)
	m.sender.start(sending)

	var background sync.WaitGroup
	alive, stopBeating := context.WithCancel(context.WithoutCancel(ctx))
	if m.recorded {
		background.Go(func() { m.beat(alive) })
	}
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(interrupted)
		deadline := time.AfterFunc(interruptTime, func() { stopSending(context.Cause(ctx)) })
		defer deadline.Stop()
		var both sync.WaitGroup
		both.Go(func() { m.node().interrupt(cypressTime) })
		if m.recorded && !m.o.LeaveOnInterrupt {
			both.Go(func() { m.cancelRun(ctx) })
		}
		both.Wait()
		stopSending(context.Cause(ctx)) // what is not sent by now is kept
	})
	m.clock = clock{order: m.joined.HandOutOrder}

	err := m.loop(ctx)
	if !stop() {
		<-interrupted
	}
	m.server.patient(m.lastPatience(), func() { m.sender.close(sending) })
	stopBeating()
	background.Wait()
	return m.finish(ctx, err)
}

// lastPatience is how long the end waits for a server that is away: not at all
// if it has been for long.
func (m *machine) lastPatience() time.Duration {
	if !m.recorded {
		return min(m.o.ServerWait, time.Second)
	}
	return m.o.ServerWait
}

// loop runs what it is given, until there is nothing more.
func (m *machine) loop(ctx context.Context) error {
	for ctx.Err() == nil && m.whyCancelled() == "" {
		specs, ids, err := m.next(ctx)
		if err != nil || len(specs) == 0 {
			return err
		}
		result, took, err := m.run(ctx, specs)
		if err != nil {
			return err
		}
		m.report(specs, ids, result, took)
		if m.broken && m.request.Parallel {
			return errors.New("the other specs are left to other machines: Cypress does not start on this one")
		}
	}
	return nil
}

// next is the specs to run now, with the instances that the server has for
// them; none at the end.
func (m *machine) next(ctx context.Context) (specs, ids []string, err error) {
	for m.recorded {
		c, err := m.server.claim(ctx, m.joined, m.o.Batch)
		if err != nil {
			if err := m.withoutServer(ctx, err); err != nil || m.whyCancelled() != "" {
				return nil, nil, err
			}
			break
		}
		if len(c.Specs) == 0 {
			return nil, nil, nil
		}
		// A claim that was tried again may be answered with what we had before.
		c.Specs = slices.DeleteFunc(c.Specs, func(s claimedSpec) bool { return m.known[s.InstanceID] })
		if len(c.Specs) == 0 {
			continue
		}
		for _, s := range c.Specs {
			m.known[s.InstanceID] = true
			specs, ids = append(specs, s.Spec), append(ids, s.InstanceID)
		}
		m.announce(specs, c)
		return specs, ids, nil
	}
	for _, spec := range m.specs {
		if !m.ran[spec] && len(specs) < m.o.Batch {
			specs, ids = append(specs, spec), append(ids, "")
		}
	}
	if len(specs) > 0 {
		m.say.say("%s, not recorded.%s", position(len(m.ran), len(specs), len(m.specs), specs), m.soFar())
	}
	return specs, ids, nil
}

// withoutServer decides what becomes of a claim that failed: nil goes on
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
	case r.Code != "RUN_TIMED_OUT": // which is not for the specs to suffer for
		return r
	}
	if m.o.RequireServer {
		return err
	}
	m.away(err)
	return nil
}

// away says why no server hands out specs any more.
func (m *machine) away(why error) {
	m.recorded = false
	m.say.loud(
		why.Error(),
		"The specs run all the same, and are NOT RECORDED for now:",
		"this machine runs every one that it has not run yet. Results are kept in a",
		"file and sent at the end, or later with 'runbell cypress upload'.")
}

// announce says what runs now, where we are, and how long it may take.
func (m *machine) announce(specs []string, c claimed) {
	if m.clock.mine == 0 {
		m.clock.before = c.Claimed - len(specs)
	}
	m.clock.mine += len(specs)
	text := position(c.Claimed-len(specs), len(specs), c.Total, specs)
	current := m.clock.expected(specs)
	if current > 0 {
		text += fmt.Sprintf(" (about %s)", short(current))
	}
	text += "." + m.soFar()
	if left, ok := m.clock.left(c.Claimed, c.Total, current); ok {
		text += fmt.Sprintf(" About %s left.", short(left))
	}
	m.say.say("%s", text)
}

func (m *machine) soFar() string {
	if len(m.outcomes) == 0 {
		return ""
	}
	return fmt.Sprintf(" So far: %s.", m.total)
}

// position is "Spec 3 of 12: a.cy.js", or "Specs 3-5 of 12: …".
func position(before, n, total int, specs []string) string {
	if n == 1 {
		return fmt.Sprintf("Spec %d of %d: %s", before+1, total, specs[0])
	}
	return fmt.Sprintf("Specs %d-%d of %d: %s", before+1, before+n, total, strings.Join(specs, ", "))
}

// run has Cypress run specs. A Node that died is started again for the next.
func (m *machine) run(ctx context.Context, specs []string) (moduleResult, time.Duration, error) {
	if m.broken && !m.request.Parallel {
		return moduleResult{Status: "failed", NotStarted: true, Failures: 1, Message: "Cypress does not start on this machine."}, 0, nil
	}
	started := time.Now()
	result, err := m.node().run(specs, len(m.ran) > 0)
	if ctx.Err() != nil {
		return result, 0, context.Cause(ctx)
	}
	if err != nil {
		result = moduleResult{Status: "failed", Failures: 1, Message: err.Error()}
		b, _, err := m.start()
		if err != nil {
			return result, 0, err
		}
		m.mu.Lock()
		m.bridge = b
		m.mu.Unlock()
	}
	return result, time.Since(started), nil
}

// node is the bridge that runs now.
func (m *machine) node() *bridge {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.bridge
}

// report writes the results of specs into the journal, and has them sent.
func (m *machine) report(specs, ids []string, result moduleResult, took time.Duration) {
	outputs := splitOutput(m.withoutKey(m.keep.take()), len(specs))
	if result.Status == "failed" {
		m.failures += max(1, result.Failures)
		m.broken = result.NotStarted
		m.say.warn("Cypress could not run %s: %s", strings.Join(specs, ", "), result.Message)
	} else {
		m.failures += result.TotalFailed
		m.broken = false
	}
	var own time.Duration
	for i, spec := range specs {
		m.ran[spec] = true
		r, ok := result.of(spec)
		var rep report
		var t tally
		if ok {
			rep, t = newReport(r)
		} else {
			message := result.Message
			if message == "" {
				message = "Cypress gave no results for this spec."
				m.failures++
			}
			rep, t = failedReport(message)
		}
		m.total = m.total.plus(t)
		spent := took / time.Duration(len(specs))
		if ms := rep.Results.Stats.WallClockDuration; ms > 0 {
			spent = time.Duration(ms * float64(time.Millisecond))
			own += spent
		}
		m.outcomes = append(m.outcomes, outcome{spec: spec, took: spent, tally: t, problem: !ok || r.Error != nil})
		if err := m.queue(spec, ids[i], outputs[i], rep); err != nil {
			m.say.warn("%s: %v", spec, err)
		}
	}
	m.clock.ranFor(len(specs), took, own)
}

func (m *machine) queue(spec, id, output string, r report) error {
	var body bytes.Buffer
	e := json.NewEncoder(&body)
	e.SetEscapeHTML(false)
	if err := e.Encode(r); err != nil {
		return err
	}
	number, err := m.journal.append(line{Entry: &entry{Spec: spec, InstanceID: id, Report: body.Bytes(), Output: output, Video: r.Video, Screenshots: r.Screenshots}})
	if number >= 0 {
		m.sender.queue <- number
	}
	return err
}

// withoutKey hides the record key, should anything have printed it.
func (m *machine) withoutKey(text string) string {
	if m.o.Key == "" {
		return text
	}
	return strings.ReplaceAll(text, m.o.Key, "(record key)")
}

// beat says that this machine is alive, often enough that a lost message does
// no harm, until its work is done.
func (m *machine) beat(ctx context.Context) {
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
		// What goes wrong here, goes wrong elsewhere too, and is told there.
		if cancelled, reason, err := m.server.heartbeat(ctx, m.joined); err == nil && cancelled {
			m.cancel(reason)
			return
		}
	}
}

// cancel notes that the server wants no more; the spec that runs may end.
func (m *machine) cancel(reason string) {
	if reason == "" {
		reason = "it was cancelled"
	}
	m.mu.Lock()
	first := m.cancelled == ""
	if first {
		m.cancelled = reason
	}
	m.mu.Unlock()
	if first {
		m.say.warn("Run cancelled: %s. No more specs are started.", strings.TrimSuffix(reason, "."))
	}
}

func (m *machine) whyCancelled() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.cancelled
}

// cancelRun ends the run for all machines, because ours was told to end.
func (m *machine) cancelRun(ctx context.Context) {
	why := context.Cause(ctx)
	ctx, done := context.WithTimeout(context.WithoutCancel(ctx), interruptTime-500*time.Millisecond)
	defer done()
	if err := m.server.cancel(ctx, m.request.ProjectID, m.o.Key, m.joined.RunID, m.request.CIBuildID, fmt.Sprintf("%s: %v", hostname(), why)); err != nil {
		m.say.warn("The run could not be cancelled: %v", err)
		return
	}
	m.say.say("The run is cancelled.")
}

// finish sums up, and decides the exit code.
func (m *machine) finish(ctx context.Context, stopped error) (int, error) {
	m.say.summary(m.outcomes)
	lost := m.journal.lost()
	if lost > 0 {
		m.say.loud(fmt.Sprintf("The results of %d of %d specs could not be sent, nor kept: they are lost.", lost, len(m.outcomes)))
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
	m.journal.mu.Lock()
	url := m.journal.joined.RunURL
	m.journal.mu.Unlock()
	if url != "" {
		m.say.say("The run: %s", url)
	}
	switch {
	case ctx.Err() != nil:
		return 0, context.Cause(ctx)
	case stopped != nil:
		return max(1, m.exitCode()), stopped
	case m.whyCancelled() != "":
		return max(1, m.exitCode()), nil // specs are missing: it must not look green
	}
	return m.exitCode(), nil
}

// exitCode is that of 'cypress run': how many tests failed. More than a byte
// holds would wrap round, and could look like none.
func (m *machine) exitCode() int {
	if m.project.PosixExitCodes {
		return min(m.failures, 1)
	}
	return min(m.failures, 255)
}
