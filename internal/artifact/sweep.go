package artifact

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"runbell/internal/store"
)

const (
	// deleteAtOnce is how many files are deleted at the same time: object storage
	// takes some milliseconds for each.
	deleteAtOnce = 8
	// postpone is when a file that could not be deleted is tried again.
	postpone = time.Hour
)

// DeleteFiles deletes up to limit unneeded files from the store, and then their rows. It reports how many, and
// whether there may be more. A file that cannot be deleted is an error, and is tried again later. The others are
// still deleted.
func (s *Service) DeleteFiles(ctx context.Context, limit int) (deleted int, more bool, err error) {
	if s == nil {
		return 0, false, nil
	}
	var due []store.DueFile
	if err := s.DB.Read(ctx, func(tx *store.Tx) (err error) {
		due, err = tx.DueFiles(ctx, limit)
		return err
	}); err != nil {
		return 0, false, err
	}
	errs := s.deleteAll(ctx, due)
	var gone, left []string
	var size int64
	for n, f := range due {
		if errs[n] != nil {
			left = append(left, f.Key)
			continue
		}
		gone, size = append(gone, f.Key), size+f.Size
	}
	err = s.DB.Write(ctx, func(tx *store.Tx) error {
		deleted, err = tx.DeleteFiles(ctx, gone)
		return errors.Join(err, tx.PostponeFiles(ctx, left, tx.Now.Add(postpone)))
	})
	if err != nil {
		return 0, false, err
	}
	s.metrics.deleted.Add(float64(deleted))
	s.metrics.shrunken.Add(float64(size))
	if len(left) > 0 {
		err = errs[slices.IndexFunc(errs, func(e error) bool { return e != nil })] // the others say the same
	}
	return deleted, len(due) == limit && err == nil, err
}

// deleteAll deletes files from the store. It returns an error or nil for each.
func (s *Service) deleteAll(ctx context.Context, files []store.DueFile) []error {
	errs := make([]error, len(files))
	slots := make(chan struct{}, deleteAtOnce)
	var done sync.WaitGroup
	for n, f := range files {
		slots <- struct{}{}
		done.Go(func() {
			errs[n] = s.Store.Delete(ctx, f.Key)
			<-slots
		})
	}
	done.Wait()
	return errs
}
