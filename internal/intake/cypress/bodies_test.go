package cypress

import (
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"runbell/internal/web"
)

// TestWhatWasReadOutlivesItsBody: the memory of a body is used for the next one,
// and nothing that was decoded from it changes.
func TestWhatWasReadOutlivesItsBody(t *testing.T) {
	const tests = `{"config":{"video":"AAAA","retries":{"runMode":"AAAA"}},"tests":[{"clientId":"AAAA","title":["AAAA"],"body":"A\nAA"}],"hooks":[{"hookId":"AAAA"}]}`
	const results = `{"tests":[{"clientId":"AAAA","state":"AAAA","attempts":[{"state":"AAAA","error":{"name":"AAAA","message":"A\nAA"}}]}],"video":"AAAA","exception":"AAAA"}`
	for name, c := range map[string]struct {
		body string
		into func() any
	}{
		"tests":   {tests, func() any { return new(testsRequest) }},
		"results": {results, func() any { return new(resultsRequest) }},
		"both":    {`{"tests":` + tests + `,"results":` + results + `}`, func() any { return new(batchResultsRequest) }},
		"claim":   {`{"groupId":"AAAA","machineId":"AAAA","spec":"AAAA","late":"AAAA"}`, func() any { return new(claimRequest) }},
		"stdout":  {`{"stdout":"AAAA"}`, func() any { return new(stdoutRequest) }},
	} {
		t.Run(name, func(t *testing.T) {
			h := &handler{}
			read := func(body string, into any) {
				t.Helper()
				r := httptest.NewRequest("POST", "/", strings.NewReader(body))
				if err := h.readJSON(httptest.NewRecorder(), r, maxResultsBody, "", into); err != nil {
					t.Fatal(err)
				}
			}
			first, want := c.into(), c.into()
			if err := web.ParseJSON([]byte(c.body), want, false); err != nil {
				t.Fatal(err)
			}
			read(c.body, first)
			for range 20 { // the pool hands out what it likes
				read(strings.ReplaceAll(c.body, "A", "B"), c.into())
			}
			if !reflect.DeepEqual(first, want) {
				t.Errorf("after other bodies it is %+v, want %+v", first, want)
			}
		})
	}
}
