package recorder

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// start is one start of Cypress, for some of the specs.
type start struct {
	specs []claimedSpec // the specs to run; none until the machine has joined
	found []string      // the specs that Cypress will run; nil before it has named them

	conn    net.Conn // from inside Cypress; nil until it has read its configuration
	at      time.Time
	begun   int
	current string // the spec that runs
	began   time.Time
	results map[string]runResult // of specs that have ended
	output  string               // printed but not reported yet
	own     time.Duration        // what the specs took by themselves
	counted int                  // failures in reported results
}

// run starts Cypress once, and reports each spec as soon as it has ended.
func (m *machine) run(ctx context.Context, s *start) error {
	if m.broken {
		m.fail(s, "Cypress does not start on this machine.", 1)
		return nil
	}
	type end struct {
		result moduleResult
		err    error
	}
	ended := make(chan end, 1)
	node := m.node()
	s.at = time.Now()
	go func() {
		result, err := node.run(m.watcher.file, m.starts > 0)
		ended <- end{result, err}
	}()
	for {
		select {
		case event := <-m.watcher.events:
			if event.Event != "config" && event.conn != s.conn {
				continue // of a Cypress that has crashed
			}
			if err := m.heard(ctx, s, event); err != nil {
				node.interrupt(cypressTime)
				<-ended
				if errors.Is(err, errStartAgain) {
					_, err = m.open(ctx)
				}
				return err
			}
		case e := <-ended:
			m.starts++
			if ctx.Err() != nil {
				m.reportCurrent(s, "")
				return context.Cause(ctx)
			}
			if e.err != nil { // Node died
				e.result = moduleResult{Status: "failed", Message: e.err.Error()}
				if _, err := m.open(ctx); err != nil {
					return err
				}
			}
			return m.ended(s, e.result)
		}
	}
}

// heard handles an event of Cypress. Cypress continues once it has the answer.
func (m *machine) heard(ctx context.Context, s *start, e watched) error {
	switch e.Event {
	case "config":
		return m.configured(ctx, s, e)
	case "run":
		return m.found(ctx, s, e)
	case "begin":
		m.reportCurrent(s, e.Spec)
		if m.whyCancelled() != "" {
			return errNothingLeft
		}
		s.current, s.began = e.Spec, time.Now()
		s.begun++
		m.announce(s)
		e.answer(nil)
	case "end":
		var r runResult
		if json.Unmarshal(e.Result, &r) == nil { // otherwise its final result has to do
			r.place(e.Began)
			s.results[e.Spec] = r
		}
		e.answer(nil)
	}
	return nil
}

// configured decides which specs Cypress runs, once it has read the configuration.
func (m *machine) configured(ctx context.Context, s *start, e watched) error {
	s.conn = e.conn
	if m.specs == nil {
		m.config = e
		alone := !m.o.Parallel && m.o.Batch == 0 && len(m.only) == 0
		if alone || m.project.Spec != "" || !understood(e.Find, e.Exclude, e.Ignored) {
			e.answer(nil) // Cypress finds them
			return nil
		}
		specs, err := findSpecs(m.project.Root, e.patterns, m.o.Dir, m.only)
		if err != nil {
			return err
		}
		if err := m.join(ctx, specs); err != nil {
			return err
		}
		if err := m.claim(ctx, s); err != nil {
			return err
		}
	}
	names := make([]string, len(s.specs))
	for i, spec := range s.specs {
		names[i] = spec.Spec
	}
	e.answer(names)
	return nil
}

// errStartAgain ends a Cypress that was about to run more than its share.
var errStartAgain = errors.New("start again, with other specs")

// found handles the list of specs that Cypress is about to run.
func (m *machine) found(ctx context.Context, s *start, e watched) error {
	s.found = e.Specs
	if m.specs == nil {
		specs := e.Specs
		if m.project.Spec == "" {
			var err error
			if specs, err = narrow(m.project.Root, specs, m.o.Dir, m.only); err != nil {
				return err
			}
		}
		if len(specs) == 0 {
			return fmt.Errorf("no specs were found: --spec is %s, and specPattern finds %s", quoted(m.only), quoted(e.Specs))
		}
		if err := m.join(ctx, specs); err != nil {
			return err
		}
		if err := m.claim(ctx, s); err != nil {
			return err
		}
		if len(s.specs) < len(e.Specs) {
			m.waiting = s.specs
			return errStartAgain
		}
	}
	e.answer(nil)
	return nil
}

// announce prints the spec that runs now, the progress, and the estimated time left.
func (m *machine) announce(s *start) {
	if !m.recorded {
		m.say.say("Spec %d of %d: %s, not recorded.%s", len(m.ran)+1, len(m.specs), s.current, m.soFar())
		return
	}
	text := fmt.Sprintf("Spec %d of %d: %s", m.claimed-len(s.specs)+s.begun, len(m.specs), s.current)
	if d := m.clock.expected([]string{s.current}); d > 0 {
		text += fmt.Sprintf(" (about %s)", short(d))
	}
	text += "." + m.soFar()
	var rest []string
	for _, spec := range s.specs {
		if !m.ran[spec.Spec] {
			rest = append(rest, spec.Spec)
		}
	}
	if left, ok := m.clock.left(m.claimed, len(m.specs), m.clock.expected(rest)); ok {
		text += fmt.Sprintf(" About %s left.", short(left))
	}
	m.say.say("%s", text)
}

// reportCurrent reports the spec that ran, if Cypress has sent its result. Everything
// printed until next began is its output.
func (m *machine) reportCurrent(s *start, next string) {
	s.output += m.keep.take()
	r, ok := s.results[s.current]
	if !ok {
		return
	}
	output := s.output
	if at := beginning(output, s.begun+1); next != "" && at >= 0 {
		output = output[:at]
	}
	s.output = s.output[len(output):]
	m.reportResult(s, s.current, r, output)
}

// reportResult reports Cypress' result of a spec.
func (m *machine) reportResult(s *start, name string, r runResult, output string) {
	if r.Video != nil {
		if _, err := os.Stat(*r.Video); errors.Is(err, fs.ErrNotExist) {
			r.Video = nil // the project removes videos that it does not want
		}
	}
	rep, t := newReport(r)
	if keep := m.config.VideoUploadOnPasses; keep != nil {
		rep.Tests.Config["videoUploadOnPasses"] = *keep
	}
	took := time.Duration(rep.Results.Stats.WallClockDuration * float64(time.Millisecond))
	s.own += took
	s.counted += r.Stats.Failures
	m.failures += r.Stats.Failures
	m.report(s.spec(name), output, took, r.Error != nil, rep, t)
}

// spec is one of the specs of the start. Cypress may run one that this machine has not
// claimed: then the sender claims it before it sends the results.
func (s *start) spec(name string) claimedSpec {
	for _, spec := range s.specs {
		if slashed(spec.Spec) == slashed(name) {
			return spec
		}
	}
	return claimedSpec{Spec: name}
}

// ended reports the remaining specs of a start, once Cypress has ended.
func (m *machine) ended(s *start, result moduleResult) error {
	m.reportCurrent(s, "")
	if result.Status == "failed" {
		return m.crashed(s, result)
	}
	m.failures += max(0, result.TotalFailed-s.counted)
	for _, spec := range s.specs {
		if m.ran[spec.Spec] {
			continue
		}
		r, ok := result.of(spec.Spec)
		output := s.output
		s.output = ""
		switch {
		case ok:
			r.place(0)
			rep, t := newReport(r)
			m.report(spec, output, 0, r.Error != nil, rep, t)
		case !slices.ContainsFunc(s.found, func(f string) bool { return slashed(f) == slashed(spec.Spec) }):
			m.say.warn("Cypress finds nothing to run in %s.", spec.Spec)
			rep, t := newReport(runResult{})
			m.report(spec, output, 0, false, rep, t)
		default:
			m.failures++
			rep, t := failedReport("Cypress gave no results for this spec.")
			m.report(spec, output, 0, true, rep, t)
		}
	}
	m.clock.ranFor(s.begun, time.Since(s.at), s.own)
	return nil
}

// crashed handles a crash of Cypress. The spec that was running fails; the specs after it
// wait for another start.
func (m *machine) crashed(s *start, result moduleResult) error {
	message := result.Message
	switch {
	case m.specs == nil:
		m.failures += max(1, result.Failures)
		return errors.New(m.notStarted(message))
	case noSpecs.MatchString(message+s.output) && s.begun == 0:
		// Plugins have removed all of the claimed specs.
		return m.ended(s, moduleResult{})
	case s.begun == 0:
		m.broken = true
		m.fail(s, message, max(1, result.Failures))
		if m.request.Parallel {
			return errors.New("the other specs are left to other machines: Cypress does not start on this one")
		}
		return nil
	}
	m.failures += max(1, result.Failures)
	if current := s.spec(s.current); !m.ran[current.Spec] {
		m.say.warn("Cypress could not run %s: %s", current.Spec, message)
		rep, t := failedReport(message)
		m.report(current, s.output, time.Since(s.began), true, rep, t)
	} else {
		m.say.warn("Cypress ended early: %s", message)
	}
	for _, spec := range s.specs {
		if !m.ran[spec.Spec] {
			m.waiting = append(m.waiting, spec)
		}
	}
	return nil
}

// Messages of Cypress when it cannot load a configuration, depending on the version of
// Node: for top-level await, and for syntax of ES modules.
var (
	topLevelAwait = regexp.MustCompile(`^[^\s/*].*\bawait\b`)
	insideAwait   = regexp.MustCompile(`\basync\b.*\bawait\b`)
	importMeta    = regexp.MustCompile(`^[^/]*\bimport\.meta\b`)
)

// notStarted explains why Cypress did not start, and what to do.
func (m *machine) notStarted(message string) string {
	name := filepath.Base(m.project.ConfigFile)
	text := fmt.Sprintf("Cypress did not start: %s\nWhat it printed above says why. %s is Runbell's own file: it "+
		"loads %s.\n'npx cypress run' should fail in the same way: fix the configuration until it starts.",
		message, m.watcher.file, m.project.ConfigFile)
	source, err := os.ReadFile(m.project.ConfigFile)
	if err != nil {
		return text
	}
	for i, line := range strings.Split(string(source), "\n") {
		if topLevelAwait.MatchString(line) && !insideAwait.MatchString(line) {
			text += fmt.Sprintf("\nLine %d of %s waits at the top level, which Cypress cannot load with every Node: wait in "+
				"setupNodeEvents instead, which may be async.", i+1, name)
		}
		if importMeta.MatchString(line) && !strings.HasSuffix(name, ".mjs") {
			text += fmt.Sprintf("\nLine %d of %s uses import.meta, which only ES modules have: rename it to "+
				"cypress.config.mjs, or use __dirname.", i+1, name)
		}
	}
	return text
}

// fail reports all specs of a start as failed. None of them has begun.
func (m *machine) fail(s *start, message string, failures int) {
	m.failures += failures
	for i, spec := range s.specs {
		if i == 0 {
			m.say.warn("Cypress could not run %s: %s", plural(len(s.specs), "spec"), message)
		}
		rep, t := failedReport(message)
		m.report(spec, s.output, 0, true, rep, t)
	}
}

// noSpecs is how Cypress says that it found nothing to run: in its results, or only in what
// it prints.
var noSpecs = regexp.MustCompile(`no spec files were found`)

// beginning is the position at which the output of the n-th spec begins; -1 if there is none.
func beginning(output string, n int) int {
	for _, at := range running.FindAllStringSubmatchIndex(output, -1) {
		if output[at[2]:at[3]] == strconv.Itoa(n) {
			return at[0]
		}
	}
	return -1
}
