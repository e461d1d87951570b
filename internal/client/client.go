// Package client calls the REST API of a Runbell server. It knows nothing of the
// server's packages: other programs may use it as the commands do.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Client calls one server. Its methods return an [*Error] where the server
// refused, and an [*Unreachable] where it did not answer.
type Client struct {
	base *url.URL
	key  string
	http *http.Client
}

// answerLimit bounds what is read of one answer, in bytes.
const answerLimit = 64 << 20

// New makes a client for the server at a URL. key is an API key; without one, the
// server refuses most calls.
func New(server, key string) (*Client, error) {
	u, err := url.Parse(server)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		// What cannot be parsed is not repeated if there may be a password in it.
		given := ""
		if !strings.Contains(server, "@") {
			given = fmt.Sprintf(", not %q", server)
		}
		return nil, errors.New("the address of the server must be a URL such as http://localhost:8484" + given)
	}
	u.Path, u.RawPath, u.RawQuery, u.Fragment = strings.TrimRight(u.Path, "/"), "", "", ""
	return &Client{base: u, key: key, http: &http.Client{Timeout: time.Minute}}, nil
}

// URL is the server's address as it may be shown: without a password.
func (c *Client) URL() string {
	shown := *c.base
	shown.User = nil
	return shown.String()
}

// Error is a refusal by the server.
type Error struct {
	Status  int // the HTTP status
	Message string
}

func (e *Error) Error() string { return e.Message }

// IsNotFound says whether the server knows no such thing.
func IsNotFound(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Status == http.StatusNotFound
}

// Unreachable is a call without an answer.
type Unreachable struct {
	URL     string // without a password
	Refused bool   // nothing listens there
	Err     error
}

func (e *Unreachable) Error() string {
	if e.Refused {
		return "nothing answers at " + e.URL
	}
	return fmt.Sprintf("cannot reach %s: %v", e.URL, e.Err)
}

func (e *Unreachable) Unwrap() error { return e.Err }

// Result is an answer: decoded, and as the server wrote it.
type Result[T any] struct {
	Value T
	JSON  json.RawMessage
}

// envelope is the form of every answer.
type envelope struct {
	Error   string          `json:"error"`
	Data    json.RawMessage `json:"data"`
	HasMore bool            `json:"has_more"`
}

// call sends one request; body is nil or becomes JSON.
func call[T any](ctx context.Context, c *Client, method, path string, query url.Values, body any) (Result[T], error) {
	a, err := c.do(ctx, method, path, query, body)
	if err != nil {
		return Result[T]{}, err
	}
	return decode[T](a.Data)
}

func decode[T any](data json.RawMessage) (Result[T], error) {
	r := Result[T]{JSON: data}
	if err := json.Unmarshal(data, &r.Value); err != nil {
		return r, fmt.Errorf("the server's answer is not what this version expects: %w", err)
	}
	return r, nil
}

const (
	// mostTries is how often a call is made while the server says that there were too many.
	mostTries = 10
	// longestWait is how long it waits before each, at most.
	longestWait = time.Minute
)

// do makes a call. If the server says that there were too many, it waits as long as that
// asks for and makes the call again: it had no effect.
func (c *Client) do(ctx context.Context, method, path string, query url.Values, body any) (envelope, error) {
	var payload []byte
	if body != nil {
		var err error
		if payload, err = json.Marshal(body); err != nil {
			return envelope{}, err
		}
	}
	target := c.base.String() + "/v1" + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	for try := 1; ; try++ {
		resp, err := c.send(ctx, method, target, payload)
		if err != nil {
			return envelope{}, c.unreachable(err)
		}
		a, err := c.read(resp)
		_ = resp.Body.Close()
		seconds, unknown := strconv.Atoi(resp.Header.Get("Retry-After"))
		wait := time.Duration(seconds) * time.Second
		if resp.StatusCode != http.StatusTooManyRequests || unknown != nil || wait > longestWait || try == mostTries {
			return a, err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return a, ctx.Err()
		}
	}
}

// send sends one request; payload is nil or JSON.
func (c *Client) send(ctx context.Context, method, target string, payload []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(payload))
	if err != nil {
		return nil, err
	}
	if payload != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.key != "" {
		req.Header.Set("Authorization", "Bearer "+c.key)
	}
	return c.http.Do(req)
}

func (c *Client) read(resp *http.Response) (envelope, error) {
	b, err := io.ReadAll(io.LimitReader(resp.Body, answerLimit))
	if err != nil {
		return envelope{}, c.unreachable(err)
	}
	var a envelope
	parsed := json.Unmarshal(b, &a) == nil
	switch {
	case resp.StatusCode == http.StatusUnauthorized && c.key == "":
		return a, &Error{resp.StatusCode, fmt.Sprintf("the server at %s requires an API key", c.URL())}
	case resp.StatusCode == http.StatusUnauthorized:
		return a, &Error{resp.StatusCode, fmt.Sprintf("the server at %s rejected the API key", c.URL())}
	case resp.StatusCode/100 == 2 && parsed && len(a.Data) > 0:
		return a, nil
	case parsed && a.Error != "":
		return a, &Error{resp.StatusCode, a.Error}
	default:
		return a, &Error{resp.StatusCode,
			fmt.Sprintf("%s does not respond like a Runbell server (%s): check the URL", c.URL(), resp.Status)}
	}
}

func (c *Client) unreachable(err error) error {
	if inner, ok := errors.AsType[*url.Error](err); ok {
		err = inner.Err // its text has the whole URL
	}
	return &Unreachable{URL: c.URL(), Refused: errors.Is(err, syscall.ECONNREFUSED), Err: err}
}

// pageSize is the largest page the API gives.
const pageSize = 100

// list follows a list through its pages, up to limit items; 0 is all of them.
func list[T any](ctx context.Context, c *Client, path string, query url.Values, limit int) (Result[[]T], error) {
	return listBy[T](ctx, c, path, query, limit, pageSize)
}

// listBy is list with pages of a size.
func listBy[T any](ctx context.Context, c *Client, path string, query url.Values,
	limit, most int) (Result[[]T], error) {
	if query == nil {
		query = url.Values{}
	}
	items := []json.RawMessage{}
	for {
		size := most
		if limit > 0 {
			size = min(size, limit-len(items))
		}
		query.Set("limit", strconv.Itoa(size))
		a, err := c.do(ctx, http.MethodGet, path, query, nil)
		if err != nil {
			return Result[[]T]{}, err
		}
		page, err := decode[[]json.RawMessage](a.Data)
		if err != nil {
			return Result[[]T]{}, err
		}
		items = append(items, page.Value...)
		if !a.HasMore || len(page.Value) == 0 || (limit > 0 && len(items) >= limit) {
			all, err := json.Marshal(items)
			if err != nil {
				return Result[[]T]{}, err
			}
			return decode[[]T](all)
		}
		last, err := decode[struct {
			Cursor string `json:"cursor"`
		}](page.Value[len(page.Value)-1])
		if err != nil {
			return Result[[]T]{}, err
		}
		if last.Value.Cursor == "" {
			return Result[[]T]{}, errors.New("the server says there is more, but not where")
		}
		query.Set("starting_after", last.Value.Cursor)
	}
}

// Setting is a field of a request that may be left out, set, or set to null.
type Setting[T any] struct {
	given bool
	value *T
}

// Set sets a field.
func Set[T any](v T) Setting[T] { return Setting[T]{true, &v} }

// Null sets a field to null: the thing has none from then on.
func Null[T any]() Setting[T] { return Setting[T]{given: true} }

// IsZero says that the field is left out.
func (s Setting[T]) IsZero() bool { return !s.given }

// MarshalJSON writes the value or null.
func (s Setting[T]) MarshalJSON() ([]byte, error) { return json.Marshal(s.value) }

// segment is an id as part of a path.
func segment(id string) string { return "/" + url.PathEscape(id) }
