package api

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/http"

	"runbell/internal/auth"
	"runbell/internal/body"
	"runbell/internal/run"
	"runbell/internal/store"
)

// A POST that has this header takes effect once, however often it is sent.
const (
	idempotencyKey    = "Idempotency-Key"
	maxIdempotencyKey = 255
)

// takesOnce says that a route takes an Idempotency-Key.
func (rt route) takesOnce() bool { return rt.method == http.MethodPost && rt.right != auth.Anyone }

// once serves a POST with an Idempotency-Key: the first time it does the work, and after
// that it repeats the response. A request that failed changed nothing, so it is
// forgotten, and can be tried again.
func (a *api) once(w http.ResponseWriter, r *request, rt route, b *body.Body, key string) ([]byte, error) {
	if err := checkText(idempotencyKey, key, 1, maxIdempotencyKey); err != nil {
		return nil, err
	}
	// Whether it took effect must be known in the end, even if the client does not wait.
	ctx := context.WithoutCancel(r.Context())
	r.Request = r.WithContext(ctx)
	o := store.Once{KeyID: r.by.KeyID, Key: key, Request: digest(r, b)}
	var before store.Once
	err := a.DB.Write(ctx, func(tx *store.Tx) (err error) {
		before, err = tx.BeginOnce(ctx, o)
		return err
	})
	switch {
	case err != nil:
		return nil, err
	case before.Key == "":
	case before.Request != o.Request:
		return nil, run.Errorf(run.Refused, "This %s was used for another request: use a new one for each object that "+
			"you create.", idempotencyKey)
	case before.Answer == "":
		return nil, run.Errorf(run.Conflict, "A request with this %s is in progress, or was interrupted. Try again in a "+
			"minute. If this error persists, check whether the request succeeded, and then use a new one.", idempotencyKey)
	default:
		w.Header().Set("Idempotent-Replayed", "true")
		return []byte(before.Answer), nil
	}
	answer, err := rt.answer(r, b)
	o.Answer = string(answer)
	end := (*store.Tx).EndOnce
	if err != nil {
		end = (*store.Tx).ForgetOnce
	}
	if ended := a.DB.Write(ctx, func(tx *store.Tx) error { return end(tx, ctx, o) }); ended != nil {
		return nil, ended
	}
	return answer, err
}

// digest tells requests apart: by method, address and body.
func digest(r *request, b *body.Body) string {
	h := sha256.New()
	for _, part := range []string{r.Method, r.URL.EscapedPath(), r.URL.RawQuery} {
		_, _ = h.Write([]byte(part + "\n"))
	}
	if b != nil {
		b.Sent(h)
	}
	return hex.EncodeToString(h.Sum(nil))
}
