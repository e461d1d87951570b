package cypress

import (
	"bytes"
	"encoding/json"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"runbell/internal/body"
	"runbell/internal/intake"
	"runbell/internal/run"
	"runbell/internal/testkit"
)

// seed gives a fuzz target the bodies that real clients sent to a route, and
// some that none would.
func seed(f *testing.F, route string, more ...string) {
	for _, name := range []string{"ccy-vs-sorrycypress-single-machine", "ccy-batched-currents-mode", "ccy-uploads", "ccy-ci-env-github"} {
		text, err := os.ReadFile("testdata/" + name + ".json")
		if err != nil {
			f.Fatal(err)
		}
		var exchanges []struct {
			Request struct {
				Path string
				Body json.RawMessage
			}
		}
		if err := json.Unmarshal(text, &exchanges); err != nil {
			f.Fatal(err)
		}
		for _, e := range exchanges {
			if !strings.HasSuffix(e.Request.Path, route) {
				continue
			}
			var b bytes.Buffer
			if err := json.Compact(&b, e.Request.Body); err != nil {
				f.Fatal(err)
			}
			f.Add(b.Bytes())
		}
	}
	for _, s := range append(more, ``, `{}`, `[]`, `null`, `{"a":`, "\x00", `"\ud800"`, "\xff", `{"a":1,"a":2}`) {
		f.Add([]byte(s))
	}
}

// decode decodes a body as a route does, but with fewer values, so that a short
// body reaches the limits. What that costs is held to the size of the body and to
// these limits.
func decode[T any](t *testing.T, l body.Limits, text []byte, v *T) (err error) {
	t.Helper()
	l.Values, l.Groups = 1000, 300
	pool := body.NewPools().Known
	once := func(v *T) error {
		b, err := pool.Receive(httptest.NewRecorder(), httptest.NewRequest("POST", "/", bytes.NewReader(text)), l)
		if err != nil {
			return err
		}
		defer b.Release()
		return b.Decode(v, false)
	}
	_ = once(new(T)) // what is made once for all bodies
	const perByte, perValue, perGroup, free = 6, 48, 320, 64 << 10
	most := uint64(perByte*len(text) + perValue*l.Values + perGroup*l.Groups + free)
	if cost := testkit.Allocated(func() { err = once(v) }); cost > most {
		t.Fatalf("%d bytes cost %d: more than %d", len(text), cost, most)
	}
	return err
}

// many is a list that is over the limits of decode.
func many(s string) string { return "[" + strings.Repeat(s+",", 10_000) + s + "]" }

// ours fails the test if an error is not one that a client may read.
func ours(t *testing.T, err error) {
	if kind := run.KindOf(err); kind != run.Invalid && kind != run.Refused && kind != run.TooLarge {
		t.Fatalf("an error of kind %d: %v", kind, err)
	}
}

func FuzzJoin(f *testing.F) {
	seed(f, "/runs", `{"projectId":1,"specs":["a"],"ciBuildId":7,"autoCancelAfterFailures":true}`,
		`{"projectId":"p","specs":["a","a"],"ci":{"params":{"a":{},"b":1e999,"myToken":"x"}},"commit":{"remoteOrigin":"https://u:p@h/x"}}`,
		`{"projectId":"p","specs":`+many(`""`)+`}`, `{"projectId":"p","tags":`+many(`"a"`)+`}`)
	f.Fuzz(func(t *testing.T, text []byte) {
		var m runRequest
		if err := decode(t, runLimits, text, &m); err != nil {
			ours(t, err)
			return
		}
		j, err := m.join()
		if err != nil {
			ours(t, err)
			return
		}
		seen := map[string]bool{}
		for _, s := range j.Specs {
			if s == "" || seen[s] || len(s) > run.MaxSpecLength {
				t.Fatalf("spec %q was accepted", s)
			}
			seen[s] = true
		}
		if len(j.Specs) == 0 || len(j.Specs) > run.MaxSpecs || j.ProjectID == "" || len(j.Tags) > run.MaxTags || len(j.CI.Params) > 100 {
			t.Fatalf("accepted: %+v", j)
		}
		if j.FailFast != nil && *j.FailFast < 0 {
			t.Fatalf("a negative limit was accepted: %d", *j.FailFast)
		}
		for name := range j.CI.Params {
			if lower := strings.ToLower(name); strings.Contains(lower, "token") || strings.Contains(lower, "secret") {
				t.Fatalf("CI parameter %q is kept", name)
			}
		}
		for _, s := range []string{j.CIBuildID, j.Group, j.MachineID, j.Commit.Message, j.Commit.Branch, j.Platform.OSName} {
			if strings.ContainsRune(s, 0) {
				t.Fatalf("%q has a NUL, which a database would refuse", s)
			}
		}
	})
}

func FuzzClaim(f *testing.F) {
	seed(f, "/instances", `{"machineId":"m","spec":"b.js","batchSize":-1e300}`, `{"machineId":"m","groupId":null,"spec":null,"batchSize":1e300}`)
	f.Fuzz(func(t *testing.T, text []byte) {
		var m claimRequest
		if err := decode(t, claimLimits, text, &m); err != nil {
			ours(t, err)
			return
		}
		if n := m.limit(); n < 1 || n > maxBatch {
			t.Fatalf("a claim for %d specs", n)
		}
	})
}

func FuzzTests(f *testing.F) {
	seed(f, "/tests", `{"config":{"retries":{"runMode":{}}},"tests":[{"clientId":1,"title":null}],"hooks":[{}]}`,
		`{"config":{"env":{"password":"s3cret-s3cret"},"retries":1e300},"tests":null}`,
		`{"tests":`+many(`{}`)+`}`, `{"tests":[{"title":`+many(`"a"`)+`}]}`, `{"tests":[],"hooks":`+many(`{}`)+`}`)
	f.Fuzz(func(t *testing.T, text []byte) {
		var m testsRequest
		if err := decode(t, testsLimits, text, &m); err != nil {
			ours(t, err)
			return
		}
		a, err := m.announcement()
		if err != nil {
			ours(t, err)
			return
		}
		if len(a.Tests) != len(m.Tests) || len(a.Tests) > run.MaxTests {
			t.Fatalf("%d tests became %d", len(m.Tests), len(a.Tests))
		}
		stored(t, a)
	})
}

func FuzzResults(f *testing.F) {
	seed(f, "/results", `{"tests":null,"exception":"x\u0000","stats":{"duration":1e300}}`, `{"stats":{"wallClockDuration":-1}}`,
		`{"tests":[{"state":"passed","attempts":[{"error":{"codeFrame":{"line":-1e300}},"wallClockStartedAt":"9999-99-99"}]}]}`,
		`{"tests":`+many(`{}`)+`}`, `{"tests":[{"attempts":`+many(`{}`)+`}]}`, `{"tests":[],"screenshots":`+many(`{}`)+`}`)
	f.Fuzz(func(t *testing.T, text []byte) {
		var m resultsRequest
		if err := decode(t, resultsLimits, text, &m); err != nil {
			ours(t, err)
			return
		}
		checkOutcome(t, m)
	})
}

func FuzzBatchResults(f *testing.F) {
	seed(f, "/cy/results", `{"tests":null,"results":{}}`, `{"tests":{},"results":null}`,
		`{"results":{"tests":`+many(`{}`)+`}}`, `{"tests":{"tests":`+many(`{}`)+`},"results":{}}`)
	f.Fuzz(func(t *testing.T, text []byte) {
		var m batchResultsRequest
		if err := decode(t, resultsLimits, text, &m); err != nil {
			ours(t, err)
			return
		}
		if m.Tests != nil {
			if a, err := m.Tests.announcement(); err != nil {
				ours(t, err)
			} else {
				stored(t, a)
			}
		}
		if m.Results != nil {
			checkOutcome(t, *m.Results)
		}
	})
}

// checkOutcome: what is accepted adds up, and can be stored.
func checkOutcome(t *testing.T, m resultsRequest) {
	o, err := m.outcome()
	if err != nil {
		ours(t, err)
		return
	}
	c := run.Count(o.Results, o.Exception)
	want := len(o.Results)
	if want == 0 && o.Exception != "" {
		want = 1
	}
	if c.Overall() != want || c.Announced != 0 || c.Flaky > c.Passes || c.Retries < 0 {
		t.Fatalf("%d tests count to %+v", len(o.Results), c)
	}
	if o.Duration < 0 || o.Duration > 7*24*time.Hour || strings.ContainsRune(o.Exception, 0) {
		t.Fatalf("duration %s, exception %q", o.Duration, o.Exception)
	}
	stored(t, o)
}

// stored: a document is read as it was written.
func stored[T any](t *testing.T, v T) {
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatalf("cannot be stored: %v", err)
	}
	if bytes.ContainsRune(b, 0) {
		t.Fatal("the document has a NUL")
	}
	var again T
	if err := json.Unmarshal(b, &again); err != nil {
		t.Fatalf("what was stored cannot be read: %v", err)
	}
}

func FuzzStdout(f *testing.F) {
	seed(f, "/stdout", `{"stdout":"\u0000\u001b[31m"}`)
	f.Fuzz(func(t *testing.T, text []byte) {
		var m stdoutRequest
		if err := decode(t, stdoutLimits, text, &m); err != nil {
			ours(t, err)
			return
		}
		if m.Stdout != nil && strings.ContainsRune(intake.Clean(string(*m.Stdout)), 0) {
			t.Fatal("the output has a NUL")
		}
	})
}
