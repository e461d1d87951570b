package recorder

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
)

// sender sends the entries of a journal to the server, one after another, while
// specs run.
type sender struct {
	server  *server
	journal *journal // set before anything is queued
	key     string
	warn    func(format string, args ...any)
	// stop is called with the reason when the server asks the machine to stop.
	stop func(reason string)

	queue  chan int
	idle   sync.WaitGroup
	closed atomic.Bool // close sends the rest of the queue

	mu      sync.Mutex
	refused map[int]bool // trying again would not help
	noRun   error        // why there is no run to send to
}

func newSender(s *server, j *journal, key string, warn func(string, ...any), stop func(string)) *sender {
	return &sender{server: s, journal: j, key: key, warn: warn, stop: stop, queue: make(chan int, maxQueue),
		refused: map[int]bool{}}
}

// maxQueue is how many specs may wait to be sent before the next one has to wait.
const maxQueue = 1024

// start delivers the queue, until close is called and the queue is empty.
func (s *sender) start(ctx context.Context) {
	s.idle.Go(func() {
		for n := range s.queue {
			if !s.closed.Load() {
				_ = s.deliver(ctx, n) // reported, or tried again at the end
			}
		}
	})
}

// close sends the rest of the queue, and tries entries again that failed while the server
// was unreachable. It stops as soon as the server is still unreachable.
func (s *sender) close(ctx context.Context) {
	s.closed.Store(true)
	close(s.queue)
	s.idle.Wait()
	if s.journal == nil {
		return // there was nothing to record
	}
	for _, n := range s.journal.unsent() {
		if !s.refused[n] && s.deliver(ctx, n) != nil && !s.refused[n] {
			return // it is still unreachable
		}
	}
}

// deliver sends one entry to the server. It prints errors for people, and remembers those
// that a retry would repeat.
func (s *sender) deliver(ctx context.Context, number int) error {
	e, err := s.journal.entry(number)
	if err == nil {
		err = s.send(ctx, e)
	}
	if err == nil {
		s.note(line{Sent: &number})
		return nil
	}
	if r, ok := refused(err); ok {
		s.mu.Lock()
		s.refused[number] = true
		s.mu.Unlock()
		if !errors.Is(err, s.noRun) { // already reported
			s.warn("The server refuses the results of %s: %v", e.Spec, r)
		}
	}
	return err
}

func (s *sender) send(ctx context.Context, e entry) error {
	if e.InstanceID == "" {
		j, err := s.join(ctx)
		if err != nil {
			return err
		}
		c, err := s.server.claimSpec(ctx, j, e.Spec, true)
		if err != nil {
			return err
		}
		e.InstanceID = c.InstanceID
		if e.InstanceID == "" {
			s.warn("Another machine also recorded %s: its results count.", e.Spec)
			return nil
		}
	}
	a, err := s.server.results(ctx, e.InstanceID, e.Report)
	if err != nil {
		return err
	}
	if reason, ok := a.Cloud.ShouldCancel.(string); ok {
		s.stop(reason)
	}
	if e.Output != "" {
		if err := s.server.output(ctx, e.InstanceID, e.Output); err != nil {
			if _, ok := refused(err); !ok {
				return err
			}
			s.warn("The server refuses the output of %s: %v", e.Spec, err)
		}
	}
	return s.sendFiles(ctx, e.InstanceID, artifactsOf(e, a))
}

// sendFiles uploads the files of a spec, and tells the server which it could not upload.
func (s *sender) sendFiles(ctx context.Context, instanceID string, list []artifact) error {
	if len(list) == 0 {
		return nil
	}
	errs := s.server.upload(ctx, list)
	for i, err := range errs {
		if err != nil {
			s.warn("%s was not uploaded: %v", list[i].file, err)
		}
	}
	return s.server.reportUploads(ctx, instanceID, list, errs)
}

// join is for results from a time when the server was unreachable. A run that is over
// accepts them, too. If the server refuses the join, it refuses all of them.
func (s *sender) join(ctx context.Context) (joined, error) {
	s.journal.mu.Lock()
	j := s.journal.joined
	s.journal.mu.Unlock()
	if j.RunID != "" || s.noRun != nil {
		return j, s.noRun
	}
	request := s.journal.header.Join
	request.Late = true
	j, err := s.server.join(ctx, request, s.key)
	if r, ok := refused(err); ok {
		s.noRun = err
		s.warn("The server refuses the run: %v", r)
	}
	if err != nil {
		return j, err
	}
	s.note(line{Joined: &j})
	return j, nil
}

// note adds a line to the journal. If that fails, the line is still kept in memory.
func (s *sender) note(l line) {
	if _, err := s.journal.append(l); err != nil {
		s.warn("%v", err)
	}
}

// Upload sends the results that an earlier run could not send, and returns the URL of the
// run's page.
func Upload(ctx context.Context, o UploadOptions) (sent int, runURL string, err error) {
	j, err := openJournal(o.File)
	if err != nil {
		return 0, "", err
	}
	defer func() { err = errors.Join(err, j.close()) }() // which removes it, once it is empty
	warn := (&progress{to: o.Err}).warn
	base := o.Server
	if base == "" {
		base = j.header.Server
	}
	srv := newServer(base, o.Version, o.ServerWait, warn)
	srv.cypress, srv.runID = j.header.Cypress, j.joined.RunID
	s := newSender(srv, j, o.Key, warn, func(string) {})
	unsent := j.unsent()
	for _, n := range unsent {
		if err := s.deliver(ctx, n); err != nil {
			if s.refused[n] {
				continue
			}
			switch _, away := errors.AsType[*unreachable](err); {
			case ctx.Err() != nil:
				err = fmt.Errorf("interrupted: the results of %d of %d specs are still in %s", len(unsent)-sent, len(unsent),
					o.File)
			case away:
				err = fmt.Errorf("%s cannot be reached: %w", withoutCredentials(base), err)
			}
			return sent, j.joined.RunURL, err
		}
		sent++
	}
	if sent < len(unsent) {
		return sent, j.joined.RunURL, fmt.Errorf("the server refused the results of %d of %d specs", len(unsent)-sent,
			len(unsent))
	}
	return sent, j.joined.RunURL, nil
}
