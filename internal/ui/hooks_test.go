package ui

import (
	"fmt"
	"html"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"runbell/internal/lifecycle"
	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/testkit"
	"runbell/internal/webhook"
)

// A webhook that Runbell disabled does not look like one that fails, or that a person disabled.
func TestDisabledWebhooksHaveAMarkOfTheirOwn(t *testing.T) {
	off := webhook.Health{State: webhook.IsOff}
	page, seen := newWorld(t).page("/signin"), map[tone]string{}
	for name, of := range map[string]struct {
		e webhook.Endpoint
		h webhook.Health
	}{"failing": {h: webhook.Health{State: webhook.Failing}}, "by Runbell": {webhook.Endpoint{DisabledReason: "It failed for five days."}, off},
		"by a person": {h: off}, "healthy": {h: webhook.Health{State: webhook.Healthy}}} {
		_, mark := healthWord(of.e, of.h)
		if other, known := seen[mark]; known {
			t.Errorf("%s and %s have the same mark %q", name, other, mark)
		}
		seen[mark] = name
		if !strings.Contains(page, `id="mark-`+string(mark)+`"`) {
			t.Errorf("pages have no mark %q", mark)
		}
	}
}

// makeHook makes a webhook by the form and returns the address of its page.
func (w *world) makeHook(pairs ...string) (string, string) {
	w.t.Helper()
	fields := append([]string{"url", "https://chat.example.test/hook", "scope", "group", "result", "any", "payload", "default", "inflight", "16"}, pairs...)
	for _, k := range webhook.Kinds() {
		fields = append(fields, "event", string(k))
	}
	f := form(fields...)
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i] != "event" {
			f.Set(pairs[i], pairs[i+1])
		}
	}
	rec := w.send(http.MethodPost, "/projects/shop/webhooks/new", f)
	if rec.Code != http.StatusOK {
		w.t.Fatalf("new webhook: %d\n%s", rec.Code, text(rec.Body.String()))
	}
	m := regexp.MustCompile(`action="(/projects/shop/webhooks/[0-9a-f-]{36})/secret"`).FindStringSubmatch(rec.Body.String())
	if m == nil {
		w.t.Fatalf("the page is not that of the webhook:\n%s", text(rec.Body.String()))
	}
	return m[1], rec.Body.String()
}

func TestLifeOfAWebhook(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	w.token = w.person("mia", store.Member)
	wants(t, w.page("/projects/shop/webhooks"), "No webhooks yet.")
	page := w.page("/projects/shop/webhooks/new")
	wellFormed(t, page)
	wants(t, page, "Preview: recent runs", "The project has no runs yet.", `"buildId": "runbell-test"`)

	for _, c := range []struct{ field, value, why string }{
		{"url", "http://10.0.0.1/", "private address"},
		{"headers", "nonsense", "Write each header as Name: value"},
		{"headers", "Webhook-Id: x", "the server sets"},
		{"headers", "X-A: …", "The header X-A has no value yet"},
		{"headers", "X-A: 1\nX-A: 2", "is listed twice"},
		{"inflight", "many", "must be a whole number"},
		{"inflight", "1000", "maxInFlight must be"},
		{"label", strings.Repeat("x", 256), "label must have"},
	} {
		f := form("url", "https://chat.example.test/hook", "scope", "group", "result", "any", "payload", "default", "inflight", "16")
		f.Set(c.field, c.value)
		rec := w.send("POST", "/projects/shop/webhooks/new", f)
		if rec.Code != http.StatusBadRequest {
			t.Errorf("%s %q: %d", c.field, c.value, rec.Code)
		}
		wellFormed(t, rec.Body.String())
		wants(t, rec.Body.String(), c.why)
	}

	hook, made := w.makeHook("label", "chat <b>", "headers", "Authorization: Bearer s3cr3t\nX-Team: web", "branches", "main\nrelease/*", "result", "failed", "rate", "60", "ed25519", "on")
	wellFormed(t, made)
	secret := regexp.MustCompile(`whsec_[\w+/=]+`).FindString(html.UnescapeString(made))
	wants(t, made, "Signing secret:", "whpk_", "runbell listen --secret "+secret, "HMAC-SHA256 and ed25519")
	if strings.Contains(made, "data-live") {
		t.Error("the page with the secret updates itself, to one without it")
	}
	page = w.page(hook)
	wellFormed(t, page)
	wants(t, page, "No deliveries yet chat <b>", "all events, per group", "branches main, release/*; failed only", "Authorization", "16 requests, 60 a minute", "No deliveries yet.", "Created by mia.")
	lacks(t, page, "s3cr3t", secret)
	wants(t, w.page("/projects/shop/webhooks"), "No deliveries yet chat <b>", "no successful delivery yet")

	// Changing keeps the values of headers that are only named.
	page = w.page(hook + "/edit")
	wellFormed(t, page)
	lacks(t, page, "s3cr3t", secret)
	wants(t, page, "Authorization: …")
	w.post(hook+"/edit", "url", "https://chat.example.test/other", "scope", "run", "result", "any", "event", "RUN_FINISH", "inflight", "8", "headers", "Authorization: …", "payload", "extended")
	id := hook[strings.LastIndex(hook, "/")+1:]
	endpoint := func() (e webhook.Endpoint) {
		w.check(w.db.Read(w.ctx, func(tx *store.Tx) (err error) {
			e, err = tx.Endpoint(w.ctx, id)
			return err
		}))
		return e
	}
	if e := endpoint(); e.URL != "https://chat.example.test/other" || len(e.Headers) != 1 || e.Headers["Authorization"] != "Bearer s3cr3t" || e.Scope != run.RunScope ||
		len(e.Events) != 1 || len(e.Filters.Branches) != 0 || e.MaxInFlight != 8 || e.RatePerMinute != 0 || e.Private != "" || e.Label != "" || e.Payload != webhook.ExtendedForm {
		t.Errorf("changed to %+v", e)
	}

	// The secret, on request and after a rotation.
	rec := w.send("POST", hook+"/secret", form())
	if rec.Header().Get("Cache-Control") != "no-store" || rec.Header().Get("Content-Encoding") != "" {
		t.Errorf("the secret may be kept: %v", rec.Header())
	}
	wants(t, rec.Body.String(), secret)
	w.refused(400, "hours the old secret stays valid: 0 to 720", hook+"/rotate", "hours", "9999")
	rec = w.send("POST", hook+"/rotate", form("hours", "24"))
	wants(t, rec.Body.String(), "old secret valid until", endpoint().Secret.Reveal())
	if endpoint().Secret.Reveal() == secret {
		t.Error("the secret is the same")
	}

	// A test send leads to what is answered.
	to := w.post(hook+"/test", "event", "RUN_FINISH")
	page = w.page(to)
	wellFormed(t, page)
	wants(t, page, "Pending RUN_FINISH Test with sample data", `"event": "RUN_FINISH"`, "No attempts yet.")
	if !strings.Contains(page, `data-live="1"`) {
		t.Error("the page does not wait for the answer")
	}
	wants(t, w.page(hook), "RUN_FINISH test Pending no attempt yet")
	w.refused(400, "event must be", hook+"/test", "event", "RUN_STOP")

	w.post(hook + "/disable")
	page = w.page(hook)
	wants(t, page, "Disabled", "Enable and send 1 held delivery", "RUN_FINISH test Held no attempt yet until the webhook is enabled")
	w.refused(400, "enable it first", hook+"/test", "event", "RUN_FINISH")
	w.post(hook + "/enable")
	wants(t, w.page(hook), "Enabled by mia.", "Disabled by mia.")

	w.refused(400, "Type delete to delete the webhook", hook+"/delete", "confirm", "no")
	if to := w.post(hook+"/delete", "confirm", "delete"); to != "/projects/shop/webhooks?done=hookdeleted" {
		t.Errorf("leads to %s", to)
	}
	if rec := w.get(hook); rec.Code != http.StatusNotFound {
		t.Errorf("after it was deleted: %d", rec.Code)
	}
}

func TestWebhooksOfOtherProjectsAreNotFound(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	testkit.Project(t, w.db, "other")
	w.token = w.person("mia", store.Member)
	hook, _ := w.makeHook()
	to := w.post(hook+"/test", "event", "RUN_START")
	for _, path := range []string{hook, hook + "/edit", hook + "/replay", to} {
		if rec := w.get(strings.Replace(path, "/shop/", "/other/", 1)); rec.Code != http.StatusNotFound {
			t.Errorf("GET %s of another project: %d", path, rec.Code)
		}
	}
	for _, path := range []string{"/edit", "/enable", "/disable", "/delete", "/secret", "/rotate", "/test", "/replay"} {
		f := form("since", "2026-01-01T00:00", "hours", "1", "confirm", "delete", "event", "RUN_START", "url", "https://x.example.test")
		if rec := w.send("POST", strings.Replace(hook, "/shop/", "/other/", 1)+path, f); rec.Code != http.StatusNotFound {
			t.Errorf("POST %s of another project: %d", path, rec.Code)
		}
	}
}

func TestPreviewOfAWebhook(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	w.token = w.person("mia", store.Member)
	green, red := []spec{passing("a.cy.js", "a > one")}, []spec{failing("b.cy.js")}
	unsaid := func(build string, specs []spec) lifecycle.Join {
		j := shopJoin(build, specs...)
		j.Commit.Message = "" // the build is what the run is called
		return j
	}
	w.play(unsaid("build-1", red), red)
	w.play(unsaid("build-2", green), green)
	j := unsaid("build-3", green)
	j.Commit.Branch, j.Tags = "main", nil
	w.play(j, green)
	w.join(unsaid("build-4", green))
	preview := func(pairs ...string) string {
		f := form("url", "https://x.example.test", "scope", "run", "result", "any", "payload", "default")
		for i := 0; i < len(pairs); i += 2 {
			f.Del(pairs[i])
		}
		for i := 0; i < len(pairs); i += 2 {
			f.Add(pairs[i], pairs[i+1])
		}
		rec := w.send("POST", "/projects/shop/webhooks/preview", f)
		if rec.Code != http.StatusOK {
			t.Fatalf("preview: %d", rec.Code)
		}
		wellFormed(t, rec.Body.String())
		_, after, _ := strings.Cut(rec.Body.String(), `id="preview"`)
		return text("<body>" + after)
	}
	for _, c := range []struct {
		pairs []string
		want  string
	}{
		{[]string{"event", "RUN_START", "event", "RUN_FINISH"}, "7 deliveries for the latest 4 runs, up to 2 per run. build-4 feat/button-colour 1 delivery RUN_START build-3 main 2 deliveries RUN_START RUN_FINISH build-2 feat/button-colour 2 deliveries RUN_START RUN_FINISH build-1"},
		{[]string{"event", "RUN_FINISH", "result", "failed"}, "1 delivery for the latest 4 runs, up to 1 per run. build-1 feat/button-colour 1 delivery RUN_FINISH The body for build-1:"},
		{[]string{"event", "RUN_FINISH", "result", "recovered"}, "build-2 feat/button-colour 1 delivery RUN_FINISH The body for build-2:"},
		{[]string{"event", "RUN_FINISH", "branches", "main"}, "build-3 main 1 delivery RUN_FINISH The body for build-3:"},
		{[]string{"event", "RUN_FINISH", "tags", "smoke", "branches", "!feat/*"}, "No deliveries for the latest 4 runs. A sample body:"},
		{[]string{}, "No deliveries for the latest 4 runs."},
	} {
		got := preview(c.pairs...)
		if !strings.Contains(got, c.want) {
			t.Errorf("%v: %s\nwant %s", c.pairs, run.Clip(got, 400), c.want)
		}
		if strings.Contains(got, `"facts"`) {
			t.Errorf("%v: the default payload has facts: %s", c.pairs, got)
		}
	}
	// The facts are those of the run, at the event: at its start nothing has failed.
	for pairs, failures := range map[[2]string]bool{{"RUN_FINISH", "failed"}: true, {"RUN_START", "any"}: false} {
		got := preview("event", pairs[0], "result", pairs[1], "payload", "extended")
		if !strings.Contains(got, `"facts": { "project": { "projectId": "shop"`) || strings.Contains(got, `"failures": [ { "groupId"`) != failures {
			t.Errorf("%v: %s", pairs, got)
		}
	}
}

// TestPreviewOfRecoveredGroups: at group scope the preview lists what was sent. A
// group recovers after its own failure, not after that of another group.
func TestPreviewOfRecoveredGroups(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	w.token = w.person("mia", store.Member)
	hook, _ := w.makeHook("scope", "group", "event", "RUN_FINISH", "result", "recovered")
	green, red := []spec{passing("a.cy.js", "a > one")}, []spec{failing("b.cy.js")}
	w.check(w.db.Write(w.ctx, func(tx *store.Tx) error {
		p, err := tx.Project(w.ctx, "shop")
		if err != nil {
			return err
		}
		p.CompletionDelay = 0
		return tx.UpdateProject(w.ctx, p)
	}))
	var last string
	for _, b := range []struct {
		build, group string
		specs        []spec
	}{{"build-1", "unit", red}, {"build-2", "e2e", green}, {"build-3", "unit", green}} {
		j := shopJoin(b.build, b.specs...)
		j.Group = b.group
		last = w.play(j, b.specs)
	}
	rec := w.send("POST", "/projects/shop/webhooks/preview", form("url", "https://x.example.test", "scope", "group", "event", "RUN_FINISH", "result", "recovered"))
	_, after, _ := strings.Cut(rec.Body.String(), `id="preview"`)
	if got, want := text("<body>"+after), "1 delivery for the latest 3 runs, up to 1 per run. feat: change button colour feat/button-colour 1 delivery RUN_FINISH"; !strings.Contains(got, want) {
		t.Errorf("the preview says %s\nwant %s", run.Clip(got, 400), want)
	}
	w.check(w.db.Read(w.ctx, func(tx *store.Tx) error {
		list, _, err := tx.Deliveries(w.ctx, store.DeliveryFilter{EndpointID: hook[strings.LastIndex(hook, "/")+1:]}, store.Page{Limit: 10})
		if err == nil && (len(list) != 1 || list[0].RunID != last) {
			t.Errorf("sent: %+v; want build-3", list)
		}
		return err
	}))
}

// TestDeliveryLog records attempts as the engine does, and looks at them.
func TestDeliveryLog(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	w.token = w.person("mia", store.Member)
	hook, _ := w.makeHook("label", "chat")
	id := hook[strings.LastIndex(hook, "/")+1:]
	runs := 40
	for n := range runs {
		s := []spec{passing("a.cy.js", "a > one")}
		w.play(shopJoin(fmt.Sprintf("build-%d", n), s...), s)
	}
	const evil = "<script>alert(1)</script>\x1b[31m"
	var failed webhook.Delivery
	w.record(id, func(d webhook.Delivery) (webhook.Attempt, bool) {
		if failed.ID == "" && d.Kind == webhook.RunStart {
			failed = d
			return webhook.Attempt{Class: webhook.BadStatus, Status: 500, Error: "responded with 500 " + evil, Duration: 12 * time.Millisecond,
				RequestHeaders: webhook.Headers{{Name: "Authorization", Value: "Bearer s3cr3t", Secret: true}}, ResponseHeaders: webhook.Headers{{Name: "X-Evil", Value: evil}}, ResponseBody: []byte(evil)}, false
		}
		return webhook.Attempt{Class: webhook.OK, Status: 204, ResponseBody: []byte{0xff, 0}}, true
	})
	page := w.page(hook)
	wellFormed(t, page)
	wants(t, page, "RUN_FINISH feat: change button colour Delivered 204 No Content 1 attempt")
	older := regexp.MustCompile(`href="([^"]+)" rel="next">Older`).FindStringSubmatch(page)
	if older == nil {
		t.Fatal("the log has no second page")
	}
	second := w.page(strings.TrimSuffix(html.UnescapeString(older[1]), "#log"))
	if first, rest := strings.Count(page, `class="kind-link" href="`), strings.Count(second, `class="kind-link" href="`); first != deliveriesPerPage || first+rest != 2*runs {
		t.Errorf("%d and %d deliveries on two pages", first, rest)
	}
	page = w.page(hook + "?state=failed")
	if n := strings.Count(page, `class="kind-link" href="`); n != 1 {
		t.Errorf("%d deliveries failed", n)
	}
	wants(t, w.page(hook+"?state=failed&event=RUN_FINISH"), "No deliveries match.")
	wants(t, w.page(hook+"?to=2020-01-01"), "No deliveries match.")
	if page := w.page(hook + "?from=2020-01-01&event=RUN_START"); !strings.Contains(page, `title="build-39"`) {
		t.Error("the start of build-39 is not found")
	}
	for query, want := range map[string]int{"response=2xx&state=delivered": deliveriesPerPage, "response=5xx": 1, "response=4xx": 0, "response=NONE": 0} {
		if got := strings.Count(w.page(hook+"?"+query), `class="kind-link" href="`); got != want {
			t.Errorf("%s finds %d deliveries, want %d", query, got, want)
		}
	}
	wants(t, w.page(hook), "Last 24 hours", "1 failed 79 delivered")

	at := "/projects/shop/deliveries/" + failed.ID
	page = w.page(at)
	wellFormed(t, page)
	wants(t, page, "Failed RUN_START Run feat: change button colour", "Attempt 1 500 <script>alert(1)</script> 12 ms", "X-Evil <script>alert(1)</script>", "Authorization …", "Response 500", "Redeliver now")
	lacks(t, page, "<script>", "s3cr3t", "\x1b")

	// Sending again: first how many, then it is done.
	page = w.page(hook + "/replay")
	wellFormed(t, page)
	w.refused(400, "Enter a start date", hook+"/replay", "since", "yesterday")
	rec := w.send("POST", hook+"/replay", form("since", "2020-01-01T00:00", "do", "count"))
	wants(t, rec.Body.String(), "1 delivery would be redelivered.", "Redeliver 1")
	wants(t, w.page(at), "Failed RUN_START")
	rec = w.send("POST", hook+"/replay", form("since", "2020-01-01T00:00", "all", "on", "do", "count"))
	wants(t, rec.Body.String(), "80 deliveries would be redelivered.")
	rec = w.send("POST", hook+"/replay", form("since", "2020-01-01T00:00", "do", "send"))
	wants(t, rec.Body.String(), "1 queued.")
	wants(t, w.page(at), "Pending RUN_START")
	wants(t, w.page(hook), "Failed deliveries since")

	// And one by one, from its page.
	w.post(at + "/retry")
	w.post(hook + "/disable")
	w.refused(400, "enable it first", at+"/retry")
}

// TestASearchOfALogIsBounded: a filter that finds nothing does not look at a
// year's log.
func TestASearchOfALogIsBounded(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	w.token = w.person("mia", store.Member)
	hook, _ := w.makeHook("label", "chat")
	id := hook[strings.LastIndex(hook, "/")+1:]
	w.check(w.db.Write(w.ctx, func(tx *store.Tx) error {
		for n := range 5*testDepth + 10 {
			kind := webhook.RunFinish
			if n == 3 {
				kind = webhook.RunTimeout
			}
			tx.Now = tx.Now.Add(time.Second)
			if _, err := tx.InsertTest(w.ctx, webhook.NewEndpoint(id, "shop"), webhook.Event{ID: webhook.NewID("evt_", tx.Now), ProjectID: "shop", Scope: run.GroupScope, Kind: kind, Payload: []byte("{}"), CreatedAt: tx.Now}); err != nil {
				return err
			}
		}
		return nil
	}))
	page := w.page(hook + "?event=RUN_TIMEOUT")
	wellFormed(t, page)
	wants(t, page, "No matches in the latest 100 deliveries.", "Search older deliveries")
	older := regexp.MustCompile(`href="([^"]+)#log" rel="next">Search`).FindStringSubmatch(page)
	page = w.page(html.UnescapeString(older[1]))
	wants(t, page, "RUN_TIMEOUT test Pending")
	lacks(t, page, "Search older")
}

func TestOverviewOfDeliveries(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	w.token = w.person("ada", store.Admin)
	wants(t, w.page("/deliveries"), "Ready to send 0", "No webhook is failing")
	hook, _ := w.makeHook("label", "chat")
	id := hook[strings.LastIndex(hook, "/")+1:]
	s := []spec{passing("a.cy.js", "a > one")}
	w.play(shopJoin("build-1", s...), s)
	w.record(id, func(webhook.Delivery) (webhook.Attempt, bool) {
		return webhook.Attempt{Class: webhook.DNS, Error: "no such host"}, false
	})
	page := w.page("/deliveries")
	wellFormed(t, page)
	wants(t, page, "1 failing", "Failing chat", "failing since", "shop")
	wants(t, w.page(hook), "Failing since")
}

// record makes the attempts that are due at a webhook, as the engine would. try
// says what comes of each, and whether it was delivered.
func (w *world) record(endpointID string, try func(webhook.Delivery) (webhook.Attempt, bool)) {
	w.t.Helper()
	const node = "node"
	for more := true; more; {
		w.check(w.db.Write(w.ctx, func(tx *store.Tx) error {
			if _, err := tx.TakeLane(w.ctx, endpointID, node, tx.Now.Add(time.Minute)); err != nil {
				return err
			}
			work, err := tx.Work(w.ctx, endpointID, store.QueuePosition{}, 100, nil)
			if err != nil {
				return err
			}
			more = len(work.Claims) > 0
			var outcomes []*store.Outcome
			for _, c := range work.Claims {
				a, ok := try(c.Delivery)
				a.DeliveryID, a.Number, a.StartedAt = c.ID, c.Attempts+1, tx.Now
				state := webhook.Failed
				if ok {
					state = webhook.Delivered
				}
				outcomes = append(outcomes, &store.Outcome{Delivery: c.Delivery, Attempt: a, EndedAt: a.StartedAt, Decision: webhook.Decision{State: state}})
			}
			_, err = tx.RecordAttempts(w.ctx, node, outcomes)
			return err
		}))
	}
}

// TestViewersDoNotSeeWebhookURLs: the URL of a chat's webhook is all that
// it takes to post there.
func TestViewersDoNotSeeWebhookURLs(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	mia, vera := w.person("mia", store.Member), w.person("vera", store.Viewer)
	w.token = mia
	hook, _ := w.makeHook("url", "https://chat.example.test/services/T0/p0st-here")
	w.send("POST", hook+"/test", form("event", "RUN_START"))
	delivery := regexp.MustCompile(`href="(/projects/shop/deliveries/[^"]+)"`).FindStringSubmatch(w.page(hook))
	if delivery == nil {
		t.Fatal("the page of the webhook has no delivery")
	}
	for _, page := range []string{"/projects/shop/webhooks", hook, delivery[1]} {
		w.token = mia
		if !strings.Contains(w.page(page), "p0st-here") {
			t.Errorf("%s: a member does not see the URL", page)
		}
		w.token = vera
		seen := w.page(page)
		wants(t, seen, "https://chat.example.test/…")
		lacks(t, seen, "p0st-here")
	}
	for page, hint := range map[string]string{hook: "Only members and admins see the whole URL.", delivery[1]: "Only members and admins can see them."} {
		wants(t, w.page(page), hint)
		w.token = mia
		lacks(t, w.page(page), hint)
		w.token = vera
	}
}
