package recorder

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// What Cypress 13.17 said of a spec with retries, and when its tests really began: each
// told that to a task.
func TestPlaceOfARecording(t *testing.T) {
	b, err := os.ReadFile("testdata/cypress-13.17.0.json")
	if err != nil {
		t.Fatal(err)
	}
	var recorded struct {
		Began  int64
		Result runResult
	}
	if err := json.Unmarshal(b, &recorded); err != nil {
		t.Fatal(err)
	}
	r := recorded.Result
	r.place(recorded.Began)
	var shots []string
	for _, test := range r.Tests {
		for n, a := range test.Attempts {
			for _, s := range a.Screenshots {
				shots = append(shots, fmt.Sprintf("%s/%d %s", test.Title[1], n+1, s.Path[strings.LastIndexByte(s.Path, '/')+1:]))
			}
		}
	}
	want := []string{"fails twice/1 shop -- fails twice (failed).png", "fails twice/2 shop -- fails twice (failed) (attempt 2).png",
		"fails twice/3 mine (attempt 3).png", "fails twice/3 shop -- fails twice (attempt 3).png", `passes/slowly: "yes"/1 mine.png`,
		"fails ever/1 shop -- fails ever (failed).png", "fails ever/2 shop -- fails ever (failed) (attempt 2).png", "fails ever/3 shop -- fails ever (failed) (attempt 3).png"}
	if !slices.Equal(shots, want) || len(r.Screenshots) != 0 {
		t.Errorf("screenshots\n%q, want\n%q; %d are nobody's", shots, want, len(r.Screenshots))
	}
	began := map[string]float64{"fails twice/1": 2190, "fails twice/3": 5450, `passes/slowly: "yes"/1`: 7710, "fails ever/1": 10210, "fails ever/2": 11850,
		"fails ever/3": 13140, "last/1": 14370}
	for _, test := range r.Tests {
		for n, a := range test.Attempts {
			name := fmt.Sprintf("%s/%d", test.Title[1], n+1)
			if want := began[name]; want > 0 && (a.VideoTimestamp < want-1000 || a.VideoTimestamp > want+100) {
				t.Errorf("%s began at %v, and is shown from %v", name, want, a.VideoTimestamp)
			}
			delete(began, name)
		}
	}
	if len(began) != 0 {
		t.Errorf("nothing is known of %v", began)
	}
}

// Screenshots go to the test whose titles their file has, those with a name to the test that
// ran then, and to nobody in doubt.
func TestPlaceScreenshots(t *testing.T) {
	begin := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	long := strings.Repeat("long ", 60)
	results := func() runResult {
		var r runResult
		r.Stats.StartedAt, r.Stats.EndedAt = begin.Format(time.RFC3339Nano), begin.Add(10*time.Second).Format(time.RFC3339Nano)
		for _, title := range []string{"first", `is "odd": <50 %>/ok.`, "first", "never", long} {
			test := testResult{Title: []string{"a b", title}, State: "failed", Duration: 2000, Attempts: []attemptResult{{State: "failed"}, {State: "failed"}}}
			if title == "never" {
				test.State, test.Duration, test.Attempts = "skipped", 0, test.Attempts[:1]
			}
			r.Tests = append(r.Tests, test)
		}
		return r
	}
	for name, c := range map[string]struct {
		file string
		name string // given by the test
		at   time.Duration
		want string
	}{
		"of a failure":                  {"a b -- is odd 50 %ok (failed).png", "", 3 * time.Second, "1/0"},
		"of another attempt":            {"a b -- is odd 50 %ok (failed) (attempt 2).png", "", 3 * time.Second, "1/1"},
		"of a hook":                     {"a b -- never -- before all hook (failed).png", "", 3 * time.Second, "3/0"},
		"the second of that name":       {"a b -- is odd 50 %ok (1).png", "", 3 * time.Second, "1/0"},
		"titles that are there twice":   {"a b -- first (failed).png", "", 5 * time.Second, "2/0"},
		"a title that was cut":          {"a b -- " + long[:200] + " (failed).png", "", 9 * time.Second, "4/0"},
		"a title that is not there":     {"a b -- other (failed).png", "", 3 * time.Second, "nobody"},
		"an attempt that was not":       {"a b -- first (failed) (attempt 7).png", "", time.Second, "nobody"},
		"a path of Windows":             {`C:\shop\cypress\screenshots\a.cy.js\a b -- first (failed).png`, "", time.Second, "0/0"},
		"with a name":                   {"folder/mine.png", "folder/mine", 3 * time.Second, "1/0"},
		"with a name, another attempt":  {"mine (attempt 2).png", "mine", 8 * time.Second, "4/1"},
		"with a name, before all tests": {"mine.png", "mine", -time.Second, "nobody"},
	} {
		t.Run(name, func(t *testing.T) {
			r := results()
			s := screenshotResult{Path: c.file, TakenAt: begin.Add(c.at).Format(time.RFC3339Nano)}
			if c.name != "" {
				s.Name = &c.name
			}
			r.Screenshots = []screenshotResult{s}
			r.place(0)
			got := "nobody"
			for i, test := range r.Tests {
				for n, a := range test.Attempts {
					if len(a.Screenshots) > 0 {
						got = fmt.Sprintf("%d/%d", i, n)
					}
				}
			}
			if got != c.want || (got == "nobody") != (len(r.Screenshots) == 1) {
				t.Errorf("it belongs to %s, want %s", got, c.want)
			}
		})
	}
}
