package intake_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"

	"runbell/internal/intake"
)

func TestParamsKeepWhatNamesABuild(t *testing.T) {
	long := strings.Repeat("x", 3000)
	for body, want := range map[string]intake.Params{
		`null`: nil,
		`[1]`:  nil,
		`{}`:   {},
		`{"id":"7","number":12345678901234567890,"yes":true,"no":null,"list":["a"],"object":{"a":1}}`:                                      {"id": "7", "number": "12345678901234567890", "yes": "true"},
		`{"ciJobToken":"x","MY_SECRET":"x","dbPassword":"x","apiKey":"x","api_key":"x","privateKey":"x","url":"https://u:p@h.test/r.git"}`: {"url": "https://h.test/r.git"},
		`{"long":"` + long + `","` + long + `":"v","nul":"a\u0000b"}`:                                                                      {"long": long[:2048] + "…", "nul": "a\uFFFDb"},
	} {
		var got intake.Params
		if err := json.Unmarshal([]byte(body), &got); err != nil {
			t.Errorf("%.80s: %v", body, err)
		} else if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%.80s (-want +got):\n%s", body, diff)
		}
	}
	var many strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&many, `,"p%d":"v"`, i)
	}
	var got intake.Params
	if err := json.Unmarshal([]byte("{"+many.String()[1:]+"}"), &got); err != nil || len(got) != 100 || got["p99"] != "v" {
		t.Errorf("of 1000 parameters %d are kept, %v; want the first 100", len(got), err)
	}
}
