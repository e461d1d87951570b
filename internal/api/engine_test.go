package api

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"runbell/internal/lifecycle"
	"runbell/internal/store"
	"runbell/internal/webhook"
)

func TestFiltersAndLimits(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		s.project(t, "demo")
		path := "/v1/webhooks/" + s.hook(t, "demo", object{})
		is := func(got object, want string) {
			t.Helper()
			f := got["filters"].(object)
			if text := fmt.Sprintf("%v %v %v %v %v %v", f["branches"], f["tags"], f["result"], got["maxInFlight"], got["ratePerMinute"], got["ed25519"]); text != want {
				t.Errorf("%s, want %s", text, want)
			}
		}
		is(s.data(t, "GET", path, nil), "[] [] any 16 <nil> false")
		is(s.data(t, "PUT", path, object{"filters": object{"branches": []string{"main", "!dev/*"}, "tags": []string{"a"}, "result": "recovered"},
			"maxInFlight": 256, "ratePerMinute": 60000, "ed25519": true}), "[main !dev/*] [a] recovered 256 60000 true")
		// What is absent stays.
		is(s.data(t, "PUT", path, object{"filters": object{"tags": []string{}}}), "[main !dev/*] [] recovered 256 60000 true")
		is(s.data(t, "PUT", path, object{"filters": object{"result": "any"}, "maxInFlight": 1}), "[main !dev/*] [] any 1 60000 true")
		is(s.data(t, "PUT", path, object{"ratePerMinute": nil, "ed25519": false}), "[main !dev/*] [] any 1 <nil> false")

		// They decide about what is queued.
		start := func(build, branch string) {
			j := lifecycle.Join{ProjectID: "demo", CIBuildID: build}
			j.Commit.Branch = branch
			s.join(t, j)
		}
		start("1", "dev/x")
		start("2", "main")
		start("3", "other")
		if list := s.items(t, path+"/deliveries"); len(list) != 1 {
			t.Errorf("%d deliveries, want that of main: %v", len(list), list)
		}
	})
}

func TestRotation(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		s.project(t, "demo")
		path := "/v1/webhooks/" + s.hook(t, "demo", object{"ed25519": true})
		first := s.data(t, "GET", path+"/secret", nil)
		public, err := webhook.PublicKey(first["publicKey"].(string)).Key()
		if err != nil || len(public) != ed25519.PublicKeySize {
			t.Errorf("public key %v: %v", first["publicKey"], err)
		}
		ends := func(answer object) time.Duration {
			at, err := time.Parse(time.RFC3339, answer["previousSecretExpiresAt"].(string))
			if err != nil {
				t.Fatal(err)
			}
			return time.Until(at).Round(time.Minute)
		}
		s.callWith(t, s.readKey, http.StatusForbidden, "POST", path+"/rotate-secret", nil)
		second := s.data(t, "POST", path+"/rotate-secret", nil) // no body at all
		if second["secret"] == first["secret"] || second["publicKey"] != first["publicKey"] || ends(second) != 24*time.Hour {
			t.Errorf("rotated: %v", ends(second))
		}
		if got := s.data(t, "GET", path+"/secret", nil); fmt.Sprint(got) != fmt.Sprint(second) {
			t.Errorf("read again, it is another: %v", got)
		}
		if third := s.data(t, "POST", path+"/rotate-secret", object{"graceSeconds": 2592000}); ends(third) != 30*24*time.Hour || third["secret"] == second["secret"] {
			t.Errorf("with a grace of 30 days: %v", ends(third))
		}
		if got := s.data(t, "POST", path+"/rotate-secret", object{"graceSeconds": 0}); got["previousSecretExpiresAt"] != nil {
			t.Errorf("without a grace: %v", got)
		}
		last := s.data(t, "GET", path+"/secret", nil)["secret"]
		s.refused(t, http.StatusBadRequest, "POST", path+"/rotate-secret", object{"graceSeconds": -1}, "0 to 2592000")
		s.refused(t, http.StatusBadRequest, "POST", path+"/rotate-secret", object{"graceSeconds": 2592001}, "30 days")
		s.refused(t, http.StatusBadRequest, "POST", path+"/rotate-secret", object{"graceSeconds": "1h"}, "graceSeconds must be a whole number, not a JSON string")
		s.refused(t, http.StatusBadRequest, "POST", path+"/rotate-secret", object{"graceSeconds": 9223372036854775807}, "0 to 2592000")
		s.refused(t, http.StatusBadRequest, "POST", path+"/rotate-secret", object{"secret": "whsec_"}, `Unknown field "secret"`)
		if got := s.data(t, "GET", path+"/secret", nil)["secret"]; got != last {
			t.Error("a refused rotation changed the secret")
		}
		// Another key each time ed25519 is switched on, and none when it is off.
		s.data(t, "PUT", path, object{"ed25519": true})
		if got := s.data(t, "GET", path+"/secret", nil); got["publicKey"] != first["publicKey"] {
			t.Error("switched on again, the key changed")
		}
		s.data(t, "PUT", path, object{"ed25519": false})
		if got := s.data(t, "GET", path+"/secret", nil); got["publicKey"] != nil {
			t.Error("switched off, there is a key")
		}
		s.data(t, "PUT", path, object{"ed25519": true})
		if got := s.data(t, "GET", path+"/secret", nil); got["publicKey"] == first["publicKey"] {
			t.Error("switched off and on, the key is the same")
		}
		// Nothing of it in what others read.
		var private string
		_ = s.db.Read(t.Context(), func(tx *store.Tx) error {
			e, err := tx.Endpoint(t.Context(), strings.TrimPrefix(path, "/v1/webhooks/"))
			private = strings.TrimPrefix(e.Private.Reveal(), "whsk_")
			return err
		})
		if _, err := base64.StdEncoding.DecodeString(private); err != nil || private == "" {
			t.Fatalf("the private key is not to be found: %v", err)
		}
		for _, p := range []string{path, path + "/secret", path + "/history", "/v1/webhooks?projectId=demo"} {
			resp := s.fetch(t, "GET", p, s.writeKey, nil)
			if strings.Contains(resp.text, private) || !strings.HasSuffix(p, "/secret") && strings.Contains(resp.text, last.(string)) {
				t.Errorf("GET %s shows a key", p)
			}
		}
		s.callWith(t, s.readKey, http.StatusForbidden, "GET", path+"/secret", nil)
	})
}

func TestTestSends(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		s.project(t, "demo")
		id := s.hook(t, "demo", object{"hookEvents": []string{}, "scope": "run"})
		path := "/v1/webhooks/" + id
		for _, kind := range webhook.Kinds() {
			kicks := s.kicks.Load()
			sent := s.data(t, "POST", path+"/test", object{"event": kind})["deliveryId"].(string)
			if s.kicks.Load() != kicks+1 || !slices.Equal(*s.kicked.Load(), []string{id}) {
				t.Errorf("%s: the engine was told %d times, of %v", kind, s.kicks.Load()-kicks, *s.kicked.Load())
			}
			s.attemptAll(t, webhook.Attempt{Class: webhook.OK, Status: 200}, webhook.Delivered)
			got := s.data(t, "GET", "/v1/deliveries/"+sent, nil)
			body := parseAnswer(t, got["attempts"].([]any)[0].(object)["request"].(object)["body"].(string))
			if got["event"] != string(kind) || got["runId"] != nil || got["status"] != "delivered" || body["event"] != string(kind) ||
				!strings.HasPrefix(body["runUrl"].(string), "https://runbell.example/run/") || body["overall"] == nil {
				t.Errorf("%s: %v", kind, got)
			}
		}
		if list := s.items(t, path+"/deliveries?event=RUN_TIMEOUT"); len(list) != 1 {
			t.Errorf("%d in the list", len(list))
		}
		s.callWith(t, s.readKey, http.StatusForbidden, "POST", path+"/test", object{"event": "RUN_START"})
		s.refused(t, http.StatusBadRequest, "POST", path+"/test", object{}, "event must be RUN_START, RUN_FINISH, RUN_TIMEOUT, RUN_CANCELED or TEST_STATUS")
		s.refused(t, http.StatusBadRequest, "POST", path+"/test", object{"event": "RUN_END"}, `not "RUN_END"`)
		s.refused(t, http.StatusBadRequest, "POST", path+"/test", nil, "empty")
		s.data(t, "POST", path+"/disable", nil)
		s.refused(t, http.StatusConflict, "POST", path+"/test", object{"event": "RUN_START"}, "enable it first")
	})
}

func TestRetryAndReplay(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		s.project(t, "demo")
		id := s.hook(t, "demo", object{})
		path := "/v1/webhooks/" + id
		var runs []string
		for i := range 3 {
			runs = append(runs, s.join(t, lifecycle.Join{ProjectID: "demo", CIBuildID: fmt.Sprint("b", i)}).RunID)
		}
		s.attemptAll(t, webhook.Attempt{Class: webhook.DNS, Error: "no such host"}, webhook.Failed)
		one := s.items(t, path+"/deliveries?runId="+runs[0])[0]["deliveryId"].(string)

		s.callWith(t, s.readKey, http.StatusForbidden, "POST", "/v1/deliveries/"+one+"/retry", nil)
		kicks := s.kicks.Load()
		got := s.data(t, "POST", "/v1/deliveries/"+one+"/retry", nil)
		if got["status"] != "pending" || got["nextAttemptAt"] == nil || got["finishedAt"] != nil || fmt.Sprint(got["attemptCount"]) != "1" || s.kicks.Load() != kicks+1 {
			t.Errorf("retried: %v", got)
		}
		s.attemptAll(t, webhook.Attempt{Class: webhook.OK, Status: 200}, webhook.Delivered)
		if got := s.data(t, "GET", "/v1/deliveries/"+one, nil); got["status"] != "delivered" || len(got["attempts"].([]any)) != 2 {
			t.Errorf("after the retry: %v", got)
		}

		long := "2026-01-01T00:00:00Z"
		replay := func(body object) string {
			t.Helper()
			got := s.data(t, "POST", path+"/replay", body)
			return fmt.Sprint(got["deliveries"], " ", got["dryRun"])
		}
		pending := func() int { return len(s.items(t, path+"/deliveries?status=pending")) }
		for _, c := range []struct {
			body object
			want int
		}{
			{object{"since": long}, 2},
			{object{"since": long, "status": "failed"}, 2},
			{object{"since": long, "status": "all"}, 3},
			{object{"runId": runs[0]}, 0},
			{object{"runId": runs[0], "status": "all"}, 1},
			{object{"runId": runs[1]}, 1},
			{object{"runId": "none"}, 0},
			{object{"since": "2100-01-01T00:00:00Z"}, 0},
			{object{"since": long, "until": "2026-01-02T00:00:00+02:00"}, 0},
			{object{"since": long, "until": "2100-01-01T00:00:00Z"}, 2},
		} {
			c.body["dryRun"] = true
			if got := replay(c.body); got != fmt.Sprint(c.want, " true") || pending() != 0 {
				t.Errorf("%v counts %s, want %d; %d are pending", c.body, got, c.want, pending())
			}
		}
		kicks = s.kicks.Load()
		if got := replay(object{"runId": runs[1]}); got != "1 false" || pending() != 1 || s.kicks.Load() == kicks {
			t.Errorf("replayed %s, %d are pending", got, pending())
		}
		if got := replay(object{"since": long, "status": "all"}); got != "2 false" || pending() != 3 { // what is pending already is left alone
			t.Errorf("replayed %s, %d are pending", got, pending())
		}
		s.callWith(t, s.readKey, http.StatusForbidden, "POST", path+"/replay", object{"since": long})
		s.refused(t, http.StatusBadRequest, "POST", path+"/replay", object{}, "send since or runId")
		s.refused(t, http.StatusBadRequest, "POST", path+"/replay",
			object{"since": "2026-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z"}, "until must be after since")
		s.refused(t, http.StatusBadRequest, "POST", path+"/replay", object{"since": long, "status": "held"}, `failed or all, not "held"`)
		s.refused(t, http.StatusBadRequest, "POST", path+"/replay", object{"since": "yesterday"}, "since")
		s.refused(t, http.StatusBadRequest, "POST", path+"/replay", object{"since": 7}, "since")
		s.refused(t, http.StatusBadRequest, "POST", path+"/replay", object{"since": long, "event": "RUN_START"}, `Unknown field "event"`)
		for _, runID := range []string{"a\x00b", strings.Repeat("x", 100_000)} {
			if resp := s.fetch(t, "POST", path+"/replay", s.writeKey, object{"runId": runID, "dryRun": true}); resp.status >= 500 {
				t.Errorf("runId %.10q: %d %s", runID, resp.status, resp.text)
			}
		}
		s.data(t, "POST", path+"/disable", nil)
		s.refused(t, http.StatusConflict, "POST", path+"/replay", object{"since": long, "status": "all"}, "enable it first")
		s.refused(t, http.StatusConflict, "POST", "/v1/deliveries/"+one+"/retry", nil, "enable it first")
		if got := replay(object{"since": long, "status": "all", "dryRun": true}); !strings.HasSuffix(got, "true") {
			t.Errorf("a disabled one cannot be counted: %s", got)
		}
	})
}

func TestHistoryAndHealth(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		s.project(t, "demo")
		path := "/v1/webhooks/" + s.hook(t, "demo", object{})
		health := func() object { return s.data(t, "GET", path, nil)["health"].(object) }
		if h := health(); h["state"] != "unused" || fmt.Sprint(h["pending"]) != "0" || h["lastSuccessAt"] != nil {
			t.Errorf("at first %v", h)
		}
		s.join(t, lifecycle.Join{ProjectID: "demo", CIBuildID: "1"})
		s.attemptAll(t, webhook.Attempt{Class: webhook.BadStatus, Status: 500}, webhook.Failed)
		if h := health(); h["state"] != "failing" || h["failingSince"] == nil || h["failingSince"] != h["lastFailureAt"] || fmt.Sprint(h["failed24h"]) != "1" {
			t.Errorf("after a failure %v", h)
		}
		s.data(t, "POST", path+"/rotate-secret", nil)
		s.data(t, "POST", path+"/replay", object{"since": "2026-01-01T00:00:00Z"})
		if h := health(); fmt.Sprint(h["pending"]) != "1" {
			t.Errorf("with one that waits %v", h)
		}
		s.attemptAll(t, webhook.Attempt{Class: webhook.OK, Status: 200}, webhook.Delivered)
		if h := health(); h["state"] != "healthy" || h["lastSuccessAt"] == nil || h["failingSince"] != nil {
			t.Errorf("after a success %v", h)
		}
		s.data(t, "POST", path+"/disable", nil)
		if h := health(); h["state"] != "disabled" {
			t.Errorf("disabled: %v", h)
		}
		s.data(t, "POST", path+"/disable", nil) // again is no news
		s.data(t, "POST", path+"/enable", nil)
		s.write(t, func(ctx context.Context, tx *store.Tx) error {
			return tx.Note(ctx, strings.TrimPrefix(path, "/v1/webhooks/"), webhook.WasFailing, "All attempts failed.")
		})
		var kinds []string
		for _, h := range itemsOf(s.callWith(t, s.readKey, http.StatusOK, "GET", path+"/history", nil)) {
			kinds = append(kinds, h["kind"].(string))
			if h["text"] == "" || h["at"] == nil {
				t.Errorf("history %v", h)
			}
		}
		// Newest first; those of one millisecond in any order.
		slices.Sort(kinds)
		if want := "created disabled enabled failing replayed rotated"; strings.Join(kinds, " ") != want {
			t.Errorf("history %v, want %s", kinds, want)
		}
		s.call(t, http.StatusNotFound, "GET", "/v1/webhooks/none/history", nil)
	})
}
