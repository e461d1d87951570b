package intake

import (
	"context"
	"log/slog"
	"net/http"

	"runbell/internal/artifact"
	"runbell/internal/auth"
	"runbell/internal/body"
	"runbell/internal/lifecycle"
	"runbell/internal/web"
)

// Options are what a protocol works with.
type Options struct {
	Runs *lifecycle.Service
	Keys *auth.Keys
	// Reporters makes and checks the ids that clients work with.
	Reporters *auth.Reporters
	// Artifacts receives what clients upload; nil if nothing is kept.
	Artifacts *artifact.Service
	Bodies    body.Pools
	Log       *slog.Logger
}

// Route is a request of a protocol.
type Route struct {
	Pattern string // for [http.ServeMux]
	Limits  body.Limits
	// Check translates the id in the path to the one that is stored, or returns an
	// error if there is none. It runs before the body is read. It may be nil.
	Check func(ctx context.Context, id string) (string, error)
	// Known means that only clients that got the id in the path have it, so their bodies do not share memory with
	// those of strangers.
	Known bool
	// Serve returns the response, or an error. It does not keep the body.
	Serve func(r *http.Request, id string, b *body.Body) (any, error)
}

// Handle adds routes to a mux.
func Handle(mux *http.ServeMux, o Options, routes ...Route) {
	for _, rt := range routes {
		mux.Handle(rt.Pattern, o.answer(func(w http.ResponseWriter, r *http.Request) (any, error) {
			return rt.serve(o, w, r)
		}))
	}
}

// NotServed responds to requests that the protocol does not serve, with the error that explain returns.
func NotServed(mux *http.ServeMux, o Options, explain func(*http.Request) error, patterns ...string) {
	for _, p := range patterns {
		mux.Handle(p, o.answer(func(w http.ResponseWriter, r *http.Request) (any, error) {
			body.Refuse(w)
			return nil, explain(r)
		}))
	}
}

func (rt Route) serve(o Options, w http.ResponseWriter, r *http.Request) (any, error) {
	var id string
	if rt.Check != nil {
		var err error
		if id, err = rt.Check(r.Context(), PathID(r)); err != nil {
			body.Refuse(w)
			return nil, err
		}
	}
	pool := o.Bodies.Strangers
	if rt.Known {
		pool = o.Bodies.Known
	}
	b, err := pool.Receive(w, r, rt.Limits)
	if err != nil {
		return nil, err
	}
	defer b.Release()
	return rt.Serve(r, id, b)
}

// failure is the form of every error. Clients read message and errors of a 422
// and print them; of other errors they print the status (lib/httpClient of
// cypress-cloud; recording ccy-claim-422).
type failure struct {
	Message string   `json:"message"`
	Errors  []string `json:"errors"`
	Code    string   `json:"code,omitempty"` // read by native clients
}

func (o Options) answer(f func(http.ResponseWriter, *http.Request) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v, err := f(w, r)
		if err == nil {
			web.WriteJSON(w, http.StatusOK, v)
			return
		}
		web.LogInternal(o.Log, r, err)
		p := web.ProblemOf(err)
		details := p.Details
		if details == nil {
			details = []string{}
		}
		web.WriteJSON(w, p.Status, failure{Message: p.Message, Errors: details, Code: p.Code})
	})
}
