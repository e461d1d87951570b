package auth_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"runbell/internal/auth"
	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/testkit"
)

func write(t testing.TB, db *store.DB, f func(context.Context, *store.Tx) error) {
	t.Helper()
	if err := db.Write(t.Context(), func(tx *store.Tx) error { return f(t.Context(), tx) }); err != nil {
		t.Fatal(err)
	}
}

func projects(t testing.TB, db *store.DB, ids ...string) {
	t.Helper()
	write(t, db, func(ctx context.Context, tx *store.Tx) error {
		for _, id := range ids {
			p := run.NewProject(id)
			p.CreatedAt = tx.Now
			if _, err := tx.InsertProject(ctx, p); err != nil {
				return err
			}
		}
		return nil
	})
}

func recordKey(t testing.TB, db *store.DB, project string) (store.RecordKey, string) {
	t.Helper()
	k, key := auth.NewRecordKey(project, "ci")
	write(t, db, func(ctx context.Context, tx *store.Tx) error {
		k.CreatedAt = tx.Now
		return tx.InsertRecordKey(ctx, k)
	})
	return k, key
}

func apiKey(t testing.TB, db *store.DB, access auth.Access) (store.APIKey, string) {
	t.Helper()
	k, key := auth.NewAPIKey("script", access)
	write(t, db, func(ctx context.Context, tx *store.Tx) error {
		k.CreatedAt = tx.Now
		return tx.InsertAPIKey(ctx, k)
	})
	return k, key
}

func TestRecordKeys(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		projects(t, db, "shop", "other")
		_, key := recordKey(t, db, "shop")
		_, second := recordKey(t, db, "shop")
		revoked, gone := recordKey(t, db, "shop")
		write(t, db, func(ctx context.Context, tx *store.Tx) error { return tx.DeleteRecordKey(ctx, revoked.ID) })
		_, api := apiKey(t, db, auth.Write)
		keys := auth.New(db, auth.KeysOnly)
		for name, c := range map[string]struct {
			project, key string
			ok           bool
		}{
			"its key":               {"shop", key, true},
			"its other key":         {"shop", second, true},
			"no key":                {"shop", "", false},
			"a wrong key":           {"shop", "rk_" + strings.Repeat("a", 26), false},
			"in upper case":         {"shop", strings.ToUpper(key), false},
			"with a space":          {"shop", key + " ", false},
			"half of it":            {"shop", key[:len(key)/2], false},
			"its hash":              {"shop", auth.Hash(key), false},
			"another project":       {"other", key, false},
			"a project not there":   {"nowhere", key, false},
			"the project in upper":  {"SHOP", key, false},
			"revoked":               {"shop", gone, false},
			"an API key":            {"shop", api, false},
			"very long":             {"shop", strings.Repeat("k", 1<<20), false},
			"with SQL and odd text": {"shop", "' OR 1=1 --\xff\x00", false},
		} {
			err := keys.Record(t.Context(), c.project, c.key)
			if c.ok {
				if err != nil {
					t.Errorf("%s: %v", name, err)
				}
				continue
			}
			// All refusals are alike: nobody learns which projects or keys exist.
			if run.KindOf(err) != run.Unauthorized || !strings.Contains(err.Error(), "runbell key create --project "+c.project) {
				t.Errorf("%s: %v", name, err)
			}
			if c.key != "" && strings.Contains(err.Error(), c.key) {
				t.Errorf("%s: the message repeats the key", name)
			}
		}
		if _, err := project(t, db, "nowhere"); run.KindOf(err) != run.NotFound {
			t.Errorf("a refused key made a project: %v", err)
		}
	})
}

func project(t testing.TB, db *store.DB, id string) (p run.Project, err error) {
	t.Helper()
	err = db.Read(t.Context(), func(tx *store.Tx) error {
		var err error
		p, err = tx.Project(t.Context(), id)
		return err
	})
	return p, err
}

func TestAPIKeys(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		projects(t, db, "shop")
		_, full := apiKey(t, db, auth.Write)
		_, reader := apiKey(t, db, auth.Read)
		revoked, gone := apiKey(t, db, auth.Write)
		write(t, db, func(ctx context.Context, tx *store.Tx) error { return tx.DeleteAPIKey(ctx, revoked.ID) })
		_, record := recordKey(t, db, "shop")
		const ours = "chosen-by-the-operator"
		keys := auth.New(db, auth.KeysOnly)
		for range 2 { // at every start
			if err := keys.Bootstrap(t.Context(), ours); err != nil {
				t.Fatal(err)
			}
		}
		const ok = run.Kind(-1)
		for name, c := range map[string]struct {
			key         string
			read, write run.Kind
		}{
			"read-write":          {full, ok, ok},
			"read-only":           {reader, ok, run.Forbidden},
			"from the start":      {ours, ok, ok},
			"none":                {"", run.Unauthorized, run.Unauthorized},
			"wrong":               {"ak_" + strings.Repeat("a", 26), run.Unauthorized, run.Unauthorized},
			"revoked":             {gone, run.Unauthorized, run.Unauthorized},
			"a record key":        {record, run.Unauthorized, run.Unauthorized},
			"longer than any key": {full + strings.Repeat("x", 600), run.Unauthorized, run.Unauthorized},
			"its hash":            {auth.Hash(full), run.Unauthorized, run.Unauthorized},
		} {
			for access, want := range map[auth.Access]run.Kind{auth.Read: c.read, auth.Write: c.write} {
				err := keys.API(t.Context(), c.key, access)
				got := ok
				if err != nil {
					got = run.KindOf(err)
				}
				if got != want {
					t.Errorf("%s, access %d: %v", name, access, err)
				}
				if err != nil && c.key != "" && strings.Contains(err.Error(), c.key) {
					t.Errorf("%s: the message repeats the key", name)
				}
			}
		}
	})
}

func TestBootstrapRefusesWeakKeys(t *testing.T) {
	db := testkit.SQLite(t)
	keys := auth.New(db, auth.KeysOnly)
	for key, ok := range map[string]bool{"": false, "short": false, strings.Repeat("x", 15): false, strings.Repeat("x", 16): true,
		strings.Repeat("x", 512): true, strings.Repeat("x", 513): false} {
		err := keys.Bootstrap(t.Context(), key)
		if (err == nil) != ok || err != nil && !strings.Contains(err.Error(), "RUNBELL_API_KEY") {
			t.Errorf("%d characters: %v, want them accepted: %v", len(key), err, ok)
		}
		if ok {
			if err := keys.API(t.Context(), key, auth.Write); err != nil {
				t.Errorf("%d characters: %v", len(key), err)
			}
		}
	}
}

// The operator was promised a key that may write.
func TestBootstrapRefusesAReadOnlyKey(t *testing.T) {
	db := testkit.SQLite(t)
	_, reader := apiKey(t, db, auth.Read)
	keys := auth.New(db, auth.KeysOnly)
	if err := keys.Bootstrap(t.Context(), reader); err == nil || !strings.Contains(err.Error(), "read-only") {
		t.Errorf("%v", err)
	}
	if err := keys.API(t.Context(), reader, auth.Write); run.KindOf(err) != run.Forbidden {
		t.Errorf("a read-only key may write now: %v", err)
	}
}

func TestOpenRecordingTakesAnyKeyAndMakesProjects(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		keys := auth.New(db, auth.Open)
		for _, key := range []string{"", "anything", "rk_x"} {
			if err := keys.Record(t.Context(), "fresh", key); err != nil {
				t.Errorf("key %q: %v", key, err)
			}
		}
		p, err := project(t, db, "fresh")
		if err != nil || p.InactivityTimeout != run.DefaultInactivity || p.CompletionDelay != run.DefaultCompletion || time.Since(p.CreatedAt) > time.Hour {
			t.Errorf("the project is %+v, %v", p, err)
		}
		// Settings of a project that is there stay.
		p.Name = "Fresh fruit"
		write(t, db, func(ctx context.Context, tx *store.Tx) error { return tx.UpdateProject(ctx, p) })
		if err := keys.Record(t.Context(), "fresh", ""); err != nil {
			t.Error(err)
		}
		if again, err := project(t, db, "fresh"); again.Name != p.Name || err != nil {
			t.Errorf("the project was made again: %+v, %v", again, err)
		}
		if err := keys.Record(t.Context(), "no/good", "x"); run.KindOf(err) != run.Invalid {
			t.Errorf("a bad id: %v", err)
		}
		// Open is for recording only.
		if err := keys.API(t.Context(), "anything", auth.Read); run.KindOf(err) != run.Unauthorized {
			t.Errorf("the REST API is open too: %v", err)
		}
	})
}

// The machines of a build start together, also in a new project.
func TestOpenRecordingMakesAProjectOnceForManyAtOnce(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		keys := auth.New(db, auth.Open)
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				if err := keys.Record(t.Context(), "busy", ""); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if _, err := project(t, db, "busy"); err != nil {
			t.Error(err)
		}
	})
}

func TestKeysAreStoredAsHashesOnly(t *testing.T) {
	r, record := auth.NewRecordKey("shop", "ci")
	a, api := auth.NewAPIKey("script", auth.Read)
	other, _ := auth.NewAPIKey("script", auth.Write)
	for key, stored := range map[string][]string{
		record: {r.ID, r.ProjectID, r.Label, r.Hash, r.Hint},
		api:    {a.ID, a.Label, a.Hash, a.Hint},
	} {
		// 26 characters of base32: 130 random bits, which nobody searches.
		if len(key) != 29 || key != strings.ToLower(key) {
			t.Errorf("a key is %q", key)
		}
		for _, s := range stored {
			if s == key || len(s) > 6 && strings.Contains(key, s) || strings.Contains(s, key[3:]) {
				t.Errorf("%q is stored of the key %q", s, key)
			}
		}
	}
	if !strings.HasPrefix(record, "rk_") || !strings.HasPrefix(api, "ak_") {
		t.Errorf("record key %q, API key %q", record, api)
	}
	if r.Hash != auth.Hash(record) || a.Hash != auth.Hash(api) || len(r.Hash) != 64 || a.Hash == other.Hash {
		t.Error("the hash is not of the key")
	}
	if r.Hint != "…"+record[25:] || a.Write || !other.Write {
		t.Errorf("hint %q, write %v and %v", r.Hint, a.Write, other.Write)
	}
}

// A database that does not answer is no wrong key: CI would be told to make a new one.
func TestABrokenDatabaseIsNoWrongKey(t *testing.T) {
	db := testkit.SQLite(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, err := range map[string]error{
		"record": auth.New(db, auth.KeysOnly).Record(ctx, "shop", "k"),
		"open":   auth.New(db, auth.Open).Record(ctx, "shop", "k"),
		"API":    auth.New(db, auth.KeysOnly).API(ctx, "k", auth.Read),
	} {
		if !errors.Is(err, context.Canceled) || run.KindOf(err) != run.Internal {
			t.Errorf("%s: %v", name, err)
		}
	}
}
