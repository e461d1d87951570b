// Package endpoint changes endpoints and their deliveries: create,
// change, enable, disable, delete, rotate, test, retry and replay. It checks
// settings and explains errors in the words of the REST API, which pages and
// commands use too.
package endpoint

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/webhook"
)

// Service acts on endpoints. Its methods may be called from any goroutine.
type Service struct {
	db        *store.DB
	publicURL string
	check     func(url string) error
	changed   func(endpointIDs ...string)
}

// New makes a Service. check says why a URL may not be called, changed is called
// after a commit that changed what is to be sent to an endpoint, and publicURL
// is the base of the links in test webhooks.
func New(db *store.DB, publicURL string, check func(url string) error, changed func(endpointIDs ...string)) *Service {
	return &Service{db: db, publicURL: strings.TrimRight(publicURL, "/"), check: check, changed: changed}
}

// chunk bounds how many deliveries one transaction touches.
const chunk = 500

// Create makes an endpoint of a project, with a secret. by names who does it,
// here and below, for the endpoint's history.
func (s *Service) Create(ctx context.Context, projectID string, set Settings, by string) (webhook.Endpoint, error) {
	e := webhook.NewEndpoint(uuid.NewString(), projectID)
	e.Secret = webhook.NewSecret()
	if set.Enabled != nil {
		e.Enabled = *set.Enabled
	}
	if set.URL == nil {
		return e, run.Errorf(run.Invalid, "url is missing: send the URL of the receiver.")
	}
	if set.Kind != nil {
		e.Kind = *set.Kind
	}
	if err := s.apply(set, &e); err != nil {
		return e, err
	}
	return e, s.db.Write(ctx, func(tx *store.Tx) error {
		if _, err := tx.LockProject(ctx, projectID); err != nil {
			return err
		}
		switch n, err := tx.CountEndpoints(ctx, projectID); {
		case err != nil:
			return err
		case n >= webhook.MaxEndpoints:
			return run.Errorf(run.Refused, "The project has %d webhooks, and a project can have no more: delete one first.", n)
		}
		e.CreatedAt, e.UpdatedAt = tx.Now, tx.Now
		if err := tx.InsertEndpoint(ctx, e); err != nil {
			return err
		}
		return tx.Note(ctx, e.ID, webhook.WasCreated, "Created "+by+".")
	})
}

// Change changes the settings that are given. An endpoint that is enabled by
// that resumes what it held: every waiting delivery is due at once, and those that
// waited for a retry have the whole schedule ahead. It answers how many wait.
func (s *Service) Change(ctx context.Context, id string, set Settings, by string) (webhook.Endpoint, int64, error) {
	var held int64
	if set.Enabled != nil && *set.Enabled {
		var err error
		if held, err = s.resume(ctx, id, set); err != nil {
			return webhook.Endpoint{}, 0, err
		}
	}
	var resumed int64
	e, err := s.update(ctx, id, func(tx *store.Tx, e *webhook.Endpoint) error {
		resumed = 0
		if err := s.apply(set, e); err != nil {
			return err
		}
		if set.Enabled == nil || *set.Enabled == e.Enabled {
			return nil
		}
		e.Enabled, e.DisabledReason = *set.Enabled, ""
		if !e.Enabled {
			return tx.Note(ctx, id, webhook.WasDisabled, "Disabled "+by+".")
		}
		resumed = held
		if _, err := tx.ResumeDeliveries(ctx, id, chunk); err != nil { // what a request in flight has left meanwhile
			return err
		}
		if err := tx.ResetHealth(ctx, id); err != nil {
			return err
		}
		return tx.Note(ctx, id, webhook.WasEnabled, "Enabled "+by+".")
	})
	return e, resumed, err
}

// resume makes due what a disabled endpoint holds, in parts, for there may be
// very many, and returns how many deliveries wait. The endpoint is enabled after
// that: otherwise a retry that the engine plans between two parts would be taken
// for one that was held. It does nothing if the endpoint is enabled.
func (s *Service) resume(ctx context.Context, id string, set Settings) (held int64, err error) {
	var e webhook.Endpoint
	for more := true; more; {
		err := s.db.Write(ctx, func(tx *store.Tx) (err error) {
			more = false
			if e, err = lock(ctx, tx, id); err != nil || e.Enabled {
				return err
			}
			changed := e
			if err := s.apply(set, &changed); err != nil {
				return err // what is refused resumes nothing
			}
			n, err := tx.ResumeDeliveries(ctx, id, chunk)
			more = n == chunk
			return err
		})
		if err != nil || e.Enabled {
			return 0, err
		}
	}
	// Counting takes the longer the more there is, so it is not done in the transaction that enables.
	err = s.db.Read(ctx, func(tx *store.Tx) error {
		health, err := tx.Health(ctx, e)
		held = health.Pending
		return err
	})
	return held, err
}

// update changes an endpoint under its lock, so that an event that commits at
// the same time sees it as it was or as it is.
func (s *Service) update(ctx context.Context, id string,
	change func(*store.Tx, *webhook.Endpoint) error) (webhook.Endpoint, error) {
	var e webhook.Endpoint
	err := s.db.Write(ctx, func(tx *store.Tx) (err error) {
		if e, err = lock(ctx, tx, id); err != nil {
			return err
		}
		if err := change(tx, &e); err != nil {
			return err
		}
		e.UpdatedAt = tx.Now
		return tx.UpdateEndpoint(ctx, e)
	})
	if err == nil {
		s.changed(id)
	}
	return e, err
}

// lock locks an endpoint and its lane, the lane first, as the engine does.
func lock(ctx context.Context, tx *store.Tx, id string) (webhook.Endpoint, error) {
	if err := tx.LockLane(ctx, id); err != nil {
		return webhook.Endpoint{}, err
	}
	return tx.LockEndpoint(ctx, id)
}

// Delete removes an endpoint with its deliveries and their log.
func (s *Service) Delete(ctx context.Context, id string) (webhook.Endpoint, error) {
	var e webhook.Endpoint
	err := s.db.Write(ctx, func(tx *store.Tx) (err error) {
		if e, err = lock(ctx, tx, id); err != nil {
			return err
		}
		return tx.DeleteEndpoint(ctx, id)
	})
	if err != nil {
		return e, err
	}
	s.changed(id)
	// Nobody sees its deliveries any more. If this is interrupted, package retention
	// removes the rest.
	for n := chunk; n == chunk && err == nil; {
		err = s.db.Write(ctx, func(tx *store.Tx) (err error) {
			n, err = tx.DeleteDeliveries(ctx, id, time.Time{}, tx.Now.Add(time.Hour), true, chunk)
			return err
		})
	}
	return e, err
}

// The overlap of a rotation.
const (
	DefaultGrace = 24 * time.Hour
	MaxGrace     = 30 * 24 * time.Hour
)

// Rotate makes a new secret. The one before signs too, until grace is over; the
// one before that, of a rotation that was not over, signs no more.
func (s *Service) Rotate(ctx context.Context, id string, grace time.Duration, by string) (webhook.Endpoint, error) {
	if grace < 0 || grace > MaxGrace {
		return webhook.Endpoint{}, run.Errorf(run.Invalid, "graceSeconds must be a number from 0 to %d, which is 30 days.",
			int(MaxGrace.Seconds()))
	}
	return s.update(ctx, id, func(tx *store.Tx, e *webhook.Endpoint) error {
		e.Secret, e.Previous, e.PreviousUntil = webhook.NewSecret(), e.Secret, tx.Now.Add(grace)
		text := fmt.Sprintf("Secret rotated %s; the previous one also signs until %s.", by,
			e.PreviousUntil.Format(time.RFC3339))
		if grace == 0 {
			e.Previous, e.PreviousUntil = "", time.Time{}
			text = fmt.Sprintf("Secret rotated %s, without a grace period.", by)
		}
		return tx.Note(ctx, id, webhook.WasRotated, text)
	})
}
