package endpoint_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"runbell/internal/endpoint"
	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/testkit"
	"runbell/internal/webhook"
)

// world is the verbs on a database, with a project.
type world struct {
	*testing.T
	db        *store.DB
	endpoints *endpoint.Service
	told      []string // endpoints of which the engine was told
	onChange  func()
}

func onEach(t *testing.T, test func(*world)) {
	t.Helper()
	testkit.OnEach(t, func(t *testing.T, db *store.DB) { test(newWorld(t, db)) })
}

func newWorld(t *testing.T, db *store.DB) *world {
	w := &world{T: t, db: db}
	check := func(url string) error {
		if !strings.HasPrefix(url, "https://") {
			return errors.New("The URL must start with https://")
		}
		return nil
	}
	w.endpoints = endpoint.New(db, "https://runbell.test/", check, func(ids ...string) {
		w.told = append(w.told, ids...)
		if w.onChange != nil {
			w.onChange()
		}
	})
	testkit.Project(t, db, "shop", func(p *run.Project) { p.DefaultBranch = "trunk" })
	return w
}

func (w *world) write(f func(context.Context, *store.Tx) error) {
	w.Helper()
	testkit.Write(w, w.db, f)
}

func (w *world) create() webhook.Endpoint {
	w.Helper()
	e, err := w.endpoints.Create(w.Context(), "shop", endpoint.Settings{URL: new("https://example.com")}, "by a test")
	if err != nil {
		w.Fatal(err)
	}
	return e
}

// queue queues test sends and answers the deliveries.
func (w *world) queue(id string, n int) (ids []string) {
	w.Helper()
	w.write(func(ctx context.Context, tx *store.Tx) error {
		ids = nil
		for range n {
			d, err := tx.InsertTest(ctx, webhook.NewEndpoint(id, "shop"), webhook.Event{ID: webhook.NewID("evt_", tx.Now), ProjectID: "shop", Scope: run.GroupScope, Kind: webhook.RunStart, Payload: []byte("{}"), CreatedAt: tx.Now})
			if err != nil {
				return err
			}
			ids = append(ids, d)
		}
		return nil
	})
	return ids
}

// end records an attempt of everything that is due.
func (w *world) end(id string, state webhook.DeliveryState) (n int) {
	w.Helper()
	w.write(func(ctx context.Context, tx *store.Tx) error {
		if _, err := tx.TakeLane(ctx, id, "n", tx.Now.Add(time.Hour)); err != nil {
			return err
		}
		work, err := tx.Work(ctx, id, store.QueuePosition{}, 10_000, nil)
		if err != nil {
			return err
		}
		var outcomes []*store.Outcome
		for _, c := range work.Claims {
			outcomes = append(outcomes, &store.Outcome{Delivery: c.Delivery, EndedAt: tx.Now, Attempt: webhook.Attempt{Number: c.Attempts + 1, StartedAt: tx.Now, Class: webhook.OK, Status: 200},
				Decision: webhook.Decision{State: state, Wait: time.Hour}})
		}
		n = len(outcomes)
		_, err = tx.RecordAttempts(ctx, "n", outcomes)
		return err
	})
	return n
}

func (w *world) count(f store.DeliveryFilter) (n int64) {
	w.Helper()
	w.write(func(ctx context.Context, tx *store.Tx) (err error) {
		n, err = tx.CountDeliveries(ctx, f)
		return err
	})
	return n
}

func (w *world) history(id string) (texts []string) {
	w.Helper()
	w.write(func(ctx context.Context, tx *store.Tx) error {
		list, err := tx.History(ctx, id, 1000)
		texts = nil
		for _, h := range list {
			texts = append(texts, string(h.Kind)+": "+h.Text)
		}
		slices.Sort(texts)
		return err
	})
	return texts
}

func states(s ...webhook.DeliveryState) []webhook.DeliveryState { return s }

func TestCreateAndChange(t *testing.T) {
	onEach(t, func(w *world) {
		e := w.create()
		if e.Scope != run.GroupScope || !slices.Equal(e.Events, webhook.Kinds()) || !e.Enabled || e.MaxInFlight != webhook.DefaultInFlight || e.RatePerMinute != 0 ||
			e.Filters.Result != webhook.AnyResult || e.Private != "" || e.CreatedAt.IsZero() {
			w.Errorf("created %+v", e)
		}
		if _, err := e.Secret.Key(); err != nil {
			w.Error(err)
		}
		if w.create().Secret == e.Secret {
			w.Error("two have one secret")
		}
		changed, resumed, err := w.endpoints.Change(w.Context(), e.ID, endpoint.Settings{Label: new("chat"), RatePerMinute: new(7), Events: &[]webhook.Kind{webhook.RunFinish, webhook.RunFinish}}, "by a test")
		if err != nil || resumed != 0 || changed.Label != "chat" || changed.RatePerMinute != 7 || changed.URL != e.URL || len(changed.Events) != 1 || changed.Secret != e.Secret {
			w.Errorf("changed to %+v, %d resumed, %v", changed, resumed, err)
		}
		if !slices.Contains(w.told, e.ID) {
			w.Error("the engine was not told")
		}
		for _, c := range []struct {
			settings endpoint.Settings
			says     string
		}{
			{endpoint.Settings{URL: new("")}, "1 to 2048 characters"},
			{endpoint.Settings{URL: new("http://x")}, "must start with https://."},
			{endpoint.Settings{URL: new("https://x/\n")}, "percent-encode"},
			{endpoint.Settings{Label: new("a\x00")}, "control characters"},
			{endpoint.Settings{Scope: new(run.Scope("world"))}, "scope must be group or run"},
			{endpoint.Settings{Events: &[]webhook.Kind{"RUN_END"}}, `not "RUN_END"`},
			{endpoint.Settings{Headers: &map[string]string{"Webhook-Id": "x"}}, "the server sets"},
			{endpoint.Settings{Headers: &map[string]string{"A": "hunter2\n"}}, "printable ASCII"},
			{endpoint.Settings{Branches: &[]string{"!"}}, "excludes nothing"},
			{endpoint.Settings{Tags: &[]string{"\xff"}}, "control characters"},
			{endpoint.Settings{Result: new(webhook.Result(""))}, "filters.result must be any"},
			{endpoint.Settings{MaxInFlight: new(0)}, "1 to 256"},
			{endpoint.Settings{RatePerMinute: new(-1)}, "1 to 60000"},
		} {
			_, _, err := w.endpoints.Change(w.Context(), e.ID, c.settings, "by a test")
			if run.KindOf(err) != run.Invalid || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "hunter2") {
				w.Errorf("%+v: %v, want it to say %q", c.settings, err, c.says)
			}
		}
		if _, err := w.endpoints.Create(w.Context(), "shop", endpoint.Settings{}, ""); run.KindOf(err) != run.Invalid {
			w.Errorf("without a URL: %v", err)
		}
		if _, err := w.endpoints.Create(w.Context(), "none", endpoint.Settings{URL: new("https://x")}, ""); run.KindOf(err) != run.NotFound {
			w.Errorf("in no project: %v", err)
		}
		if _, _, err := w.endpoints.Change(w.Context(), "none", endpoint.Settings{}, ""); run.KindOf(err) != run.NotFound {
			w.Errorf("of none: %v", err)
		}
	})
}

// What is held is resumed in parts, and the answer says how many that were.
// A project has a limited number of webhooks, because an event goes to all in one transaction.
func TestAProjectHasSomeWebhooks(t *testing.T) {
	onEach(t, func(w *world) {
		var last webhook.Endpoint
		for range webhook.MaxEndpoints {
			last = w.create()
		}
		settings := endpoint.Settings{URL: new("https://example.com")}
		_, err := w.endpoints.Create(w.Context(), "shop", settings, "by a test")
		if run.KindOf(err) != run.Refused || !strings.Contains(err.Error(), "delete one first") {
			w.Errorf("one more: %v", err)
		}
		if _, err := w.endpoints.Delete(w.Context(), last.ID); err != nil {
			w.Fatal(err)
		}
		if _, err := w.endpoints.Create(w.Context(), "shop", settings, "by a test"); err != nil {
			w.Errorf("after one was deleted: %v", err)
		}
	})
}

func TestEnableResumes(t *testing.T) {
	const n = 1001 // more than two parts
	onEach(t, func(w *world) {
		e := w.create()
		w.queue(e.ID, n)
		if w.end(e.ID, webhook.Waiting) != n {
			w.Fatal("not all were tried")
		}
		if _, _, err := w.endpoints.Change(w.Context(), e.ID, endpoint.Settings{Enabled: new(false)}, "by a test"); err != nil {
			w.Fatal(err)
		}
		if got := w.count(store.DeliveryFilter{EndpointID: e.ID, States: states(webhook.Held)}); got != n {
			w.Errorf("%d held", got)
		}
		got, resumed, err := w.endpoints.Change(w.Context(), e.ID, endpoint.Settings{Enabled: new(true)}, "by a test")
		if !got.Enabled || resumed != n || err != nil {
			w.Errorf("enabled %v, %d resumed, %v", got.Enabled, resumed, err)
		}
		if tried := w.end(e.ID, webhook.Delivered); tried != n {
			w.Errorf("%d were due", tried)
		}
		if want := []string{"created: Created by a test.", "disabled: Disabled by a test.", "enabled: Enabled by a test."}; !slices.Equal(w.history(e.ID), want) {
			w.Errorf("history %q", w.history(e.ID))
		}
	})
}

// A history does not grow forever: what pages and the REST API show is kept.
func TestHistoryIsBounded(t *testing.T) {
	onEach(t, func(w *world) {
		e, other := w.create(), w.create()
		w.write(func(ctx context.Context, tx *store.Tx) error {
			for n := range webhook.MaxHistory + 5 {
				tx.Now = tx.Now.Add(time.Second)
				if err := tx.Note(ctx, e.ID, webhook.WasReplayed, fmt.Sprint(n)); err != nil {
					return err
				}
			}
			return nil
		})
		list := w.history(e.ID)
		newest, gone := fmt.Sprint("replayed: ", webhook.MaxHistory+4), "replayed: 4"
		if len(list) != webhook.MaxHistory || !slices.Contains(list, newest) || slices.Contains(list, gone) {
			w.Errorf("%d lines: %q", len(list), list)
		}
		if len(w.history(other.ID)) != 1 {
			w.Error("another webhook has lost its history")
		}
	})
}

func TestRotate(t *testing.T) {
	onEach(t, func(w *world) {
		e := w.create()
		for _, grace := range []time.Duration{-1, endpoint.MaxGrace + 1} {
			if _, err := w.endpoints.Rotate(w.Context(), e.ID, grace, "by a test"); run.KindOf(err) != run.Invalid {
				w.Errorf("a grace of %v: %v", grace, err)
			}
		}
		r, err := w.endpoints.Rotate(w.Context(), e.ID, time.Hour, "by a test")
		if err != nil || r.Previous != e.Secret || r.Secret == e.Secret || !r.PreviousUntil.Equal(r.UpdatedAt.Add(time.Hour)) {
			w.Errorf("rotated: %+v, %v", r, err)
		}
		again, err := w.endpoints.Rotate(w.Context(), e.ID, 0, "by a test")
		if err != nil || again.Previous != "" || !again.PreviousUntil.IsZero() || again.Secret == r.Secret {
			w.Errorf("rotated without a grace: %+v, %v", again, err)
		}
		for _, text := range w.history(e.ID) {
			if strings.Contains(text, strings.TrimPrefix(r.Secret.Reveal(), "whsec_")) {
				w.Error("the history tells a secret")
			}
		}
		if _, err := w.endpoints.Rotate(w.Context(), "none", 0, ""); run.KindOf(err) != run.NotFound {
			w.Errorf("of none: %v", err)
		}
	})
}

// A replay is of any size, and each delivery keeps its event.
func TestReplay(t *testing.T) {
	const n = 1002
	onEach(t, func(w *world) {
		e := w.create()
		ids := w.queue(e.ID, n)
		w.end(e.ID, webhook.Failed)
		start := w.db.Now().Add(-time.Hour)
		w.told = nil
		if got, err := w.endpoints.Replay(w.Context(), e.ID, endpoint.Replay{Since: start, DryRun: true}, "by a test"); got != n || err != nil || len(w.told) != 0 {
			w.Errorf("counted %d, %v; told %d", got, err, len(w.told))
		}
		if got, err := w.endpoints.Replay(w.Context(), e.ID, endpoint.Replay{Since: start}, "by a test"); got != n || err != nil || len(w.told) == 0 {
			w.Errorf("replayed %d, %v; told %d", got, err, len(w.told))
		}
		if got := w.end(e.ID, webhook.Delivered); got != n {
			w.Errorf("%d were due", got)
		}
		if got, err := w.endpoints.Replay(w.Context(), e.ID, endpoint.Replay{Since: start}, "by a test"); got != 0 || err != nil {
			w.Errorf("replayed %d of none, %v", got, err)
		}
		if got, err := w.endpoints.Replay(w.Context(), e.ID, endpoint.Replay{Since: start, All: true, DryRun: true}, "by a test"); got != n || err != nil {
			w.Errorf("%d of all, %v", got, err)
		}
		d, err := w.endpoints.Retry(w.Context(), ids[0])
		if err != nil || d.State != webhook.Waiting || d.Attempts != 2 || d.Earlier != 2 {
			w.Errorf("retried %+v, %v", d, err)
		}
		if _, err := w.endpoints.Retry(w.Context(), "none"); run.KindOf(err) != run.NotFound {
			w.Errorf("retry of none: %v", err)
		}
		if got := w.history(e.ID); len(got) != 2 || !strings.Contains(got[1], "replayed: Failed deliveries since") || !strings.Contains(got[1], "by a test") {
			w.Errorf("history %q: one line for a replay, none for a count", got)
		}
	})
}

func TestSamplesAreOfTheRealShape(t *testing.T) {
	for _, kind := range webhook.Kinds() {
		p := run.NewProject("shop")
		p.DefaultBranch = "trunk"
		sample := endpoint.Sample(kind, p, "https://runbell.test", time.Now()).Payload
		var got webhook.Payload
		if err := json.Unmarshal(sample.Bytes(), &got); err != nil || got.Event != kind || got.Commit.SHA == nil || *got.Commit.DefaultBranch != "trunk" ||
			!strings.HasPrefix(got.RunURL, "https://runbell.test/run/") || (kind == webhook.RunStart) != (got.Overall == 0) {
			t.Errorf("%s: %s, %v", kind, sample.Bytes(), err)
		}
	}
}

func TestDelete(t *testing.T) {
	const n = 501
	onEach(t, func(w *world) {
		e, other := w.create(), w.create()
		w.queue(e.ID, n)
		w.end(e.ID, webhook.Delivered)
		w.queue(e.ID, 1)
		w.queue(other.ID, 1)
		if got, err := w.endpoints.Delete(w.Context(), e.ID); err != nil || got.ID != e.ID {
			w.Fatalf("deleted %+v, %v", got, err)
		}
		if _, err := w.endpoints.Delete(w.Context(), e.ID); run.KindOf(err) != run.NotFound {
			w.Errorf("deleted twice: %v", err)
		}
		if a, b := w.count(store.DeliveryFilter{EndpointID: e.ID}), w.count(store.DeliveryFilter{}); a != 0 || b != 1 {
			w.Errorf("%d deliveries of it are left, %d in all", a, b)
		}
	})
}

// Only the kinds that can be sent to are offered, and an endpoint keeps its kind.
func TestKind(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db)
		e := w.create()
		if e.Kind != webhook.PlainWebhook {
			t.Errorf("a new endpoint is a %q", e.Kind)
		}
		for kind, want := range map[webhook.EndpointKind]string{webhook.Slack: `kind "slack" is not available in this version: use "webhook".`, "pager": `kind must be "webhook", not "pager".`} {
			_, err := w.endpoints.Create(w.Context(), "shop", endpoint.Settings{URL: new("https://example.com"), Kind: &kind}, "by a test")
			if run.KindOf(err) != run.Invalid || !strings.Contains(fmt.Sprint(err), want) {
				t.Errorf("%s: %v, want %q", kind, err, want)
			}
		}
		if _, _, err := w.endpoints.Change(w.Context(), e.ID, endpoint.Settings{Kind: new(webhook.PlainWebhook)}, "by a test"); err != nil {
			t.Errorf("the kind that it has: %v", err)
		}
	})
}
