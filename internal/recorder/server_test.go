package recorder

import (
	"cmp"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"runbell/internal/auth"
	"runbell/internal/body"
	"runbell/internal/intake"
	"runbell/internal/intake/cypress"
	"runbell/internal/lifecycle"
	"runbell/internal/testkit"
)

// wire is a line to a server that is in this process, so that time can be
// virtual. It can be cut.
type wire struct {
	handler http.Handler
	cut     func() error // nil answers
}

func (w wire) RoundTrip(r *http.Request) (*http.Response, error) {
	if w.cut != nil {
		if err := w.cut(); err != nil {
			return nil, err
		}
	}
	rec := httptest.NewRecorder()
	w.handler.ServeHTTP(rec, r)
	return rec.Result(), nil
}

var errCut = errors.New("connection refused")

func quietServer(w wire, patience time.Duration) *server {
	s := newServer("http://runbell.test", "test", patience, func(string, ...any) {})
	s.http.Transport = w
	return s
}

// TestAnOutage: a minute without a server is waited for, longer ones are not,
// and once we know of one nothing waits again.
func TestAnOutage(t *testing.T) {
	for _, c := range []struct {
		outage time.Duration
		ok     bool
	}{{0, true}, {60 * time.Second, true}, {110 * time.Second, true}, {3 * time.Minute, false}} {
		t.Run(c.outage.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				var attempts []int
				s := quietServer(wire{
					cut: func() error {
						if time.Since(began) < c.outage {
							return errCut
						}
						return nil
					},
					handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						n, err := strconv.Atoi(r.Header.Get("X-Cypress-Request-Attempt"))
						if err != nil {
							t.Error(err)
						}
						attempts = append(attempts, n)
						fmt.Fprint(w, `{"specs":[]}`)
					})}, 2*time.Minute)
				_, err := s.claim(t.Context(), joined{}, 1)
				took := time.Since(began)
				if c.ok {
					if err != nil || took < c.outage || took > c.outage+12*time.Second {
						t.Errorf("after %s: %v", took, err)
					}
					// What is repeated must say so, or a spec could be lost.
					if len(attempts) != 1 || (attempts[0] > 0) != (c.outage > 0) {
						t.Errorf("the attempts that arrived are %v", attempts)
					}
					return
				}
				if _, ok := errors.AsType[*unreachable](err); !ok || took != 2*time.Minute {
					t.Errorf("after %s: %v", took, err)
				}
				again := time.Now()
				if _, err := s.claim(t.Context(), joined{}, 1); err == nil || time.Since(again) > 0 {
					t.Errorf("the next one: %v after %s", err, time.Since(again))
				}
			})
		})
	}
}

// TestAServerThatSaysNothing is away like one that cannot be reached, for as
// long as we have patience, and not a minute more.
func TestAServerThatSaysNothing(t *testing.T) {
	for patience, want := range map[time.Duration]time.Duration{0: hasty, time.Minute: time.Minute, 2 * time.Minute: 2 * time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			s := newServer("http://runbell.test", "test", patience, func(string, ...any) {})
			s.http.Transport = silent{}
			began := time.Now()
			_, err := s.claim(t.Context(), joined{}, 1)
			if _, ok := errors.AsType[*unreachable](err); !ok || time.Since(began) < want || time.Since(began) > want+hasty+12*time.Second {
				t.Errorf("patience %s: %v after %s", patience, err, time.Since(began))
			}
		})
	}
}

// silent is a line to a server that takes requests and never answers.
type silent struct{}

func (silent) RoundTrip(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

// TestSomebodyElseAnswers: what is not our server's answer neither loses results
// nor ends a run that has begun. Before that it is a wrong address.
func TestSomebodyElseAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		body   string
	}{"an ingress without a server": {404, "<html>404"}, "a proxy": {403, "no"}, "maintenance": {200, "{}"}} {
		t.Run(name, func(t *testing.T) {
			away := true
			s := quietServer(wire{handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if away {
					w.WriteHeader(c.status)
					fmt.Fprint(w, c.body)
				} else {
					fmt.Fprint(w, `{"runId":"r","machineId":"m"}`)
				}
			})}, 0)
			if _, err := s.join(t.Context(), joinRequest{}, "key"); err == nil {
				t.Error("it was joined")
			} else if _, ok := refused(err); ok != (c.status != 200) {
				t.Errorf("join: %v", err)
			}
			away = false
			j, err := s.join(t.Context(), joinRequest{}, "key")
			if err != nil {
				t.Fatal(err)
			}
			away = true
			if _, err := s.claim(t.Context(), j, 1); err == nil {
				t.Error("there are no specs any more")
			} else if _, ok := errors.AsType[*unreachable](err); !ok {
				t.Errorf("a claim: %v", err)
			}
			if _, err := s.results(t.Context(), "i", nil); err == nil {
				t.Error("the results are taken to be safe")
			} else if _, ok := errors.AsType[*unreachable](err); !ok {
				t.Errorf("results: %v", err)
			}
		})
	}
}

func TestRetryAfterIsHonoured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at []time.Time
		s := quietServer(wire{handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if at = append(at, time.Now()); len(at) == 1 {
				w.Header().Set("Retry-After", "20")
				w.WriteHeader(http.StatusTooManyRequests)
				return
			}
			fmt.Fprint(w, `{"specs":[]}`)
		})}, time.Minute)
		if _, err := s.claim(t.Context(), joined{}, 1); err != nil || at[1].Sub(at[0]) != 20*time.Second {
			t.Errorf("%v, at %v", err, at)
		}
	})
}

func TestAnInterruptionEndsTheWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(10*time.Second, func() { cancel(Interrupted{}) })
		s := quietServer(wire{cut: func() error { return errCut }}, time.Hour)
		began := time.Now()
		_, err := s.claim(ctx, joined{}, 1)
		if _, ok := errors.AsType[Interrupted](err); !ok || time.Since(began) != 10*time.Second {
			t.Errorf("%v after %s", err, time.Since(began))
		}
	})
}

// realServer is the server's side of the protocol, with its database.
func realServer(t *testing.T) http.Handler {
	db := testkit.Open(t, testkit.MigratedFile(t, t.TempDir()))
	mux := http.NewServeMux()
	cypress.Routes(mux, intake.Options{Bodies: body.NewPools(), Runs: lifecycle.New(db, "http://runbell.test", func(...string) {}), Keys: auth.New(db, auth.Open), Reporters: auth.NewReporters(make([]byte, 32)), Log: slog.New(slog.DiscardHandler)})
	return mux
}

// starting is what a start of Cypress takes in these tests.
const starting = 4 * time.Second

// packing is a run of four machines on virtual time.
type packing struct {
	wall   time.Duration
	ran    map[string]int
	starts int
}

func pack(t *testing.T, h http.Handler, build string, specs []string, took map[string]time.Duration) packing {
	began := time.Now()
	p := packing{ran: map[string]int{}}
	var mu sync.Mutex
	var machines sync.WaitGroup
	for range 4 {
		machines.Go(func() {
			m := newMachine(Options{Parallel: true, Err: io.Discard, ServerWait: time.Minute})
			m.server, m.specs, m.recorded = quietServer(wire{handler: h}, time.Minute), specs, true
			var err error
			m.joined, err = m.server.join(t.Context(), joinRequest{ProjectID: "shop", CIBuildID: build, Parallel: true, Specs: specs, Tags: []string{}}, "key")
			if err != nil {
				t.Error(err)
				return
			}
			m.clock.order = m.joined.HandOutOrder
			m.plan = plan(m.joined.HandOutOrder, cmp.Or(m.joined.Machines, defaultMachines))
			for {
				s := &start{}
				if err := m.claim(t.Context(), s); err != nil {
					if !errors.Is(err, errNothingLeft) {
						t.Error(err)
					}
					return
				}
				time.Sleep(starting)
				var own time.Duration
				for _, spec := range s.specs {
					time.Sleep(took[spec.Spec])
					own += took[spec.Spec]
					r, _ := newReport(runResult{Tests: []testResult{{Title: []string{"t"}, State: "passed"}}})
					r.Results.Stats.WallClockDuration = float64(took[spec.Spec].Milliseconds())
					body, err := json.Marshal(r)
					if err != nil {
						t.Error(err)
					}
					if _, err := m.server.results(t.Context(), spec.InstanceID, body); err != nil {
						t.Error(err)
					}
				}
				m.clock.ranFor(len(s.specs), own+starting, own)
				mu.Lock()
				for _, spec := range s.specs {
					p.ran[spec.Spec]++
				}
				p.starts++
				mu.Unlock()
			}
		})
	}
	machines.Wait()
	p.wall = time.Since(began)
	return p
}

// TestFourMachinesPackTheirSpecs: with a history, four machines need hardly
// longer for their specs than any packing could, with one start of Cypress each.
func TestFourMachinesPackTheirSpecs(t *testing.T) {
	for name, c := range map[string]struct {
		specs int
		first time.Duration // the shortest spec
	}{"40 specs of minutes": {40, 4 * time.Second}, "20 specs of seconds": {20, time.Second}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := realServer(t)
				var specs []string
				took := map[string]time.Duration{}
				var total, longest time.Duration
				for i := range c.specs {
					spec := fmt.Sprintf("cypress/e2e/spec-%02d.cy.js", i)
					specs = append(specs, spec)
					// The longest takes thirty times the shortest; most are short, the long ones late in the list.
					last := float64(c.specs - 1)
					took[spec] = (c.first * time.Duration(1000*math.Exp(3.4*math.Mod(float64(i)*0.618034+0.3, 1)*float64(i)/last)) / 1000).Round(time.Millisecond)
					total += took[spec]
					longest = max(longest, took[spec])
				}
				best := starting + max(total/4, longest) // no packing is better
				first := pack(t, h, "first", specs, took)
				second := pack(t, h, "second", specs, took)
				t.Logf("without history %s and %d starts, with history %s and %d starts; no packing is better than %s", first.wall, first.starts, second.wall, second.starts, best)
				if float64(second.wall) > 1.1*float64(best) {
					t.Errorf("the wall time is %s, more than 10 %% over %s", second.wall, best)
				}
				if second.wall > first.wall || second.starts > first.starts {
					t.Errorf("without history it is faster: %s and %d starts, not %s and %d", first.wall, first.starts, second.wall, second.starts)
				}
				for _, p := range []packing{first, second} {
					for _, spec := range specs {
						if p.ran[spec] != 1 {
							t.Errorf("%s ran %d times", spec, p.ran[spec])
						}
					}
				}
			})
		})
	}
}

// TestPlan: every spec is in it once, all starts of a round take about as long,
// the shortest are held back where there is enough of them, and where most is
// unknown there is no plan.
func TestPlan(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		durations := rapid.SliceOfN(rapid.Int64Range(0, 300_000), 1, 60).Draw(t, "durations")
		machines := rapid.IntRange(1, 9).Draw(t, "machines")
		var order []expectedSpec
		known := 0
		for i, d := range durations {
			order = append(order, expectedSpec{Spec: strconv.Itoa(i), DurationMS: d})
			if d > 0 {
				known++
			}
		}
		starts := plan(order, machines)
		if (starts != nil) != (2*known > len(order)) {
			t.Fatalf("%d of %d durations are known: %q", known, len(order), starts)
		}
		seen := map[string]int{}
		for _, s := range starts {
			if len(s) == 0 {
				t.Errorf("a start of nothing: %q", starts)
			}
			for _, spec := range s {
				seen[spec]++
			}
		}
		for _, e := range order {
			if starts != nil && seen[e.Spec] != 1 {
				t.Errorf("spec %s is planned %d times", e.Spec, seen[e.Spec])
			}
		}
	})
	order := func(seconds ...int64) (list []expectedSpec) {
		for i, s := range seconds {
			list = append(list, expectedSpec{Spec: strconv.Itoa(i), DurationMS: s * 1000})
		}
		return list
	}
	if got := fmt.Sprint(plan(order(50, 40, 30, 20, 10), 2)); got != "[[0 3 4] [1 2]]" {
		t.Errorf("one round: %s", got)
	}
	if got := plan(order(slices.Repeat([]int64{100}, 20)...), 2); len(got) != 4 || len(got[0])+len(got[1]) != 17 {
		t.Errorf("nothing is held back: %q", got)
	}
}

// TestTimeLeft: from the averages of earlier runs, for as many machines as the
// claims show there are.
func TestTimeLeft(t *testing.T) {
	c := clock{order: []expectedSpec{{"new", 0}, {"a", 60_000}, {"b", 40_000}, {"c", 20_000}}}
	if _, ok := c.left(1, 4, 0); ok {
		t.Error("a guess before anything is known of the machines")
	}
	c.mine = 1
	if got, ok := c.left(1, 4, 0); !ok || got != 2*time.Minute {
		t.Errorf("one machine: %s, %v", got, ok)
	}
	c.mine = 1
	if got, _ := c.left(2, 4, time.Minute); got != 90*time.Second {
		t.Errorf("two machines, one of them for a minute: %s", got)
	}
	if got, _ := c.left(4, 4, 20*time.Second); got != 20*time.Second {
		t.Errorf("the last one: %s", got)
	}
	c.ranFor(2, 70*time.Second, 50*time.Second) // starting Cypress takes 10 s a spec
	if got, _ := c.left(2, 4, 0); got != 80*time.Second/2 {
		t.Errorf("two machines that have to start Cypress twice more: %s", got)
	}
	if got := c.expected([]string{"c"}); got != 30*time.Second {
		t.Errorf("a spec of 20 s is expected to take %s", got)
	}
	if _, ok := (&clock{mine: 1, order: []expectedSpec{{"new", 0}}}).left(1, 1, 0); ok {
		t.Error("a guess without any history")
	}
}

// What the server sends as a refusal, an outage or garbage is told apart.
func FuzzAnswers(f *testing.F) {
	for _, s := range []string{`{"runId":"r","machineId":"m","warnings":["w",{"message":"x","code":1}]}`, `{"runId":1}`, `[]`, `null`, `<html>`, `{"specs":[{"spec":null}]}`, ``} {
		f.Add(200, s)
		f.Add(422, s)
		f.Add(503, s)
	}
	f.Fuzz(func(t *testing.T, status int, text string) {
		resp := &http.Response{StatusCode: status, Header: http.Header{}}
		var j joined
		_, err := judge(resp, []byte(text), &j)
		if err == nil && (status/100 != 2 || j.RunID == "" || j.MachineID == "") {
			t.Errorf("%d %q was taken: %+v", status, text, j)
		}
		for _, w := range j.Warnings {
			_ = warningText(w)
		}
		var c claimed
		_, _ = judge(resp, []byte(text), &c)
		var a resultsAnswer
		_, _ = judge(resp, []byte(text), &a)
	})
}

// Bodies are compressed, and carry no key but that of a join.
func TestBodies(t *testing.T) {
	var got []map[string]any
	s := quietServer(wire{handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		z, err := gzip.NewReader(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		var body map[string]any
		if err := json.NewDecoder(z).Decode(&body); err != nil {
			t.Fatal(err)
		}
		got = append(got, body)
		fmt.Fprint(w, `{"runId":"r","machineId":"m","specs":[]}`)
	})}, 0)
	j, err := s.join(t.Context(), joinRequest{ProjectID: "shop", Specs: []string{"a"}}, "key")
	if err == nil {
		_, err = s.claim(t.Context(), j, 3)
	}
	if err != nil {
		t.Fatal(err)
	}
	if got[0]["recordKey"] != "key" || got[1]["recordKey"] != nil || got[1]["batchSize"] != 3.0 {
		t.Errorf("%v", got)
	}
	var names []string
	for name := range got[0] {
		names = append(names, name)
	}
	slices.Sort(names)
	if want := []string{"batchSize", "ci", "commit", "parallel", "platform", "projectId", "recordKey", "specPattern", "specs", "tags", "testingType"}; !slices.Equal(names, want) {
		t.Errorf("POST /runs has %q, want %q", names, want)
	}
}
