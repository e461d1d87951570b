package cypress_test

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"runbell/internal/auth"
	"runbell/internal/body"
	"runbell/internal/intake"
	"runbell/internal/intake/cypress"
	"runbell/internal/lifecycle"
	"runbell/internal/store"
	"runbell/internal/testkit"
)

// TestBodiesWithoutCredentialsAreNotRead: a request for a run that does not exist, or for an instance without its
// credential, gets its response before its body is read.
func TestBodiesWithoutCredentialsAreNotRead(t *testing.T) {
	db := testkit.SQLite(t)
	h, _ := newServer(t, db)
	runID, _ := start(t, h, `{"projectId":"demo","ciBuildId":"b1","specs":["a.js"]}`)
	var public string
	if err := db.Read(t.Context(), func(tx *store.Tx) error {
		list, err := tx.Instances(t.Context(), runID)
		public = list[0].ID
		return err
	}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ method, path string }{
		{"POST", "/runs/nobody/instances"}, {"POST", "/runs/nobody/cy/instances"},
		{"POST", "/instances/nobody/tests"}, {"POST", "/instances/nobody/results"},
		{"POST", "/instances/nobody/cy/results"}, {"PUT", "/instances/nobody/stdout"},
		{"POST", "/instances/" + public + "/results"},
		{"POST", "/instances/nobody/something"}, {"POST", "/preflight"},
	} {
		for _, length := range []int64{2, 20 << 20, -1} {
			r := httptest.NewRequest(c.method, c.path, unread{t})
			r.ContentLength = length
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != http.StatusNotFound {
				t.Errorf("%s %s: %d %s", c.method, c.path, w.Code, w.Body)
			}
		}
	}
}

type unread struct{ t *testing.T }

func (u unread) Read([]byte) (int, error) {
	u.t.Error("the body was read")
	return 0, io.EOF
}

// TestBombs: the decompressed and decoded size of a body is limited, for clients with and without credentials, in
// fields that are read and in those that are not.
func TestBombs(t *testing.T) {
	db := testkit.SQLite(t)
	mux := http.NewServeMux()
	keys := auth.New(db, auth.KeysOnly)
	cypress.Routes(mux, intake.Options{Bodies: body.NewPools(), Runs: lifecycle.New(db, "http://runbell.test", func(...string) {}), Keys: keys, Reporters: auth.NewReporters(make([]byte, 32)), Log: slog.New(slog.DiscardHandler)})
	open, _ := newServer(t, db)
	runID, machineID := start(t, open, `{"projectId":"demo","ciBuildId":"b1","specs":["a.js"]}`)
	instance := claim(t, open, runID, machineID).field("instanceId")

	many := func(s string) string { return strings.Repeat(s+",", 1<<20) + s }
	stranger := `"projectId":"demo","recordKey":"none"`
	for _, c := range []struct {
		name, path, body string
		code             int
	}{
		{"tests", "/instances/" + instance + "/results", `{"tests":[` + many(`{}`) + `]}`, 413},
		{"attempts", "/instances/" + instance + "/results", `{"tests":[{"state":"failed","attempts":[` + many(`{}`) + `]}]}`, 413},
		{"screenshots", "/instances/" + instance + "/results", `{"screenshots":[` + many(`{}`) + `]}`, 413},
		{"an ignored list", "/instances/" + instance + "/results", `{"tests":[],"x":[` + many(`1`) + "," + many(`1`) + `]}`, 413},
		{"ignored lists in each other", "/instances/" + instance + "/results", `{"tests":[],"x":` + strings.Repeat("[", 1<<20), 413},
		{"a title", "/instances/" + instance + "/tests", `{"tests":[{"title":[` + many(`null`) + `]}]}`, 413},
		{"hooks", "/instances/" + instance + "/tests", `{"tests":[],"hooks":[` + many(`{}`) + `]}`, 413},
		{"a long string", "/instances/" + instance + "/tests", `{"tests":[{"title":["` + strings.Repeat("x", 5<<20) + `"]}]}`, 413},
		{"a long number", "/instances/" + instance + "/results", `{"tests":[],"x":` + strings.Repeat("1", 5<<20) + `}`, 413},
		{"white space", "/instances/" + instance + "/results", `{"tests":` + strings.Repeat(" ", 5<<20) + `[]}`, 413},
		{"a claim", "/runs/" + runID + "/instances", `{"platform":[` + many(`0`)[:900<<10] + `0]}`, 413},
		{"a stranger's specs", "/runs", `{` + stranger + `,"specs":[` + many(`""`) + `]}`, 413},
		{"a stranger's parameters", "/runs", `{"ci":{"params":{` + many(`"a":{}`) + `}},` + stranger + `}`, 413},
		{"a stranger's names", "/runs", `{` + strings.Repeat(`"projectId":"x",`, 900_000) + stranger + `}`, 413},
		{"a stranger without a key", "/runs", `{"specs":[` + strings.TrimSuffix(strings.Repeat(`"a.js",`, 9_000), ",") + `],` + stranger + `}`, 401},
		{"white space of a stranger", "/runs", `{` + stranger + strings.Repeat(" ", 15<<20) + `}`, 413},
		{"a stranger's text", "/runs", `{"x":[` + strings.Repeat(`"`+strings.Repeat("x", 200<<10)+`",`, 70) + `1],` + stranger + `}`, 401},
	} {
		for _, packed := range []bool{false, true} {
			text, headers := c.body, []string(nil)
			code := c.code
			if packed {
				text, headers = zip(t, c.body), []string{"Content-Encoding", "gzip"}
				if c.name == "a stranger's text" {
					code = 413 // the ratio
				}
			}
			var a answer
			cost := testkit.Allocated(func() { a = send(t, mux, "POST", c.path, text, headers...) })
			if a.Code != code {
				t.Errorf("%s, packed %v: %d %.200s; want %d", c.name, packed, a.Code, a.Body, code)
			}
			if limit := uint64(4*len(text) + 2<<20); cost > limit {
				t.Errorf("%s, packed %v: %d bytes cost %d, more than %d", c.name, packed, len(text), cost, limit)
			}
		}
	}
}
