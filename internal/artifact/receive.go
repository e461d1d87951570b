package artifact

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"mime"
	"net/url"
	"strconv"
	"strings"
	"time"

	"runbell/internal/body"
	"runbell/internal/lifecycle"
	"runbell/internal/run"
	"runbell/internal/store"
)

const (
	// waitForSlot is how long an upload waits when too many are received.
	waitForSlot = 15 * time.Second
	// hearEvery is how often an upload in progress counts as a report.
	hearEvery = 10 * time.Second
	// storing is how long a store may take in addition to the sender's time.
	storing = 10 * time.Minute
)

// Upload is a file that a reporter sends.
type Upload struct {
	ID    string     // of the artifact
	Query url.Values // of the address
	// ContentType is what the sender says it is; "" if it says nothing.
	ContentType string
	Encoding    string // "" or "gzip"
	Size        int64  // bytes that Body has; -1 if the sender did not say
	// Body may return a *run.Error, which is then for the sender.
	Body io.Reader
}

// Receive stores a file. It replaces one that was uploaded before. After an error, an artifact that had no file
// stores the reason, and the error tells the sender: Forbidden if the address is not valid, TooLarge, Invalid if the
// upload differs from what was agreed, Unavailable if the file could not be stored.
func (s *Service) Receive(ctx context.Context, u Upload) error {
	a, limit, err := s.granted(u.ID, u.Query)
	if err != nil {
		return err
	}
	if err := expired(u.Query, s.DB.Now()); err != nil {
		s.tell(ctx, a, "It was uploaded after its address had expired.")
		return err
	}
	if err := s.take(ctx); err != nil {
		return err
	}
	defer s.give()
	result, problem, err := s.receive(ctx, &a, u, limit)
	s.metrics.uploads.WithLabelValues(result).Inc()
	if err == nil {
		s.metrics.bytes.Add(float64(a.Size))
		return nil
	}
	s.tell(ctx, a, problem)
	return err
}

// tell abandons an upload and stores the reason. The sender may be gone, but people want to know it.
func (s *Service) tell(ctx context.Context, a run.Artifact, problem string) {
	if err := s.giveUp(context.WithoutCancel(ctx), a, problem); err != nil && run.KindOf(err) == run.Internal {
		s.Log.Error("cannot record that a file was not uploaded", "artifact", a.ID, "run", a.RunID, "error", err)
	}
}

// granted reads what the address of an upload allows, or allowed until it expired.
func (s *Service) granted(id string, query url.Values) (run.Artifact, int64, error) {
	if err := s.signer.check(uploads, id, query); err != nil {
		return run.Artifact{}, 0, err
	}
	limit, err := strconv.ParseInt(query.Get("max"), 10, 64)
	return run.Artifact{ID: id, InstanceID: query.Get("instance"), Kind: run.ArtifactKind(query.Get("kind")),
		ContentType: query.Get("type")}, limit, err
}

// take waits for a slot.
func (s *Service) take(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, waitForSlot)
	defer cancel()
	select {
	case s.slots <- struct{}{}:
		s.metrics.running.Inc()
		return nil
	case <-ctx.Done():
		return run.Errorf(run.Unavailable, "The server receives %d other files: try again.", mostUploads)
	}
}

func (s *Service) give() {
	<-s.slots
	s.metrics.running.Dec()
}

// receive stores the file of an artifact. If it fails, problem tells people why there is no file.
func (s *Service) receive(ctx context.Context, a *run.Artifact, u Upload,
	limit int64) (result, problem string, err error) {
	if err := checkType(a.ContentType, u); err != nil {
		return refused, "What was uploaded is not " + a.ContentType + ".", err
	}
	a.Encoding = u.Encoding
	if u.Size > limit {
		return refused, tooLarge(limit), run.Errorf(run.TooLarge, "%s", tooLarge(limit))
	}
	most := body.Longest(limit)
	if u.Size >= 0 {
		most = body.Longest(u.Size)
	}
	ctx, cancel := context.WithTimeout(ctx, most+storing)
	defer cancel()
	key := NewKey(a.ID)
	if err := s.heard(ctx, a, func(tx *store.Tx) error {
		return tx.InsertFile(ctx, key, a.ProjectID, max(u.Size, 0), tx.Now.Add(most+2*storing))
	}); err != nil {
		return failed, "", err
	}
	a.FileKey = key
	in := &source{from: u.Body, limit: limit, sum: sha256.New(), heard: time.Now(), hear: func() error {
		return s.heard(ctx, a, func(*store.Tx) error { return nil })
	}}
	if err := s.Store.Put(ctx, key, in, u.Size, a.ContentType); err != nil {
		return s.explain(ctx, *a, in, err)
	}
	a.Size, a.SHA256 = in.size, hex.EncodeToString(in.sum.Sum(nil))
	err = s.heard(context.WithoutCancel(ctx), a, func(tx *store.Tx) error {
		a.StoredAt = tx.Now
		kept, err := tx.PutArtifact(ctx, *a)
		if err == nil && !kept {
			err = run.Errorf(run.Unavailable, "The upload took too long: try again.")
		}
		return err
	})
	if err != nil {
		return failed, "", err
	}
	return stored, "", nil
}

// checkType returns an error unless the file is what the address is for. A file without a type is accepted.
func checkType(want string, u Upload) error {
	if u.Encoding != "" && u.Encoding != "gzip" {
		return run.Errorf(run.Invalid, "Content-Encoding %q is not supported: send gzip or none.", run.Clip(u.Encoding, 40))
	}
	if u.ContentType == "" {
		return nil
	}
	if got, _, err := mime.ParseMediaType(u.ContentType); err != nil || !strings.EqualFold(got, want) {
		return run.Errorf(run.Invalid, "This address takes %s and not %q: send it with the header 'Content-Type: %s'.", want,
			run.Clip(u.ContentType, 40), want)
	}
	return nil
}

// emptyFile is why there is no file where a reporter sent nothing: neither a picture nor
// a video has no bytes.
const emptyFile = "The file that the reporter sent is empty."

func tooLarge(limit int64) string {
	return fmt.Sprintf("The file is larger than %s, the limit of the server (RUNBELL_ARTIFACT_MAX).",
		run.FormatSize(limit))
}

// explain says who caused the failure to store a file.
func (s *Service) explain(ctx context.Context, a run.Artifact, in *source,
	err error) (result, problem string, _ error) {
	switch {
	case errors.Is(in.err, errTooLarge):
		return refused, tooLarge(in.limit), run.Errorf(run.TooLarge, "%s", tooLarge(in.limit))
	case errors.Is(in.err, errEmpty):
		return refused, emptyFile, run.Errorf(run.Invalid, "The file is empty.")
	case run.KindOf(in.err) == run.NotFound: // the run was deleted
		return failed, "", in.err
	case in.err != nil || ctx.Err() != nil || errors.Is(err, errSize):
		problem = fmt.Sprintf("The upload ended after %s.", run.FormatSize(in.size))
		if run.KindOf(in.err) != run.Internal {
			return cut, problem, in.err
		}
		return cut, problem, run.Errorf(run.Invalid, "The file was cut short after %s: send it again.",
			run.FormatSize(in.size))
	}
	s.Log.Error("cannot store a file", "artifact", a.ID, "run", a.RunID, "size", in.size, "store", s.Store.String(),
		"error", err)
	if errors.Is(err, ErrFull) {
		return failed, "The server had no free space for it.",
			run.Errorf(run.Unavailable, "The server has no free space for files: ask its operator to free some.")
	}
	return failed, "The server could not store it.",
		run.Errorf(run.Unavailable, "The server could not store the file: its log says why. Try again.")
}

// heard runs f in a transaction that counts as a report of the instance's machine. It fills in the project and run of
// the artifact.
func (s *Service) heard(ctx context.Context, a *run.Artifact, f func(*store.Tx) error) error {
	return s.DB.Write(ctx, func(tx *store.Tx) error {
		r, err := lifecycle.Hear(ctx, tx, a.InstanceID)
		if err != nil {
			return err
		}
		a.RunID, a.ProjectID = r.ID, r.ProjectID
		return f(tx)
	})
}

// giveUp schedules the removal of what an upload left, and stores why the artifact has no file. Without a problem
// there is no reason to store.
func (s *Service) giveUp(ctx context.Context, a run.Artifact, problem string) error {
	if a.FileKey != "" {
		if err := s.DB.Write(ctx, func(tx *store.Tx) error {
			return tx.AbandonFile(ctx, a.FileKey,
				tx.Now.Add(s.Store.Linger()))
		}); err != nil {
			return err
		}
	}
	if problem == "" {
		return nil
	}
	return s.heard(ctx, &a, func(tx *store.Tx) error {
		a.FileKey, a.Size, a.SHA256, a.Problem, a.StoredAt = "", 0, "", problem, tx.Now
		return tx.RefuseArtifact(ctx, a)
	})
}

var (
	errTooLarge = errors.New("larger than the limit")
	errEmpty    = errors.New("no data arrived")
)

// source is what a sender sends, counted and hashed on its way.
type source struct {
	from  io.Reader
	limit int64
	size  int64
	sum   hash.Hash
	heard time.Time
	hear  func() error
	err   error // of the sender, not of the store
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.from.Read(p)
	s.size += int64(n)
	_, _ = s.sum.Write(p[:n]) // a hash takes everything
	switch {
	case s.size > s.limit:
		err = errTooLarge
	case s.size == 0 && errors.Is(err, io.EOF):
		err = errEmpty
	case err == nil && time.Since(s.heard) > hearEvery:
		err = s.hear()
		s.heard = time.Now()
	}
	if err != nil && err != io.EOF { //nolint:errorlint // the contract of io.Reader
		s.err = err
	}
	return n, err
}
