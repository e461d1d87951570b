package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"runbell/internal/lifecycle"
	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/webhook"
)

func TestWebhooks(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		s.project(t, "demo")
		s.project(t, "other")
		of := "/v1/webhooks?projectId=demo"
		created := s.call(t, http.StatusCreated, "POST", of, object{"url": "https://hooks.example/a?b=c"})["data"].(object)
		id := created["hookId"].(string)
		for name, want := range map[string]string{
			"projectId": "demo", "url": "https://hooks.example/a?b=c", "headers": "<nil>", "label": "<nil>", "scope": "group", "enabled": "true",
			"disabledReason": "<nil>", "hookEvents": "[RUN_START RUN_FINISH RUN_TIMEOUT RUN_CANCELED]",
		} {
			if got := fmt.Sprint(created[name]); got != want {
				t.Errorf("%s is %s, want %s", name, got, want)
			}
		}
		if len(id) != 36 || created["createdAt"] != created["updatedAt"] {
			t.Errorf("created %v", created)
		}
		second := s.hook(t, "demo", object{"hookEvents": []string{}, "headers": nil, "label": nil, "scope": "run", "enabled": false})
		s.hook(t, "other", object{})

		list := s.items(t, of)
		if len(list) != 2 || list[0]["hookId"] != id || list[1]["hookId"] != second {
			t.Fatalf("webhooks of demo: %v", list)
		}
		if got := list[1]; len(got["hookEvents"].([]any)) != 0 || got["scope"] != "run" || got["enabled"] != false {
			t.Errorf("second: %v", got)
		}

		// A change touches what is given and nothing else.
		changed := s.data(t, "PUT", "/v1/webhooks/"+id, object{"hookEvents": []string{"RUN_FINISH", "RUN_FINISH"}, "label": "ci"})
		if fmt.Sprint(changed["hookEvents"]) != "[RUN_FINISH]" || changed["label"] != "ci" || changed["url"] != created["url"] || changed["resumed"] != nil {
			t.Errorf("changed to %v", changed)
		}
		changed = s.data(t, "PUT", "/v1/webhooks/"+id, object{"url": "http://127.0.0.1:9/hook", "headers": `{"X-A":"1"}`, "scope": "run", "label": nil})
		if changed["label"] != nil || changed["scope"] != "run" || changed["headers"] != `{"X-A":"1"}` || fmt.Sprint(changed["hookEvents"]) != "[RUN_FINISH]" {
			t.Errorf("changed to %v", changed)
		}
		if got := s.data(t, "GET", "/v1/webhooks/"+id, nil); fmt.Sprint(got) != fmt.Sprint(changed) {
			t.Errorf("got %v, want %v", got, changed)
		}
		if got := s.data(t, "PUT", "/v1/webhooks/"+id, object{"headers": nil}); got["headers"] != nil {
			t.Errorf("headers stayed: %v", got)
		}

		if got := s.data(t, "DELETE", "/v1/webhooks/"+id, nil); len(got) != 2 || got["hookId"] != id || got["projectId"] != "demo" {
			t.Errorf("deleted %v", got)
		}
		for _, method := range []string{"GET", "DELETE"} {
			s.call(t, http.StatusNotFound, method, "/v1/webhooks/"+id, nil)
		}
		s.call(t, http.StatusNotFound, "PUT", "/v1/webhooks/"+id, object{})
		s.call(t, http.StatusNotFound, "POST", "/v1/webhooks?projectId=none", object{"url": "https://hooks.example"})
		s.call(t, http.StatusNotFound, "GET", "/v1/webhooks?projectId=none", nil)
	})
}

func TestWebhookLimits(t *testing.T) {
	s := sqliteServer(t)
	s.project(t, "demo")
	id := s.hook(t, "demo", object{"label": strings.Repeat("ä", 255), "url": "https://hooks.example/" + strings.Repeat("x", 2048-22),
		"headers": `{"X-A":"` + strings.Repeat("x", 4096-10) + `"}`})
	before := s.data(t, "GET", "/v1/webhooks/"+id, nil)
	for _, c := range []struct {
		field string
		value any
		says  string
	}{
		{"url", "", "1 to 2048 characters"},
		{"url", "https://hooks.example/" + strings.Repeat("x", 2048-21), "1 to 2048 characters"},
		{"url", "hooks.example", "complete URL"},
		{"url", "ftp://hooks.example", "https:// or http://"},
		{"url", "https://u:p@hooks.example", "user or password"},
		{"url", "https://hooks.example/#x", "fragment"},
		{"url", "http://10.0.0.1/", "RUNBELL_WEBHOOK_ALLOW"},
		{"url", "http://169.254.169.254/latest", "RUNBELL_WEBHOOK_ALLOW"},
		{"url", "http://[::1]/", "RUNBELL_WEBHOOK_ALLOW"},
		{"url", "http://hooks.example/\x00", "url must"},
		{"url", 7, "url must be a string, not a JSON number"},
		{"headers", "", "JSON object in a string"},
		{"headers", "[]", "JSON object in a string"},
		{"headers", "null", "JSON object in a string"},
		{"headers", `{"X-A":"1"} {}`, "JSON object in a string"},
		{"headers", object{"X-A": "1"}, "headers must be a string, not a JSON object"},
		{"headers", `{"X-A":"` + strings.Repeat("x", 4096-9) + `"}`, "at most 4096"},
		{"headers", `{"X-A":1}`, "value of X-A must be a string"},
		{"headers", `{"X-A":"a\r\nX-B: b"}`, "printable ASCII"},
		{"headers", `{"X-A":"ä"}`, "printable ASCII"},
		{"headers", `{"X A":"1"}`, `"X A" is not a valid header name`},
		{"headers", `{"":"1"}`, "is not a valid header name"},
		{"headers", `{"X-Ä":"1"}`, "is not a valid header name"},
		{"headers", `{"x-a":"1","X-A":"2"}`, "X-A is listed twice"},
		{"hookEvents", []string{"RUN_START", "RUN_END"}, `not "RUN_END"`},
		{"hookEvents", "RUN_START", "hookEvents must not be a JSON string"},
		{"label", "", "1 to 255 characters"},
		{"label", strings.Repeat("x", 256), "to 255 characters"},
		{"label", "a\nb", "control characters"},
		{"scope", "project", "scope must be group or run"},
		{"enabled", "yes", "enabled must be true or false, not a JSON string"},
		{"maxInFlight", 0, "maxInFlight must be a number from 1 to 256"},
		{"maxInFlight", 257, "maxInFlight must be a number from 1 to 256"},
		{"maxInFlight", "16", "maxInFlight must be a whole number, not a JSON string"},
		{"ratePerMinute", 0, "1 to 60000, or null"},
		{"ratePerMinute", -1, "1 to 60000, or null"},
		{"ratePerMinute", 60001, "1 to 60000, or null"},
		{"ratePerMinute", 1.5, "ratePerMinute"},
		{"ed25519", "yes", "ed25519 must be true or false, not a JSON string"},
		{"filters", "main", "filters must not be a JSON string"},
		{"filters", object{"branch": []string{"main"}}, `Unknown field "filters.branch"`},
		{"filters", object{"branches": "main"}, "branches must not be a JSON string"},
		{"filters", object{"branches": []string{"ok", ""}}, "filters.branches must have 1 to 255 characters"},
		{"filters", object{"branches": []string{"a\nb"}}, "filters.branches must not contain control characters"},
		{"filters", object{"branches": []string{strings.Repeat("x", 256)}}, "1 to 255 characters"},
		{"filters", object{"branches": slices.Repeat([]string{"x"}, 51)}, "filters.branches can have at most 50 entries"},
		{"filters", object{"branches": []string{"!"}}, "a ! alone excludes nothing"},
		{"filters", object{"tags": []string{""}}, "filters.tags must have 1 to 255 characters"},
		{"filters", object{"tags": slices.Repeat([]string{"x"}, 51)}, "filters.tags can have at most 50 entries"},
		{"filters", object{"result": "green"}, "filters.result must be any, passed, failed, flaky or recovered, not"},
		{"secret", "whsec_AAAA", `Unknown field "secret"`},
		{"hookId", "mine", `Unknown field "hookId"`},
		{"disabledReason", "no", `Unknown field "disabledReason"`},
	} {
		s.refused(t, http.StatusBadRequest, "PUT", "/v1/webhooks/"+id, object{c.field: c.value}, c.says)
		body := object{"url": "https://hooks.example", c.field: c.value}
		s.refused(t, http.StatusBadRequest, "POST", "/v1/webhooks?projectId=demo", body, c.says)
	}
	for _, name := range []string{"Content-Type", "content-length", "User-Agent", "X-TIMESTAMP", "Webhook-Id", "webhook-anything", "X-Runbell-Attempt",
		"Host", "Transfer-Encoding", "Connection", "Upgrade", "Trailer", "TE", "Expect"} {
		headers, _ := json.Marshal(map[string]string{name: "x"})
		s.refused(t, http.StatusBadRequest, "PUT", "/v1/webhooks/"+id, object{"headers": string(headers)}, name+" itself")
	}
	s.refused(t, http.StatusBadRequest, "POST", "/v1/webhooks?projectId=demo", object{}, "url is missing")
	s.refused(t, http.StatusBadRequest, "POST", "/v1/webhooks", object{"url": "https://hooks.example"}, "?projectId=")
	if list := s.items(t, "/v1/webhooks?projectId=demo"); len(list) != 1 || fmt.Sprint(list[0]) != fmt.Sprint(before) {
		t.Errorf("refused changes are there")
	}
}

func TestSecretsAreForThoseWhoMay(t *testing.T) {
	s := sqliteServer(t)
	recordKey := s.project(t, "demo")
	created := s.call(t, http.StatusCreated, "POST", "/v1/webhooks?projectId=demo",
		object{"url": "https://hooks.example", "headers": `{"Authorization":"Bearer tok<en>&","X-Empty":""}`})["data"].(object)
	id := created["hookId"].(string)
	path := "/v1/webhooks/" + id
	if created["headers"] != `{"Authorization":"Bearer tok<en>&","X-Empty":""}` {
		t.Errorf("headers come back as %v", created["headers"])
	}
	if got := s.callWith(t, s.readKey, http.StatusOK, "GET", path, nil)["data"].(object); got["headers"] != `{"Authorization":"…","X-Empty":"…"}` {
		t.Errorf("a read-only key sees the headers %v", got["headers"])
	}
	// What is masked cannot be put back by mistake.
	s.refused(t, http.StatusBadRequest, "PUT", path, object{"headers": `{"Authorization":"…"}`}, "printable ASCII")

	secret := s.data(t, "GET", path+"/secret", nil)
	value := secret["secret"].(string)
	if _, err := webhook.Secret(value).Key(); err != nil || secret["previousSecretExpiresAt"] != nil || secret["publicKey"] != nil || len(secret) != 3 {
		t.Errorf("secret: %v, %v", secret, err)
	}
	s.callWith(t, s.readKey, http.StatusForbidden, "GET", path+"/secret", nil)
	s.data(t, "PUT", path, object{"url": "https://hooks.example/services/url-secret"})
	if again := s.data(t, "GET", path+"/secret", nil); again["secret"] != value {
		t.Error("a change of the webhook changed its secret")
	}

	// Play a run, so that there is something to look at everywhere.
	joined := s.join(t, lifecycle.Join{ProjectID: "demo", CIBuildID: "b", Specs: []string{"a.cy.js", "b.cy.js"},
		Commit: run.Commit{RemoteOrigin: "https://x:gittoken@git.example/a.git"}})
	first := s.claim(t, joined)
	unclaimed, err := unclaimedOf(t, s, joined)
	if err != nil {
		t.Fatal(err)
	}
	deliveryID := s.items(t, path+"/deliveries")[0]["deliveryId"].(string)
	s.attemptAll(t, webhook.Attempt{
		RequestHeaders:  webhook.Headers{{Name: "Authorization", Value: "Bearer tok<en>&", Secret: true}, {Name: webhook.HeaderSignature, Value: "v1,sig-nature"}},
		ResponseHeaders: webhook.Headers{{Name: "Location", Value: "https://hooks.example/services/url-secret"}},
		ResponseBody:    []byte("you sent Bearer echoed-token"), Class: webhook.OK, Status: 200}, webhook.Delivered)

	paths := []string{"/v1/projects", "/v1/projects/demo", "/v1/projects/demo/runs", "/v1/projects/demo/record-keys", "/v1/api-keys", "/v1/webhooks?projectId=demo",
		path, path + "/deliveries", "/v1/deliveries/" + deliveryID, "/v1/runs/" + joined.RunID, "/v1/runs/find?projectId=demo&ciBuildId=b", "/v1/instances/" + first.ID}
	for _, p := range paths {
		for name, key := range map[string]string{"read-only": s.readKey, "read-write": s.writeKey} {
			resp := s.fetch(t, "GET", p, key, nil)
			if resp.status != http.StatusOK {
				t.Errorf("GET %s: %s", p, resp.text)
			}
			for what, hidden := range map[string]string{"the signing secret": value, "the record key": recordKey, "the API key": key,
				"the token of the git remote": "gittoken", "the id of a spec nobody claimed": unclaimed} {
				if strings.Contains(resp.text, hidden) {
					t.Errorf("GET %s with a %s key shows %s", p, name, what)
				}
			}
			for what, hidden := range map[string]string{"the value of a header": "tok<en>", "the URL of a webhook": "url-secret",
				"the signature of a request": "sig-nature", "what a receiver answered": "echoed-token"} {
				if key == s.readKey && strings.Contains(resp.text, hidden) {
					t.Errorf("GET %s with a read-only key shows %s", p, what)
				}
			}
		}
	}
	s.call(t, http.StatusNotFound, "GET", "/v1/instances/"+unclaimed, nil)
}

func unclaimedOf(t *testing.T, s *server, joined lifecycle.Joined) (string, error) {
	t.Helper()
	var id string
	err := s.db.Read(t.Context(), func(tx *store.Tx) error {
		list, err := tx.Instances(t.Context(), joined.RunID)
		for _, i := range list {
			if i.MachineID == "" {
				id = i.ID
			}
		}
		return err
	})
	return id, err
}

// attemptAll claims what is due, as the delivery engine does, and records an
// attempt of each.
func (s *server) attemptAll(t *testing.T, a webhook.Attempt, to webhook.DeliveryState) int {
	t.Helper()
	n := 0
	s.write(t, func(ctx context.Context, tx *store.Tx) error {
		lanes, err := tx.Lanes(ctx, "node")
		var outcomes []*store.Outcome
		for _, l := range lanes {
			if _, err := tx.TakeLane(ctx, l.EndpointID, "node", tx.Now.Add(time.Minute)); err != nil {
				return err
			}
			w, err := tx.Work(ctx, l.EndpointID, store.QueuePosition{}, 100, nil)
			if err != nil {
				return err
			}
			for _, c := range w.Claims {
				a.DeliveryID, a.Number, a.StartedAt = c.ID, c.Attempts+1, tx.Now
				outcomes = append(outcomes, &store.Outcome{Delivery: c.Delivery, Attempt: a, EndedAt: a.StartedAt, Decision: webhook.Decision{State: to, Wait: time.Hour}})
			}
		}
		n = len(outcomes)
		if err == nil {
			_, err = tx.RecordAttempts(ctx, "node", outcomes)
		}
		return err
	})
	return n
}

func TestDisablingHoldsAndEnablingResumes(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		s.project(t, "demo")
		id := s.hook(t, "demo", object{})
		path := "/v1/webhooks/" + id
		held := func() int { return len(s.items(t, path+"/deliveries?status=held")) }
		pending := func() int { return len(s.items(t, path+"/deliveries?status=pending")) }
		start := func(build string) { s.join(t, lifecycle.Join{ProjectID: "demo", CIBuildID: build}) }

		start("1")
		start("2")
		if got := s.data(t, "POST", path+"/disable", nil); got["enabled"] != false || got["disabledReason"] != nil || held() != 2 || pending() != 0 {
			t.Fatalf("disabled: %v, held %d, pending %d", got, held(), pending())
		}
		start("3") // nobody listens
		if held() != 2 || pending() != 0 {
			t.Fatalf("a disabled webhook got an event")
		}
		s.data(t, "POST", path+"/disable", nil) // again changes nothing
		kicks := s.kicks.Load()
		if got := s.data(t, "POST", path+"/enable", nil); got["enabled"] != true || fmt.Sprint(got["resumed"]) != "2" || held() != 0 || pending() != 2 {
			t.Fatalf("enabled: %v, held %d, pending %d", got, held(), pending())
		}
		if s.kicks.Load() == kicks {
			t.Error("the delivery engine was not told")
		}
		if got := s.data(t, "POST", path+"/enable", nil); fmt.Sprint(got["resumed"]) != "0" {
			t.Errorf("enabled again: %v", got)
		}

		s.data(t, "PUT", path, object{"enabled": false, "label": "off"})
		if held() != 2 {
			t.Fatalf("PUT enabled=false holds %d", held())
		}
		if got := s.data(t, "PUT", path, object{"label": "still off"}); got["enabled"] != false || held() != 2 {
			t.Errorf("another change enabled it: %v", got)
		}
		if got := s.data(t, "PUT", path, object{"enabled": true}); fmt.Sprint(got["resumed"]) != "2" || pending() != 2 {
			t.Errorf("PUT enabled=true: %v", got)
		}

		// We disabled it: why shows, and goes when a person enables it.
		s.write(t, func(ctx context.Context, tx *store.Tx) error {
			e, err := tx.LockEndpoint(ctx, id)
			if err != nil {
				return err
			}
			e.Enabled, e.DisabledReason = false, "It answered 410 Gone."
			return tx.UpdateEndpoint(ctx, e)
		})
		if got := s.data(t, "GET", path, nil); got["disabledReason"] != "It answered 410 Gone." {
			t.Errorf("disabled by us: %v", got)
		}
		if got := s.data(t, "POST", path+"/enable", nil); got["disabledReason"] != nil {
			t.Errorf("enabled: %v", got)
		}
	})
}

func TestDeliveries(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		s.project(t, "demo")
		id := s.hook(t, "demo", object{})
		list := "/v1/webhooks/" + id + "/deliveries"
		joined := s.join(t, lifecycle.Join{ProjectID: "demo", CIBuildID: "b-1", Group: "e2e"})

		all := s.items(t, list)
		if len(all) != 1 || all[0]["event"] != "RUN_START" || all[0]["groupId"] != "e2e" || all[0]["status"] != "pending" || all[0]["hookId"] != id ||
			all[0]["runId"] != joined.RunID || fmt.Sprint(all[0]["attemptCount"]) != "0" || all[0]["nextAttemptAt"] == nil || all[0]["finishedAt"] != nil {
			t.Fatalf("deliveries: %v", all)
		}
		path := "/v1/deliveries/" + all[0]["deliveryId"].(string)
		if got := s.data(t, "GET", path, nil); len(got["attempts"].([]any)) != 0 {
			t.Errorf("before any attempt: %v", got)
		}

		s.attemptAll(t, webhook.Attempt{RequestHeaders: webhook.Headers{{Name: "Content-Type", Value: "application/json"}}, Class: webhook.BadStatus, Status: 503,
			Duration: 1234567 * time.Microsecond, ResponseHeaders: webhook.Headers{{Name: "Retry-After", Value: "7"}}, ResponseBody: []byte("later \xc3\xa4 \xc3"), Error: "responded with 503"}, webhook.Waiting)
		got := s.data(t, "GET", path, nil)
		tried := got["attempts"].([]any)[0].(object)
		request, resp := tried["request"].(object), tried["response"].(object)
		var payload webhook.Payload
		if err := json.Unmarshal([]byte(request["body"].(string)), &payload); err != nil || payload.Event != webhook.RunStart || payload.BuildID != "b-1" || payload.GroupID != "e2e" {
			t.Errorf("request body %v: %v", request["body"], err)
		}
		if fmt.Sprint(tried["durationMs"]) != "1234" || tried["class"] != "status" || tried["error"] != "responded with 503" || fmt.Sprint(resp["status"]) != "503" ||
			resp["headers"].(object)["Retry-After"] != "7" || resp["body"] != "later ä " || resp["base64"] != false || request["headers"].(object)["Content-Type"] != "application/json" {
			t.Errorf("attempt: %v", tried)
		}
		if got["status"] != "pending" || got["nextAttemptAt"] == nil || tried["nextAttemptAt"] != got["nextAttemptAt"] {
			t.Errorf("nextAttemptAt: %v of the delivery, %v of the attempt", got["nextAttemptAt"], tried["nextAttemptAt"])
		}

		// A second run: a receiver that answers bytes, and one that does not answer.
		s.join(t, lifecycle.Join{ProjectID: "demo", CIBuildID: "b-2"})
		s.attemptAll(t, webhook.Attempt{Class: webhook.OK, Status: 200, ResponseBody: []byte("\x00\xff\x01")}, webhook.Delivered)
		second := s.items(t, list+"?status=delivered")
		got = s.data(t, "GET", "/v1/deliveries/"+second[0]["deliveryId"].(string), nil)
		resp = got["attempts"].([]any)[0].(object)["response"].(object)
		if resp["body"] != "AP8B" || resp["base64"] != true || got["finishedAt"] == nil || got["nextAttemptAt"] != nil || got["groupId"] != "b-2" {
			t.Errorf("delivery: %v", got)
		}
		if _, err := s.runs.Cancel(t.Context(), joined.RunID, "test", ""); err != nil {
			t.Fatal(err)
		}
		third := s.join(t, lifecycle.Join{ProjectID: "demo", CIBuildID: "b-3"})
		s.attemptAll(t, webhook.Attempt{Class: webhook.DNS, Error: "no such host"}, webhook.Failed)
		failed := s.items(t, list+"?status=failed")
		if len(failed) == 0 {
			t.Fatal("nothing has failed")
		}
		got = s.data(t, "GET", "/v1/deliveries/"+failed[0]["deliveryId"].(string), nil)
		if tried := got["attempts"].([]any)[0].(object); tried["response"] != nil || tried["error"] != "no such host" || tried["nextAttemptAt"] != nil {
			t.Errorf("attempt without an answer: %v", tried)
		}

		for query, want := range map[string]int{
			"":                                  4,
			"?event=RUN_START":                  3,
			"?event=RUN_CANCELED":               1,
			"?event=RUN_START&event=RUN_FINISH": 3,
			"?runId=" + third.RunID:             1,
			"?runId=none":                       0,
			"?since=2026-01-01":                 4,
			"?until=2026-01-01":                 0,
			"?status=delivered&event=RUN_START": 1,
		} {
			if got := s.items(t, list+query); len(got) != want {
				t.Errorf("deliveries%s: %d, want %d", query, len(got), want)
			}
		}
		s.call(t, http.StatusNotFound, "GET", "/v1/webhooks/none/deliveries", nil)
		s.call(t, http.StatusNotFound, "GET", "/v1/deliveries/none", nil)

		var want []string
		for _, d := range s.items(t, list+"?limit=100") {
			want = append(want, d["deliveryId"].(string))
		}
		checkPages(t, s, list+"?x=", "deliveryId", want, 2)
	})
}

func TestAsText(t *testing.T) {
	for body, want := range map[string]string{
		"":                     "",
		"plain":                "plain",
		"ä":                    "ä",
		"cut \xc3":             "cut ",
		"cut \xf0\x9f\x98":     "cut ",
		"a\x00b":               "binary",
		"\xff":                 "binary",
		"text \xff":            "binary",
		"\xc3(":                "binary",
		"\x00 \xc3":            "binary",
		"\xc3\xc3":             "binary",
		"\xff\xf0\x9f\x98":     "binary",
		strings.Repeat("ä", 9): strings.Repeat("ä", 9),
	} {
		got, isText := asText([]byte(body))
		if !isText {
			got = "binary"
		}
		if got != want {
			t.Errorf("%q reads %q, want %q", body, got, want)
		}
	}
}

// Changes of different fields at the same time must all stay.
func TestChangesAtTheSameTime(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		s.project(t, "demo")
		hook := "/v1/webhooks/" + s.hook(t, "demo", object{})
		changes := map[string][]object{
			hook:                {{"label": "x"}, {"headers": `{"X-A":"1"}`}, {"scope": "run"}, {"hookEvents": []string{}}, {"url": "https://hooks.example/new"}, {"enabled": false}},
			"/v1/projects/demo": {{"name": "x"}, {"failFast": 5}, {"retentionDays": 9}, {"completionDelaySeconds": 7}, {"defaultBranchName": "dev"}, {"inactivityTimeoutSeconds": 77}},
		}
		var all sync.WaitGroup
		for path, bodies := range changes {
			for _, body := range bodies {
				all.Go(func() {
					if resp := s.fetch(t, "PUT", path, s.writeKey, body); resp.status != http.StatusOK {
						t.Errorf("PUT %s %v: %s", path, body, resp.text)
					}
				})
			}
		}
		all.Wait()
		for path, bodies := range changes {
			got := s.data(t, "GET", path, nil)
			for _, body := range bodies {
				for name, want := range body {
					if fmt.Sprint(got[name]) != fmt.Sprint(want) {
						t.Errorf("%s: %s is %v, want %v", path, name, got[name], want)
					}
				}
			}
		}
	})
}
