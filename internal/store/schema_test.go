package store_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"runbell/internal/lifecycle"
	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/testkit"
	"runbell/internal/webhook"
)

var release = flag.String("release", "", "keep the database of this version as testdata/release-VERSION.db, for a release, such as v1.0.0")

// everything is one of each thing that a database keeps.
type everything struct {
	Project      run.Project
	RecordKey    store.RecordKey
	APIKey       store.APIKey
	Run          run.Run
	Group        run.Group
	Machine      run.Machine
	Instances    []run.Instance
	Announcement run.Announcement
	Outcome      run.Outcome
	Output       string
	Artifacts    []run.Artifact
	Endpoint     webhook.Endpoint
	Health       webhook.Health
	History      []webhook.History // without ids, which are made by chance
	Events       []webhook.Event
	Test         webhook.Event
	Deliveries   []webhook.Delivery // without ids
	Attempts     []webhook.Attempt  // without ids
}

// stored is what fill stores, and so what the kept databases hold. Their clock stood still.
func stored() everything {
	at := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	counts := run.Counts{Passes: 1, Failures: 1, Pending: 1, Skipped: 1, Retries: 2, Flaky: 1}
	instance := run.Instance{RunID: "r1", GroupName: "e2e", Counts: run.Counts{}}
	done, waiting := instance, instance
	done.ID, done.Spec, done.Position, done.MachineID, done.Claim, done.ClaimedAt = "i1", "a.cy.js", 0, "m1", 1, at
	done.Announced, done.AnnouncedAt, done.CompletedAt, done.Counts = 4, at, at, counts
	done.Duration, done.Exception = 1234*time.Millisecond, "the browser crashed"
	waiting.ID, waiting.Spec, waiting.Position = "i2", "b.cy.js", 1
	delivery := webhook.Delivery{EndpointID: "e1", RunID: "r1", CreatedAt: at}
	delivered, held, test := delivery, delivery, delivery
	delivered.EventID, delivered.Kind, delivered.Sequence, delivered.State, delivered.Attempts, delivered.FinishedAt = "evt_1", webhook.RunStart, 1, webhook.Delivered, 1, at
	held.EventID, held.Kind, held.Sequence, held.State = "evt_2", webhook.RunCanceled, 2, webhook.Held
	test.EventID, test.Kind, test.RunID, test.WithFacts, test.State = "evt_3", webhook.RunFinish, "", true, webhook.Held
	return everything{
		Project: run.Project{ID: "shop", Name: "The shop", InactivityTimeout: 90 * time.Second, CompletionDelay: 30 * time.Second,
			DefaultBranch: "main", FailFast: 3, Keep: run.Retention{Runs: 1, FailedArtifacts: 2, PassedArtifacts: 3, Output: 4, Deliveries: 7, ArtifactBytes: 5}, CreatedAt: at},
		RecordKey: store.RecordKey{ID: "k1", ProjectID: "shop", Label: "ci", Hash: "hash-1", Hint: "…abcd", CreatedAt: at},
		APIKey:    store.APIKey{ID: "a1", Label: "script", Write: true, Hash: "hash-2", Hint: "…efgh", CreatedAt: at},
		Run: run.Run{ID: "r1", ProjectID: "shop", CIBuildID: "build-1", Rev: 6, Artifacts: 1, ArtifactBytes: 7, Sequence: 2, Tags: []string{"nightly", "b_c"},
			Commit: run.Commit{SHA: "abc", Branch: "main", AuthorName: "A", AuthorEmail: "a@example.com", Message: "m\n", RemoteOrigin: "git@h:r", DefaultBranch: "main"},
			CI:     run.CI{Provider: "gitlab", Params: map[string]string{"ciPipelineId": "7"}}, Client: run.Client{Name: "cypress-cloud", Version: "1", Framework: run.Framework{Name: "cypress", Version: "13"}},
			FailFast: 2, CompletionDelay: 30 * time.Second, CreatedAt: at, State: run.Canceled, Explicit: true, FinishedAt: at,
			Cancellation: &run.Cancellation{Actor: "api", Reason: "too slow", At: at}},
		Group: run.Group{RunID: "r1", Name: "e2e", Explicit: true, Platform: run.Platform{OSName: "linux", OSVersion: "6", BrowserName: "Chrome", BrowserVersion: "120"},
			SpecHash: "spec-hash", Specs: 2, Claimed: 1, Completed: 1, Counts: counts, CreatedAt: at, State: run.Canceled, FinishedAt: at, HeardAt: at,
			InactivityTimeout: 90 * time.Second},
		Machine:   run.Machine{ID: "m1", RunID: "r1", GroupName: "e2e", Fingerprint: "f", Platform: run.Platform{OSName: "linux"}, JoinedAt: at, Unanswered: true},
		Instances: []run.Instance{done, waiting},
		Announcement: run.Announcement{Tests: []run.Announced{{ID: "r3", Title: []string{"a", "b"}, Body: "() => {}"}},
			Hooks: []run.Hook{{ID: "h1", Name: "before each"}}, Settings: run.Settings{Video: new(true), Retries: 2}},
		Outcome: run.Outcome{Results: []run.Result{{ID: "r3", State: run.Failed, Error: "no", Attempts: []run.Attempt{{State: run.Failed, StartedAt: &at, Duration: 12,
			Error: &run.Failure{Name: "AssertionError", Message: "no", Frame: &run.Frame{File: "a.cy.js", Line: 3, Column: 4, Text: "> 3"}}}}}},
			Screenshots: []run.Screenshot{{ID: "s1", Name: "a", TestID: "r3", TakenAt: &at, Width: 2, Height: 3}}, Video: true},
		Output: "console output\n",
		Artifacts: []run.Artifact{
			{ID: "f1", ProjectID: "shop", RunID: "r1", InstanceID: "i1", Kind: run.CoverageArtifact, ContentType: "application/json", Encoding: "gzip", Size: 7,
				SHA256: "5a5a", FileKey: "f1/f1-key", StoredAt: at},
			{ID: "f2", ProjectID: "shop", RunID: "r1", InstanceID: "i1", Kind: run.VideoArtifact, ContentType: "video/mp4", Problem: "It is too large.", StoredAt: at},
		},
		Endpoint: webhook.Endpoint{ID: "e1", ProjectID: "shop", Kind: webhook.PlainWebhook, Payload: webhook.ExtendedForm, URL: "https://example.com/hook", Headers: map[string]string{"Authorization": "secret"},
			Events: webhook.Kinds(), Label: "chat", Scope: run.GroupScope, DisabledReason: "it answered 410 Gone",
			Filters:     webhook.Filters{Branches: []string{"main", "!dev/*"}, Tags: []string{"nightly"}, Result: webhook.Passed},
			MaxInFlight: 3, RatePerMinute: 120, Secret: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo=",
			Previous: "whsec_AAKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo=", PreviousUntil: at.Add(time.Hour),
			Private: "whsk_only-kept-here", CreatedAt: at, UpdatedAt: at},
		Health:  webhook.Health{State: webhook.IsOff, LastSuccessAt: at.Add(12 * time.Millisecond), Pending: 2},
		History: []webhook.History{{At: at, Kind: webhook.WasDisabled, Text: "it answered 410 Gone"}},
		Events: []webhook.Event{
			{ID: "evt_1", ProjectID: "shop", RunID: "r1", Group: "e2e", Scope: run.GroupScope, Kind: webhook.RunStart, Sequence: 1, Payload: []byte(`{"event":"RUN_START"}`), CreatedAt: at},
			{ID: "evt_2", ProjectID: "shop", RunID: "r1", Group: "e2e", Scope: run.GroupScope, Kind: webhook.RunCanceled, Sequence: 2, Payload: []byte(`{"event":"RUN_CANCELED"}`), CreatedAt: at},
		},
		Test:       webhook.Event{ID: "evt_3", ProjectID: "shop", Scope: run.GroupScope, Kind: webhook.RunFinish, Payload: []byte(`{"event":"RUN_FINISH"}`), Facts: []byte(`{"runId":"r1"}`), CreatedAt: at},
		Deliveries: []webhook.Delivery{delivered, held, test},
		Attempts: []webhook.Attempt{{Number: 1, StartedAt: at, Duration: 12 * time.Millisecond, RequestHeaders: webhook.Headers{{Name: "Authorization", Value: "…"}}, Class: webhook.OK,
			Status: 204, ResponseHeaders: webhook.Headers{{Name: "Date", Value: "today"}}, ResponseBody: []byte("ok \x00\xff")}},
	}
}

func encode(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// fill stores everything, as a life of a run would.
func fill(t testing.TB, db *store.DB, e everything) {
	t.Helper()
	testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) error {
		_, err := tx.InsertProject(ctx, e.Project)
		started, enabled := e.Run, e.Endpoint
		started.Sequence, started.RunningGroups = 0, 1
		enabled.Enabled, enabled.DisabledReason, enabled.Payload = true, "", webhook.DefaultForm
		_, errRun := tx.InsertRun(ctx, started)
		fresh := e.Machine
		fresh.Unanswered = false
		return errors.Join(err, errRun, tx.InsertRecordKey(ctx, e.RecordKey), tx.InsertAPIKey(ctx, e.APIKey), tx.InsertEndpoint(ctx, enabled),
			tx.InsertGroup(ctx, e.Group), tx.InsertInstances(ctx, e.Instances), tx.InsertMachine(ctx, fresh))
	})
	testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) error {
		claimed, err := tx.ClaimNext(ctx, e.Machine, 1, 1)
		if err == nil && len(claimed) != 1 {
			err = fmt.Errorf("%d specs claimed", len(claimed))
		}
		subject := webhook.Subject{Branch: "main", Tags: e.Run.Tags, Results: []webhook.Result{webhook.Passed}}
		_, _, errEvent := lifecycle.FanOut(ctx, tx, e.Events[0], subject, &e.Group)
		_, _, errOther := lifecycle.FanOut(ctx, tx, e.Events[1], subject, &e.Group)
		i := e.Instances[0]
		errFile := tx.InsertFile(ctx, e.Artifacts[0].FileKey, "shop", 1<<20, tx.Now.Add(time.Hour))
		if _, err := tx.PutArtifact(ctx, e.Artifacts[0]); err != nil {
			return err
		}
		return errors.Join(err, errFile, tx.RefuseArtifact(ctx, e.Artifacts[1]), errEvent, errOther, tx.UpdateMachine(ctx, e.Machine),
			tx.AnnounceInstance(ctx, i, encode(t, e.Announcement)), tx.CompleteInstance(ctx, i, encode(t, e.Outcome)), tx.SetOutput(ctx, i, e.Output),
			tx.UpdateGroup(ctx, e.Group), tx.UpdateRun(ctx, e.Run))
	})
	testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) error {
		if ok, err := tx.TakeLane(ctx, e.Endpoint.ID, "node", tx.Now.Add(time.Minute)); err != nil || !ok {
			return fmt.Errorf("took the lane: %v, %w", ok, err)
		}
		work, err := tx.Work(ctx, e.Endpoint.ID, store.QueuePosition{}, 1, nil)
		if err != nil || len(work.Claims) != 1 {
			return fmt.Errorf("%d deliveries claimed: %w", len(work.Claims), err)
		}
		_, err = tx.RecordAttempts(ctx, "node", []*store.Outcome{{Delivery: work.Claims[0].Delivery, Attempt: e.Attempts[0], EndedAt: e.Attempts[0].StartedAt.Add(e.Attempts[0].Duration), Decision: webhook.Decision{State: webhook.Delivered}}})
		_, errTest := tx.InsertTest(ctx, e.Endpoint, e.Test)
		return errors.Join(err, errTest, tx.LeaveLane(ctx, e.Endpoint.ID, "node"), tx.UpdateEndpoint(ctx, e.Endpoint),
			tx.Note(ctx, e.Endpoint.ID, e.History[0].Kind, e.History[0].Text))
	})
}

// readEverything reads what fill has stored.
func readEverything(t testing.TB, db *store.DB) (e everything) {
	t.Helper()
	testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) error {
		var errs [18]error
		e.Project, errs[0] = tx.Project(ctx, "shop")
		e.RecordKey, errs[1] = tx.RecordKeyByHash(ctx, "hash-1")
		e.APIKey, errs[2] = tx.APIKeyByHash(ctx, "hash-2")
		e.Run, errs[3] = tx.Run(ctx, "r1")
		e.Group, errs[4] = tx.Group(ctx, "r1", "e2e")
		e.Machine, errs[5] = tx.Machine(ctx, "r1", "m1")
		e.Instances, errs[6] = tx.Instances(ctx, "r1")
		e.Announcement, e.Outcome, errs[7] = tx.Tests(ctx, "i1")
		e.Output, errs[8] = tx.Output(ctx, "i1")
		e.Endpoint, errs[9] = tx.Endpoint(ctx, "e1")
		e.Events, errs[10] = tx.Events(ctx, "r1")
		e.Deliveries, _, errs[11] = tx.Deliveries(ctx, store.DeliveryFilter{EndpointID: "e1"}, store.Page{Limit: 10})
		slices.SortFunc(e.Deliveries, func(a, b webhook.Delivery) int { return strings.Compare(a.EventID, b.EventID) })
		for i := range e.Deliveries {
			attempts, err := tx.Attempts(ctx, e.Deliveries[i].ID)
			errs[12] = errors.Join(errs[12], err)
			e.Attempts = append(e.Attempts, attempts...)
			e.Deliveries[i].ID = ""
		}
		for i := range e.Attempts {
			e.Attempts[i].DeliveryID = ""
		}
		e.Health, errs[14] = tx.Health(ctx, e.Endpoint)
		e.History, errs[15] = tx.History(ctx, "e1", 10)
		for i := range e.History {
			e.History[i].ID = ""
		}
		if e.Test, errs[16] = tx.Event(ctx, "evt_3"); run.KindOf(errs[16]) == run.NotFound {
			e.Test, errs[16] = webhook.Event{}, nil
		}
		e.Artifacts, errs[17] = tx.Artifacts(ctx, "r1", "i1")
		_, _, errs[13] = tx.Runs(ctx, "shop", store.RunFilter{Statuses: []run.Status{run.StatusFailed}}, store.Page{Limit: 10})
		return errors.Join(errs[:]...)
	})
	return e
}

func TestEverythingIsReadBackAsItWasStored(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		want := stored()
		fill(t, db, want)
		got := readEverything(t, db)
		// Here the clock runs: what the transactions stamped is theirs to say.
		now := got.Deliveries[0].CreatedAt
		if now.IsZero() || got.Deliveries[0].FinishedAt.Before(now) || got.Instances[0].ClaimedAt.IsZero() {
			t.Errorf("a time is missing: %+v", got.Deliveries[0])
		}
		for i := range got.Deliveries {
			want.Deliveries[i].CreatedAt, want.Deliveries[i].FinishedAt = got.Deliveries[i].CreatedAt, got.Deliveries[i].FinishedAt
		}
		want.Instances[0].ClaimedAt = got.Instances[0].ClaimedAt
		want.History[0].At = got.History[0].At
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// TestDatabasesOfReleasesOpen opens what each released version has left behind,
// and a database of this version. A release adds its own with
//
//	go test ./internal/store -run DatabasesOfReleases -release v1.0.0
//
// Those of earlier releases stay as they are: no later version can make them.
func TestDatabasesOfReleasesOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // so that the clock stands still
		path := filepath.Join(t.TempDir(), "this-version.db")
		db, err := store.Open(t.Context(), "sqlite:"+path, testkit.Sealer(t))
		if err != nil {
			t.Fatal(err)
		}
		fill(t, db, stored())
		current, err := db.Version(t.Context())
		// Only a closed database is one file.
		if err = errors.Join(err, db.Close()); err != nil {
			t.Fatal(err)
		}
		if *release != "" {
			copyFile(t, path, "testdata/release-"+*release+".db")
		}
		released, err := filepath.Glob("testdata/release-*.db")
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range append(released, path) {
			checkReleased(t, name, current)
		}
	})
}

// checkReleased opens a copy of a database, compares what is in it, and works on.
func checkReleased(t *testing.T, name string, current int64) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "runbell.db")
	copyFile(t, name, path)
	db := testkit.Open(t, "sqlite:"+path)
	if now, err := db.Version(t.Context()); now != current || err != nil {
		t.Errorf("%s: opened, its schema is %d, %v; want %d", name, now, err, current)
	}
	want := stored()
	if diff := cmp.Diff(want, readEverything(t, db)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
	// And it goes on from there.
	change(t, db, "e1", enable)
	n := newNode(t, db, "node")
	claims := n.claim(10)
	slices.SortFunc(claims, func(a, b store.Claim) int { return strings.Compare(a.EventID, b.EventID) })
	if len(claims) != int(want.Health.Pending) || string(claims[0].Payload) != `{"event":"RUN_CANCELED"}` {
		t.Errorf("%s: claimed %+v", name, claims)
	}
	for _, c := range claims {
		n.conclude(c, webhook.Delivered, 0)
		if d, _ := delivery(t, db, c.ID); d.State != webhook.Delivered {
			t.Errorf("%s: %s is %s", name, c.EventID, d.State)
		}
	}
	insertRun(t, db, "shop", "r2")
	change(t, db, "e1", func(e *webhook.Endpoint) {
		e.Filters, e.Payload = webhook.Filters{Result: webhook.AnyResult}, webhook.DefaultForm
	})
	if _, to := happen(t, db, "r2", 1, webhook.RunStart); len(to) != 1 {
		t.Errorf("%s: an event goes to %q", name, to)
	}
}

func TestADatabaseOfANewerVersionIsRefused(t *testing.T) {
	for kind, makeNewer := range map[string]func(t *testing.T) string{
		"sqlite": func(t *testing.T) string {
			path := filepath.Join(t.TempDir(), "runbell.db")
			closeNow(t, "sqlite:"+path)
			testkit.SetSchema(t, path, 9999)
			return "sqlite:" + path
		},
		"postgres": func(t *testing.T) string {
			url := testkit.Postgres(t)
			closeNow(t, url)
			conn, err := pgx.Connect(t.Context(), url)
			if err != nil {
				t.Fatal(err)
			}
			_, err = conn.Exec(t.Context(), "INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, true)")
			if err = errors.Join(err, conn.Close(t.Context())); err != nil {
				t.Fatal(err)
			}
			return url
		},
	} {
		t.Run(kind, func(t *testing.T) {
			url := makeNewer(t)
			for range 2 { // the refusal leaves nothing locked
				db, err := store.Open(t.Context(), url, testkit.Sealer(t))
				if err == nil {
					db.Close()
					t.Fatal("it was opened")
				}
				for _, s := range []string{"newer Runbell", "schema 9999", "restore the backup"} {
					if !strings.Contains(err.Error(), s) {
						t.Errorf("the message does not say %q: %v", s, err)
					}
				}
			}
		})
	}
}

func closeNow(t *testing.T, url string) {
	t.Helper()
	db, err := store.Open(t.Context(), url, testkit.Sealer(t))
	if err == nil {
		err = db.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestASQLiteFileHasOneOwner(t *testing.T) {
	url := "sqlite:" + filepath.Join(t.TempDir(), "runbell.db")
	db, err := store.Open(t.Context(), url, testkit.Sealer(t))
	if err != nil {
		t.Fatal(err)
	}
	if second, err := store.Open(t.Context(), url, testkit.Sealer(t)); err == nil {
		second.Close()
		t.Error("a second one opened it")
	} else if !strings.Contains(err.Error(), "another runbell uses this database") || !strings.Contains(err.Error(), "PostgreSQL") {
		t.Errorf("the message is %v", err)
	}
	testkit.Project(t, db, "still-there") // the first one is not disturbed
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	closeNow(t, url) // and leaves it to the next
}

// Where SQLite finds a file must not depend on what stands in its name.
func TestSQLiteFilesOfAnyName(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	relative := []string{"r.db", "./r/x y.db", "r?c#d%41&e=ü/runbell.db", "c:x.db"}
	for _, name := range append(relative, "/"+filepath.Join(dir, "slashes.db")) {
		closeNow(t, "sqlite:"+name)
	}
	for _, name := range append(relative, "slashes.db", "plain.db", "with space.db", "q?mode=memory.db", "hash#x.db", "per%20cent.db", "ümläut.db", "sub/dir/x.db", "a&b=c;d.db", ":memory:") {
		path := filepath.Join(dir, name)
		closeNow(t, "sqlite:"+path)
		info, err := os.Stat(path)
		if err != nil {
			t.Errorf("%q: %v", name, err)
			continue
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%q: others may read it: %v", name, info.Mode())
		}
	}
}

// What SQLite puts beside the file while it is in use has the same in it.
func TestOthersReadNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	db := testkit.Open(t, "sqlite:"+path)
	testkit.Project(t, db, "shop")
	files, err := filepath.Glob(path + "*")
	if err != nil || len(files) < 3 {
		t.Fatalf("only %q: %v", files, err)
	}
	for _, name := range files {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%q: others may read it: %v, %v", name, info.Mode(), err)
		}
	}
}

func TestBadDatabaseURLsAreRefusedWithoutThePassword(t *testing.T) {
	for _, url := range []string{"", "sqlite:", "mysql://u:hunter2@h/d", "postgres://u:hunter2@h:port/d", "postgres://u:hunter2@127.0.0.1:1/d?connect_timeout=1", "u:hunter2@h", "/var/lib/x.db"} {
		db, err := store.Open(t.Context(), url, testkit.Sealer(t))
		if err == nil {
			db.Close()
			t.Errorf("%q was opened", url)
			continue
		}
		if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the message repeats the password: %v", err)
		}
	}
}

// All processes of a new installation may start at once.
func TestPostgresIsMigratedOnceByManyAtOnce(t *testing.T) {
	url := testkit.Postgres(t)
	var wg sync.WaitGroup
	versions := make([]int64, 8)
	for i := range versions {
		wg.Go(func() {
			db, err := store.Open(t.Context(), url, testkit.Sealer(t))
			if err != nil {
				t.Error(err)
				return
			}
			defer db.Close()
			if versions[i], err = db.Version(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, v := range versions {
		if v != versions[0] || v == 0 {
			t.Errorf("the versions are %v", versions)
			break
		}
	}
	db := testkit.Open(t, url)
	testkit.Project(t, db, "shop")
}
