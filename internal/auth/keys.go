// Package auth says who may do what: record keys for reporters, API keys for
// programs, accounts and sessions for people.
package auth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"runbell/internal/run"
	"runbell/internal/store"
)

// Recording is who may record runs.
type Recording string

const (
	// KeysOnly needs the project's record key.
	KeysOnly Recording = "keys"
	// Open takes any key and creates projects that do not exist: for local use.
	Open Recording = "open"
)

// Keys checks and makes keys.
type Keys struct {
	db        *store.DB
	recording Recording
	requests  *limiter // of API keys
}

// An API key may make this many requests at once, and this many a second over time.
const (
	requestsAtOnce    = 600
	requestsPerSecond = 50
)

// New makes the checks for a recording policy.
func New(db *store.DB, recording Recording) *Keys {
	return &Keys{db: db, recording: recording, requests: newLimiter(requestsAtOnce, time.Second/requestsPerSecond)}
}

// maxKeyLength keeps what is hashed small; our own keys are far shorter.
const maxKeyLength = 512

// Record says whether a reporter may record runs of a project: nil, or an error
// that says what to do.
func (k *Keys) Record(ctx context.Context, projectID, key string) error {
	if k.recording == Open {
		return k.ensureProject(ctx, projectID)
	}
	refused := run.Errorf(run.Unauthorized,
		"The record key is not valid for project %q, or the project does not exist. Create a key with 'runbell key create "+
			"--project %s', and pass it as --key, RUNBELL_RECORD_KEY or, with cypress-cloud, CURRENTS_RECORD_KEY.",
		run.Clip(projectID, 60), run.Clip(projectID, 60))
	if key == "" || len(key) > maxKeyLength {
		return refused
	}
	hash := Hash(key)
	var stored store.RecordKey
	var unnoted bool
	err := k.db.Read(ctx, func(tx *store.Tx) (err error) {
		stored, err = tx.RecordKeyByHash(ctx, hash)
		unnoted = tx.Now.Sub(stored.UsedAt) > noteUse
		return err
	})
	if run.KindOf(err) == run.NotFound {
		return refused
	}
	if err != nil {
		return err
	}
	if !equal(stored.Hash, hash) {
		return refused
	}
	if !equal(stored.ProjectID, projectID) {
		return run.Errorf(run.Unauthorized,
			"This record key belongs to another project than %q. Check the projectId, or create a key for it with 'runbell key "+
				"create --project %s'.", run.Clip(projectID, 60), run.Clip(projectID, 60))
	}
	if unnoted {
		return k.db.Write(ctx, func(tx *store.Tx) error { return tx.UseRecordKey(ctx, stored.ID) })
	}
	return nil
}

// noteUse is how exactly the last use of a key is known: one write per request
// would cost too much.
const noteUse = 5 * time.Minute

// Access is what an API key allows.
type Access int

// The two accesses.
const (
	Read Access = iota
	Write
)

// Program is who uses the REST API, by its key.
type Program struct {
	KeyID string
	// ProjectID is the only project that the key can be used for, "" if all.
	ProjectID string
	Access
}

// Sees says whether the key can be used for a project.
func (p Program) Sees(projectID string) bool { return p.ProjectID == "" || p.ProjectID == projectID }

// API finds an API key and what it allows: Unauthorized if there is no such
// key, TooMany if it has made too many requests.
func (k *Keys) API(ctx context.Context, key string) (Program, error) {
	refused := run.Errorf(run.Unauthorized,
		"The API key is missing or not valid. Send it as 'Authorization: Bearer KEY'. The server creates a first key from "+
			"RUNBELL_API_KEY.")
	if key == "" || len(key) > maxKeyLength {
		return Program{}, refused
	}
	hash := Hash(key)
	var stored store.APIKey
	var unnoted bool
	err := k.db.Read(ctx, func(tx *store.Tx) (err error) {
		stored, err = tx.APIKeyByHash(ctx, hash)
		unnoted = tx.Now.Sub(stored.UsedAt) > noteUse
		return err
	})
	if run.KindOf(err) == run.NotFound {
		return Program{}, refused
	}
	if err != nil {
		return Program{}, err
	}
	if !equal(stored.Hash, hash) {
		return Program{}, refused
	}
	if wait := k.requests.take(stored.ID); wait > 0 {
		return Program{}, &run.Error{Kind: run.TooMany, Wait: wait, Message: fmt.Sprintf(
			"Too many requests with this API key: it may make %d a second. Wait as long as Retry-After says.",
			requestsPerSecond)}
	}
	if unnoted {
		if err := k.db.Write(ctx, func(tx *store.Tx) error { return tx.UseAPIKey(ctx, stored.ID) }); err != nil {
			return Program{}, err
		}
	}
	by := Program{KeyID: stored.ID, ProjectID: stored.ProjectID, Access: Read}
	if stored.Write {
		by.Access = Write
	}
	return by, nil
}

// Hash is how a key is stored: keys are random and long, so a plain SHA-256
// cannot be searched.
func Hash(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:])
}

func equal(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// hint is the end of a key, by which people tell keys apart.
func hint(key string) string {
	if len(key) < 12 {
		return ""
	}
	return "…" + key[len(key)-4:]
}

// CreateRecordKey makes a record key of a project. The key itself is returned
// only here.
func (k *Keys) CreateRecordKey(ctx context.Context,
	projectID, label string) (stored store.RecordKey, key string, err error) {
	if err := checkLabel(label); err != nil {
		return stored, "", err
	}
	err = k.db.Write(ctx, func(tx *store.Tx) error {
		if _, err := tx.Project(ctx, projectID); err != nil {
			return err
		}
		stored, key, err = InsertRecordKey(ctx, tx, projectID, label)
		return err
	})
	return stored, key, err
}

// InsertRecordKey is CreateRecordKey as a part of a transaction that has the
// project.
func InsertRecordKey(ctx context.Context, tx *store.Tx, projectID, label string) (store.RecordKey, string, error) {
	stored, key := newRecordKey(projectID, label)
	stored.CreatedAt = tx.Now
	return stored, key, tx.InsertRecordKey(ctx, stored)
}

// RevokeRecordKey removes a record key of a project; of any project if projectID
// is "".
func (k *Keys) RevokeRecordKey(ctx context.Context, projectID, id string) error {
	err := k.db.Read(ctx, func(tx *store.Tx) error {
		stored, err := tx.RecordKey(ctx, id)
		if err == nil && projectID != "" && stored.ProjectID != projectID {
			err = run.Missing("record key", id)
		}
		return err
	})
	if err != nil {
		return err
	}
	return k.db.Write(ctx, func(tx *store.Tx) error { return tx.DeleteRecordKey(ctx, id) })
}

// CreateAPIKey makes an API key for one project, for all if that is "". The key
// itself is returned only here.
func (k *Keys) CreateAPIKey(ctx context.Context, label string, access Access,
	projectID string) (stored store.APIKey, key string, err error) {
	if err := checkLabel(label); err != nil {
		return stored, "", err
	}
	stored, key = newAPIKey(label, access)
	stored.ProjectID = projectID
	err = k.db.Write(ctx, func(tx *store.Tx) error {
		if projectID != "" {
			if _, err := tx.Project(ctx, projectID); err != nil {
				return err
			}
		}
		stored.CreatedAt = tx.Now
		return tx.InsertAPIKey(ctx, stored)
	})
	return stored, key, err
}

// RevokeAPIKey removes an API key.
func (k *Keys) RevokeAPIKey(ctx context.Context, id string) error {
	return k.db.Write(ctx, func(tx *store.Tx) error { return tx.DeleteAPIKey(ctx, id) })
}

func checkLabel(label string) error {
	if !run.ValidName(label) || !utf8.ValidString(label) {
		return run.Errorf(run.Invalid, "A label has at most %d characters, and no control characters.", run.MaxNameLength)
	}
	return nil
}

func newRecordKey(projectID, label string) (store.RecordKey, string) {
	key := "rk_" + strings.ToLower(rand.Text())
	return store.RecordKey{ID: uuid.NewString(), ProjectID: projectID, Label: label, Hash: Hash(key), Hint: hint(key)}, key
}

func newAPIKey(label string, access Access) (store.APIKey, string) {
	key := "ak_" + strings.ToLower(rand.Text())
	return store.APIKey{ID: uuid.NewString(), Label: label, Write: access == Write, Hash: Hash(key), Hint: hint(key)}, key
}

// MinBootstrapKey is how long a key from RUNBELL_API_KEY must be.
const MinBootstrapKey = 16

// Bootstrap makes sure that a read-write API key chosen by the operator exists.
func (k *Keys) Bootstrap(ctx context.Context, key string) error {
	if len(key) < MinBootstrapKey || len(key) > maxKeyLength {
		return fmt.Errorf("RUNBELL_API_KEY must have %d to %d characters: create one with 'openssl rand -hex 24'",
			MinBootstrapKey, maxKeyLength)
	}
	return k.db.Write(ctx, func(tx *store.Tx) error {
		if err := tx.InsertAPIKey(ctx,
			store.APIKey{ID: uuid.NewString(), Label: "RUNBELL_API_KEY", Write: true, Hash: Hash(key), Hint: hint(key),
				CreatedAt: tx.Now}); err != nil {
			return err
		}
		stored, err := tx.APIKeyByHash(ctx, Hash(key)) // one that was there already stays as it is
		if err == nil && !stored.Write {
			err = errors.New("RUNBELL_API_KEY is a read-only key: revoke it first, or choose another key")
		}
		return err
	})
}

func (k *Keys) ensureProject(ctx context.Context, id string) error {
	if err := run.CheckProjectID(id); err != nil {
		return err
	}
	err := k.db.Read(ctx, func(tx *store.Tx) error {
		_, err := tx.Project(ctx, id)
		return err
	})
	if run.KindOf(err) != run.NotFound {
		return err
	}
	return k.db.Write(ctx, func(tx *store.Tx) error {
		p := run.NewProject(id)
		p.CreatedAt = tx.Now
		_, err := tx.InsertProject(ctx, p)
		return err
	})
}
