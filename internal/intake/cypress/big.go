package cypress

import (
	"context"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/sync/semaphore"

	"runbell/internal/run"
)

// Bodies up to smallBody are read as they come. Larger ones take turns, so that
// a few clients, who need no key here, cannot take all memory: reading one costs
// several times its size.
const (
	smallBody = 1 << 20
	bigBodies = maxResultsBody   // of all that are being read at once
	bigWait   = 20 * time.Second // then 503, after which clients try again
	freeAfter = 8 << 20          // give the memory of such a body back at once
)

type turns struct{ *semaphore.Weighted }

func newTurns() turns { return turns{semaphore.NewWeighted(bigBodies)} }

// take waits until the body of a request may be read. The returned function
// must be called when the request is done with.
func (t turns) take(r *http.Request) (done func(), err error) {
	weight := r.ContentLength
	if weight < 0 || r.Header.Get("Content-Encoding") != "" {
		weight = bigBodies // nobody knows yet
	}
	if weight <= smallBody {
		return func() {}, nil
	}
	weight = min(weight, bigBodies)
	ctx, cancel := context.WithTimeout(r.Context(), bigWait)
	defer cancel()
	if err := t.Acquire(ctx, weight); err != nil {
		return nil, run.Errorf(run.Unavailable, "The server is busy with other large requests: try again.")
	}
	return func() {
		t.Release(weight)
		if r.ContentLength > freeAfter {
			debug.FreeOSMemory()
		}
	}, nil
}

// isBig says that a body is worth a question before it is read.
func isBig(r *http.Request) bool {
	return (r.ContentLength < 0 || r.ContentLength > smallBody) && strings.HasPrefix(r.URL.Path, "/instances/")
}
