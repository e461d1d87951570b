package app

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
)

// remote is the flags of all commands that talk to a server.
type remote struct {
	Server string `help:"Address of the server." var:"RUNBELL_URL" default:"http://localhost:8484" placeholder:"URL"`
	APIKey string `help:"API key; better in the environment than on the command line, which others can see." var:"RUNBELL_API_KEY" secret:"" placeholder:"KEY"`
	JSON   bool   `name:"json" help:"Print the data of the API unchanged."`
}

// AfterApply makes a session of the flags, for the command to use.
func (r *remote) AfterApply(k *kong.Context, s *streams) error {
	c, err := newClient(r.Server, r.APIKey)
	if err != nil {
		return err
	}
	k.Bind(&session{client: c, streams: s, json: r.JSON})
	return nil
}

// client calls the REST API.
type client struct {
	base string // without a trailing slash; may have a password in it
	name string // base as messages say it, without the password
	key  string
	http *http.Client
}

// answerLimit bounds what is read of one answer.
const answerLimit = 64 << 20

func newClient(server, key string) (*client, error) {
	u, err := url.Parse(server)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		given := ""
		if !strings.Contains(server, "@") { // or there may be a password in it
			given = fmt.Sprintf(", not %q", server)
		}
		return nil, usagef("the address of the server (RUNBELL_URL) must be a URL such as http://localhost:8484%s", given)
	}
	return &client{base: strings.TrimRight(server, "/"), name: strings.TrimRight(u.Redacted(), "/"), key: key, http: &http.Client{Timeout: time.Minute}}, nil
}

// answer is the envelope of the REST API.
type answer struct {
	Status  string          `json:"status"`
	Error   string          `json:"error"`
	Data    json.RawMessage `json:"data"`
	HasMore bool            `json:"has_more"`
}

// apiError is a refusal by the server.
type apiError struct {
	status int
	text   string
}

func (e *apiError) Error() string { return e.text }

func isNotFound(err error) bool {
	e, ok := errors.AsType[*apiError](err)
	return ok && e.status == http.StatusNotFound
}

// do sends a request; body is nil or becomes JSON.
func (c *client) do(ctx context.Context, method, path string, query url.Values, body any) (answer, error) {
	var payload io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return answer{}, err
		}
		payload = bytes.NewReader(b)
	}
	target := c.base + "/v1" + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, target, payload)
	if err != nil {
		return answer{}, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.key != "" {
		req.Header.Set("Authorization", "Bearer "+c.key)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return answer{}, c.unreachable(err)
	}
	defer func() { _ = resp.Body.Close() }()
	return c.read(resp)
}

func (c *client) read(resp *http.Response) (answer, error) {
	b, err := io.ReadAll(io.LimitReader(resp.Body, answerLimit))
	if err != nil {
		return answer{}, c.unreachable(err)
	}
	var a answer
	parsed := len(b) > 0 && json.Unmarshal(b, &a) == nil
	switch {
	case resp.StatusCode == http.StatusUnauthorized:
		if c.key == "" {
			return a, &apiError{resp.StatusCode, "the server wants an API key: set RUNBELL_API_KEY to one (the first is the RUNBELL_API_KEY that 'runbell serve' was started with)"}
		}
		return a, &apiError{resp.StatusCode, fmt.Sprintf("the server at %s does not know this API key: check RUNBELL_API_KEY", c.name)}
	case resp.StatusCode/100 == 2 && (parsed || len(b) == 0):
		return a, nil
	case parsed && a.Error != "":
		return a, &apiError{resp.StatusCode, a.Error}
	default:
		return a, &apiError{resp.StatusCode, fmt.Sprintf("%s does not answer like a Runbell server (%s): check RUNBELL_URL", c.name, resp.Status)}
	}
}

// unreachable says what to do about a request without an answer.
func (c *client) unreachable(err error) error {
	if inner, ok := errors.AsType[*url.Error](err); ok {
		err = inner.Err // the URL is in our own words already
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("nothing answers at %s: is 'runbell serve' running there? (RUNBELL_URL says where to look)", c.name)
	}
	return fmt.Errorf("cannot reach %s: %w", c.name, err)
}

// into decodes the data of an answer.
func (a answer) into(v any) error {
	if err := json.Unmarshal(a.Data, v); err != nil {
		return fmt.Errorf("the server's answer is not what this version of runbell expects: %w", err)
	}
	return nil
}

// pageSize is the largest page the API gives.
const pageSize = 100

// list follows a list through its pages up to limit items; 0 is all of them.
func (c *client) list(ctx context.Context, path string, query url.Values, limit int) (json.RawMessage, error) {
	if query == nil {
		query = url.Values{}
	}
	items := []json.RawMessage{}
	for {
		size := pageSize
		if limit > 0 {
			size = min(size, limit-len(items))
		}
		query.Set("limit", fmt.Sprint(size))
		a, err := c.do(ctx, http.MethodGet, path, query, nil)
		if err != nil {
			return nil, err
		}
		var page []json.RawMessage
		if err := a.into(&page); err != nil {
			return nil, err
		}
		items = append(items, page...)
		if !a.HasMore || len(page) == 0 || (limit > 0 && len(items) >= limit) {
			return json.Marshal(items)
		}
		var last struct {
			Cursor string `json:"cursor"`
		}
		if err := json.Unmarshal(page[len(page)-1], &last); err != nil || last.Cursor == "" {
			return nil, fmt.Errorf("the server says there is more, and not where")
		}
		query.Set("starting_after", last.Cursor)
	}
}
