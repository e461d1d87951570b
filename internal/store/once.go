package store

import (
	"context"
	"errors"
	"time"

	"runbell/internal/database"
)

// Once is a request of the REST API that takes effect once.
type Once struct {
	KeyID   string // of the API key
	Key     string // what the client calls the request
	Request string // tells it from others
	Answer  string // what it was answered, "" until it was
}

const (
	// OnceFor is how long a request is remembered.
	OnceFor = 24 * time.Hour
	// mostOnce is how many requests of an API key are remembered.
	mostOnce = 10_000
)

// sealedBy binds an answer to its row.
func (o Once) sealedBy() string { return o.KeyID + " " + o.Key }

// BeginOnce notes that a request has begun, or returns what is known of one before that
// the client called the same. The zero Once means that there was none.
func (tx *Tx) BeginOnce(ctx context.Context, o Once) (before Once, err error) {
	if _, err := tx.Exec(ctx, `DELETE FROM once WHERE api_key_id = $1 AND key = $2 AND created_at < $3`, o.KeyID, o.Key,
		micros(tx.Now.Add(-OnceFor))); err != nil {
		return before, err
	}
	n, err := tx.Exec(ctx, `INSERT INTO once (api_key_id, key, request, created_at) VALUES ($1, $2, $3, $4)
		ON CONFLICT (api_key_id, key) DO NOTHING`, o.KeyID, o.Key, o.Request, micros(tx.Now))
	if err != nil || n == 1 {
		if err == nil {
			_, err = tx.Exec(ctx, `DELETE FROM once WHERE api_key_id = $1 AND created_at <=
				(SELECT created_at FROM once WHERE api_key_id = $1 ORDER BY created_at DESC LIMIT 1 OFFSET $2)`, o.KeyID, mostOnce)
		}
		return before, err
	}
	before = Once{KeyID: o.KeyID, Key: o.Key}
	var answer database.NullString
	err = tx.QueryRow(ctx, `SELECT request, answer FROM once WHERE api_key_id = $1 AND key = $2`, o.KeyID, o.Key).
		Scan(&before.Request, &answer)
	if errors.Is(err, database.ErrNoRows) {
		return before, errors.New("store: a request that was remembered a moment ago is gone") // with its key
	}
	if err == nil && answer.Valid {
		before.Answer, err = tx.sealer.Open(answer.String, o.sealedBy())
	}
	return before, err
}

// EndOnce stores what a request was answered. It may be a secret, so it is sealed.
func (tx *Tx) EndOnce(ctx context.Context, o Once) error {
	_, err := tx.Exec(ctx, `UPDATE once SET answer = $3 WHERE api_key_id = $1 AND key = $2`, o.KeyID, o.Key,
		tx.sealer.Seal(o.Answer, o.sealedBy()))
	return err
}

// ForgetOnce forgets a request that failed.
func (tx *Tx) ForgetOnce(ctx context.Context, o Once) error {
	_, err := tx.Exec(ctx, `DELETE FROM once WHERE api_key_id = $1 AND key = $2`, o.KeyID, o.Key)
	return err
}

// DeleteOnce forgets requests from before an instant, up to limit of them.
func (tx *Tx) DeleteOnce(ctx context.Context, before time.Time, limit int) (int, error) {
	n, err := tx.Exec(ctx, `DELETE FROM once WHERE (api_key_id, key) IN
		(SELECT api_key_id, key FROM once WHERE created_at < $1 ORDER BY created_at, api_key_id, key LIMIT $2)`,
		micros(before), limit)
	return int(n), err
}
