package api

import (
	"net/http"
	"net/url"
	"reflect"

	"runbell/internal/auth"
	"runbell/internal/body"
)

// request is an admitted request.
type request struct {
	*http.Request
	query url.Values
	by    auth.Program // whose key it has; zero where none is needed
}

func (r *request) id() string { return r.PathValue("id") }

// handler serves a route. It knows the types of its body and of its answer, so
// that the OpenAPI document says what is really read and written.
type handler struct {
	serve    func(r *request, b *body.Body) (data any, more bool, err error)
	status   int
	list     bool
	body     reflect.Type // nil: no body is read
	optional bool         // the body may be empty
	data     reflect.Type
}

const (
	ok      = http.StatusOK
	created = http.StatusCreated
)

// get is a handler without a body.
func get[T any](f func(*request) (T, error)) handler {
	return handler{
		serve: func(r *request, _ *body.Body) (any, bool, error) {
			data, err := f(r)
			return data, false, err
		},
		status: ok,
		data:   reflect.TypeFor[T](),
	}
}

// list is a handler that answers a list, and whether there is more.
func list[T any](f func(*request) ([]T, bool, error)) handler {
	return handler{
		serve: func(r *request, _ *body.Body) (any, bool, error) {
			data, more, err := f(r)
			if data == nil {
				data = []T{}
			}
			return data, more, err
		},
		status: ok,
		list:   true,
		data:   reflect.TypeFor[[]T](),
	}
}

// takes is a handler with a body.
func takes[B, T any](f func(*request, B) (T, error)) handler {
	return handler{
		serve: func(r *request, in *body.Body) (any, bool, error) {
			var b B
			if err := in.Decode(&b, true); err != nil {
				return nil, false, err
			}
			data, err := f(r, b)
			return data, false, err
		},
		status: ok,
		body:   reflect.TypeFor[B](),
		data:   reflect.TypeFor[T](),
	}
}

// creates is takes, answering 201.
func creates[B, T any](f func(*request, B) (T, error)) handler {
	h := takes(f)
	h.status = created
	return h
}

// mayTake is takes with a body that may be empty.
func mayTake[B, T any](status int, f func(*request, B) (T, error)) handler {
	h := takes(f)
	decoded := h.serve
	h.serve = func(r *request, in *body.Body) (any, bool, error) {
		if !in.Empty() {
			return decoded(r, in)
		}
		var b B
		data, err := f(r, b)
		return data, false, err
	}
	h.status, h.optional = status, true
	return h
}
