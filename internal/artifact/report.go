package artifact

import (
	"context"
	"net/url"
	"path"
	"slices"
	"strings"

	"runbell/internal/run"
	"runbell/internal/store"
)

// didNotArrive is why there is no file that a reporter says it uploaded.
const didNotArrive = "The reporter says that it uploaded it, but it did not arrive: look at what is between the " +
	"reporter and the server, such as a proxy."

// Reported stores why files of an instance are missing: the reporter could not upload them, or says that it did but
// nothing arrived. If the server has the file, or knows why it has none, the reporter's statement changes nothing.
func (s *Service) Reported(ctx context.Context, instanceID string, reports []run.UploadReport) error {
	if s == nil || len(reports) == 0 {
		return nil
	}
	var there []run.Artifact
	if err := s.DB.Read(ctx, func(tx *store.Tx) error {
		i, err := tx.Instance(ctx, instanceID)
		if err == nil {
			there, err = tx.Artifacts(ctx, i.RunID, instanceID)
		}
		return err
	}); err != nil {
		return err
	}
	for _, r := range reports {
		if err := s.reported(ctx, instanceID, there, r); err != nil {
			return err
		}
	}
	return nil
}

func (s *Service) reported(ctx context.Context, instanceID string, there []run.Artifact, r run.UploadReport) error {
	address, err := url.Parse(r.Address)
	if err != nil {
		return nil // the server made no such address
	}
	problem := didNotArrive
	if !r.Uploaded {
		why := r.Why
		if address.RawQuery != "" {
			why = strings.ReplaceAll(why, address.RawQuery, "…") // people who see the run must not be able to upload
		}
		problem = "The reporter could not upload it: " + run.Clip(why, 500)
	}
	a, _, err := s.granted(path.Base(address.Path), address.Query())
	switch {
	case err != nil && s.Presign && !r.Uploaded:
		return s.notInStorage(ctx, there, address, problem)
	case err != nil || a.InstanceID != instanceID:
		return nil
	case slices.ContainsFunc(there, func(known run.Artifact) bool { return known.ID == a.ID }):
		return nil
	}
	return s.giveUp(ctx, a, problem)
}
