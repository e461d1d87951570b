package artifact

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"runbell/internal/run"
	"runbell/internal/store"
)

const (
	// presignLife is how long reporters may upload to the storage themselves.
	presignLife = time.Hour
	// presigning is how long signing addresses may take: it may ask the storage where the bucket is, or the machine
	// for its credentials.
	presigning = 5 * time.Second
	// lookAgain is the time between two looks at a run's files.
	lookAgain = 10 * time.Second
	// lookOverdue is the time between two looks at files whose addresses have expired.
	lookOverdue = time.Minute
	// mostOverdue is how many of them one look covers.
	mostOverdue = 200
	// mostWaiting is how many runs wait for a look.
	mostWaiting = 64
)

// await says where in the storage a reporter is to upload artifacts, and stores that they are awaited. An artifact
// that is already awaited, or was uploaded, keeps its place.
func (s *Service) await(ctx context.Context, presigner Presigner, instanceID string,
	wanted []expected) ([]string, error) {
	awaited := make([]run.Artifact, len(wanted))
	of := run.Artifact{InstanceID: instanceID}
	if err := s.heard(ctx, &of, func(tx *store.Tx) error {
		there, err := tx.Artifacts(ctx, of.RunID, instanceID)
		if err != nil {
			return err
		}
		for n, w := range wanted {
			id := run.ArtifactID(instanceID, w.kind, w.name)
			awaited[n] = run.Artifact{ID: id, ProjectID: of.ProjectID, RunID: of.RunID, InstanceID: instanceID, Kind: w.kind,
				ContentType: w.kind.ContentType(), FileKey: NewKey(id), StoredAt: tx.Now,
				AwaitedUntil: tx.Now.Add(presignLife + s.Store.Linger())}
			if i := slices.IndexFunc(there, func(a run.Artifact) bool { return a.ID == id && a.FileKey != "" }); i >= 0 {
				awaited[n].FileKey = there[i].FileKey
			}
			if err := tx.AwaitArtifact(ctx, awaited[n]); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, presigning)
	defer cancel()
	addresses := make([]string, len(wanted))
	for n, a := range awaited {
		var err error
		if addresses[n], err = presigner.PresignPut(ctx, a.FileKey, a.ContentType, presignLife); err != nil {
			return nil, err
		}
	}
	return addresses, nil
}

// look asks the storage for a file that is awaited, and stores what it says: that the file is there, that it is too
// large, or that its time is over. It returns the artifact as it is then. While the reporter may upload it again, it
// stays awaited: the file may change, and must not be deleted yet.
func (s *Service) look(ctx context.Context, a run.Artifact) (run.Artifact, error) {
	size, encoding, err := s.ask(ctx, a.FileKey)
	missing := errors.Is(err, fs.ErrNotExist)
	if err != nil && !missing {
		return a, err
	}
	err = s.DB.Write(ctx, func(tx *store.Tx) error {
		if _, err := tx.LockRun(ctx, a.RunID); err != nil {
			return err
		}
		mayChange := tx.Now.Before(a.AwaitedUntil)
		switch {
		case mayChange && (missing || size == a.Size && encoding == a.Encoding):
			return nil
		case missing:
			return s.drop(ctx, tx, &a, "It was not uploaded in time.")
		case size > s.Max:
			return s.drop(ctx, tx, &a, tooLarge(s.Max))
		case size == 0 && !mayChange:
			return s.drop(ctx, tx, &a, emptyFile)
		}
		a.Size, a.Encoding, a.StoredAt = size, encoding, tx.Now
		if !mayChange {
			a.AwaitedUntil = time.Time{}
		}
		return tx.ConfirmArtifact(ctx, a)
	})
	return a, err
}

// drop has the file of an awaited artifact deleted, once its address has expired,
// and stores why there is none.
func (s *Service) drop(ctx context.Context, tx *store.Tx, a *run.Artifact, problem string) error {
	key, deleteAt := a.FileKey, a.AwaitedUntil
	a.FileKey, a.Size, a.AwaitedUntil, a.Problem, a.StoredAt = "", 0, time.Time{}, problem, tx.Now
	return tx.DropArtifact(ctx, *a, key, deleteAt)
}

// ask asks the storage how large a file is, and whether it is compressed.
func (s *Service) ask(ctx context.Context, key string) (size int64, encoding string, err error) {
	f, err := s.Store.Open(ctx, key)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = f.Close() }()
	if o, ok := f.(interface{ Encoding() string }); ok {
		encoding = o.Encoding()
	}
	size, err = f.Seek(0, io.SeekEnd)
	return size, encoding, err
}

// notInStorage stores why a reporter could not upload to an address of the storage, unless
// the file is there: the response may have been lost.
func (s *Service) notInStorage(ctx context.Context, there []run.Artifact, address *url.URL, problem string) error {
	n := slices.IndexFunc(there, func(a run.Artifact) bool {
		return !a.AwaitedUntil.IsZero() && strings.HasSuffix(address.Path, "/"+a.FileKey)
	})
	if n < 0 {
		return nil
	}
	a, err := s.look(ctx, there[n])
	if err != nil || a.Stored() || a.Problem != "" {
		return err
	}
	return s.heard(ctx, &a, func(tx *store.Tx) error { return s.drop(ctx, tx, &a, problem) })
}

// Shown schedules a look at the awaited files of a run, because someone has opened the run. It does not wait.
func (s *Service) Shown(runID string) {
	if s == nil || !s.Presign {
		return
	}
	select {
	case s.shown <- runID:
	default: // the page asks again
	}
}

// Look does the looks that Shown schedules, and looks at files whose addresses have expired, until ctx ends.
func (s *Service) Look(ctx context.Context) {
	last := map[string]time.Time{}
	overdue := time.After(0)
	for ctx.Err() == nil {
		var err error
		select {
		case <-ctx.Done():
		case id := <-s.shown:
			if time.Since(last[id]) < lookAgain {
				continue
			}
			_, err = s.lookAt(ctx, func(tx *store.Tx) ([]run.Artifact, error) { return tx.AwaitedArtifacts(ctx, id) })
			if len(last) > 1000 {
				clear(last)
			}
			last[id] = time.Now()
		case <-overdue:
			looked := 0
			looked, err = s.lookAt(ctx,
				func(tx *store.Tx) ([]run.Artifact, error) { return tx.OverdueArtifacts(ctx, mostOverdue) })
			if overdue = time.After(lookOverdue); err == nil && looked == mostOverdue {
				overdue = time.After(0) // there may be more
			}
		}
		if err != nil && ctx.Err() == nil {
			s.Log.Warn("cannot see whether files were uploaded", "store", s.Store.String(), "error", err)
		}
	}
}

// lookAt looks at files, some at the same time. It returns their number and the first error.
func (s *Service) lookAt(ctx context.Context, list func(*store.Tx) ([]run.Artifact, error)) (int, error) {
	var awaited []run.Artifact
	if err := s.DB.Read(ctx, func(tx *store.Tx) (err error) {
		awaited, err = list(tx)
		return err
	}); err != nil {
		return 0, err
	}
	var g errgroup.Group // an error of one does not stop the others
	g.SetLimit(deleteAtOnce)
	for _, a := range awaited {
		g.Go(func() error {
			_, err := s.look(ctx, a)
			return err
		})
	}
	return len(awaited), g.Wait()
}
