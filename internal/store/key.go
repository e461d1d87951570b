package store

import (
	"context"
	"time"

	"runbell/internal/database"
	"runbell/internal/run"
)

// RecordKey allows reporters to record runs of one project. The key itself is
// not stored.
type RecordKey struct {
	ID        string
	ProjectID string
	Label     string
	Hash      string // hex SHA-256 of the key
	Hint      string // its last characters, to distinguish keys
	CreatedAt time.Time
	UsedAt    time.Time // to a few minutes; zero if never
}

// APIKey allows programs to use the REST API.
type APIKey struct {
	ID        string
	Label     string
	Write     bool
	ProjectID string // the one it is good for, "" if all
	Hash      string
	Hint      string
	CreatedAt time.Time
	UsedAt    time.Time // to a few minutes; zero if never
}

func scanRecordKey(r database.Row) (RecordKey, error) {
	var k RecordKey
	var created int64
	var used database.NullInt64
	err := r.Scan(&k.ID, &k.ProjectID, &k.Label, &k.Hash, &k.Hint, &created, &used)
	k.CreatedAt, k.UsedAt = timeOf(created), timeOrZero(used)
	return k, err
}

// InsertRecordKey stores a new record key.
func (tx *Tx) InsertRecordKey(ctx context.Context, k RecordKey) error {
	_, err := tx.Exec(ctx, `INSERT INTO record_key (id, project_id, label, hash, hint, created_at)
		VALUES ($1, $2, $3, $4, $5, $6)`, k.ID, k.ProjectID, k.Label, k.Hash, k.Hint, micros(k.CreatedAt))
	return err
}

// RecordKeyByHash finds the key with a hash.
func (tx *Tx) RecordKeyByHash(ctx context.Context, hash string) (RecordKey, error) {
	return one(tx.QueryRow(ctx, `SELECT id, project_id, label, hash, hint, created_at, used_at FROM record_key
		WHERE hash = $1`, hash),
		scanRecordKey, run.Errorf(run.NotFound, "There is no such record key."))
}

// RecordKeys lists the keys of a project, oldest first.
func (tx *Tx) RecordKeys(ctx context.Context, projectID string) ([]RecordKey, error) {
	rows, err := tx.Query(ctx, `SELECT id, project_id, label, hash, hint, created_at, used_at FROM record_key
		WHERE project_id = $1 ORDER BY created_at, id`, projectID)
	return database.All(rows, err, scanRecordKey)
}

// RecordKey finds a key by its id.
func (tx *Tx) RecordKey(ctx context.Context, id string) (RecordKey, error) {
	return one(tx.QueryRow(ctx, `SELECT id, project_id, label, hash, hint, created_at, used_at FROM record_key
		WHERE id = $1`, id),
		scanRecordKey, run.Missing("record key", id))
}

// UseRecordKey notes that a key was used.
func (tx *Tx) UseRecordKey(ctx context.Context, id string) error {
	_, err := tx.Exec(ctx, `UPDATE record_key SET used_at = $2 WHERE id = $1`, id, micros(tx.Now))
	return err
}

// DeleteKeys revokes all record keys of a project, and the API keys that are good for it
// alone.
func (tx *Tx) DeleteKeys(ctx context.Context, projectID string) error {
	for _, from := range []string{`record_key`, `api_key`} {
		if _, err := tx.Exec(ctx, `DELETE FROM `+from+` WHERE project_id = $1`, projectID); err != nil {
			return err
		}
	}
	return nil
}

// DeleteRecordKey revokes a key.
func (tx *Tx) DeleteRecordKey(ctx context.Context, id string) error {
	return tx.deleteOne(ctx, `DELETE FROM record_key WHERE id = $1`, "record key", id)
}

func scanAPIKey(r database.Row) (APIKey, error) {
	var k APIKey
	var access string
	var project database.NullString
	var created int64
	var used database.NullInt64
	err := r.Scan(&k.ID, &k.Label, &access, &project, &k.Hash, &k.Hint, &created, &used)
	k.Write, k.ProjectID = access == "write", project.String
	k.CreatedAt, k.UsedAt = timeOf(created), timeOrZero(used)
	return k, err
}

// InsertAPIKey stores a new API key. It does not change a key that already exists.
func (tx *Tx) InsertAPIKey(ctx context.Context, k APIKey) error {
	access := "read"
	if k.Write {
		access = "write"
	}
	var project any
	if k.ProjectID != "" {
		project = k.ProjectID
	}
	_, err := tx.Exec(ctx, `INSERT INTO api_key (id, label, access, project_id, hash, hint, created_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (hash) DO NOTHING`, k.ID, k.Label, access, project, k.Hash, k.Hint,
		micros(k.CreatedAt))
	return err
}

// APIKeyByHash finds the key with a hash.
func (tx *Tx) APIKeyByHash(ctx context.Context, hash string) (APIKey, error) {
	return one(tx.QueryRow(ctx, `SELECT id, label, access, project_id, hash, hint, created_at, used_at FROM api_key
		WHERE hash = $1`, hash), scanAPIKey, run.Errorf(run.NotFound, "There is no such API key."))
}

// APIKeys lists the API keys, oldest first.
func (tx *Tx) APIKeys(ctx context.Context) ([]APIKey, error) {
	rows, err := tx.Query(ctx, `SELECT id, label, access, project_id, hash, hint, created_at, used_at FROM api_key
		ORDER BY created_at, id`)
	return database.All(rows, err, scanAPIKey)
}

// UseAPIKey notes that a key was used.
func (tx *Tx) UseAPIKey(ctx context.Context, id string) error {
	_, err := tx.Exec(ctx, `UPDATE api_key SET used_at = $2 WHERE id = $1`, id, micros(tx.Now))
	return err
}

// DeleteAPIKey revokes a key.
func (tx *Tx) DeleteAPIKey(ctx context.Context, id string) error {
	return tx.deleteOne(ctx, `DELETE FROM api_key WHERE id = $1`, "API key", id)
}

func (tx *Tx) deleteOne(ctx context.Context, statement, thing, id string) error {
	n, err := tx.Exec(ctx, statement, id)
	if err == nil && n == 0 {
		return run.Missing(thing, id)
	}
	return err
}
