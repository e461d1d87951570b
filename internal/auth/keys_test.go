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

func projects(t testing.TB, db *store.DB, ids ...string) {
	t.Helper()
	for _, id := range ids {
		testkit.Project(t, db, id)
	}
}

func recordKey(t testing.TB, db *store.DB, project string) (store.RecordKey, string) {
	t.Helper()
	k, key, err := auth.New(db, auth.KeysOnly).CreateRecordKey(t.Context(), project, "ci")
	if err != nil {
		t.Fatal(err)
	}
	return k, key
}

func apiKey(t testing.TB, db *store.DB, access auth.Access) (store.APIKey, string) {
	t.Helper()
	k, key, err := auth.New(db, auth.KeysOnly).CreateAPIKey(t.Context(), "script", access, "")
	if err != nil {
		t.Fatal(err)
	}
	return k, key
}

func TestRecordKeys(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		projects(t, db, "shop", "other")
		_, key := recordKey(t, db, "shop")
		_, second := recordKey(t, db, "shop")
		revoked, gone := recordKey(t, db, "shop")
		testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) error { return tx.DeleteRecordKey(ctx, revoked.ID) })
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
			other := name == "another project" || name == "a project not there" || name == "the project in upper"
			if run.KindOf(err) != run.Unauthorized || !strings.Contains(err.Error(), "runbell key create --project "+c.project) || strings.Contains(err.Error(), "another project") != other {
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
		testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) error { return tx.DeleteAPIKey(ctx, revoked.ID) })
		_, record := recordKey(t, db, "shop")
		const ours = "chosen-by-the-operator"
		keys := auth.New(db, auth.KeysOnly)
		for range 2 { // at every start
			if err := keys.Bootstrap(t.Context(), ours); err != nil {
				t.Fatal(err)
			}
		}
		for name, c := range map[string]struct {
			key  string
			want auth.Access
		}{
			"read-write":     {full, auth.Write},
			"read-only":      {reader, auth.Read},
			"from the start": {ours, auth.Write},
		} {
			if access, err := keys.API(t.Context(), c.key); err != nil || access.Access != c.want {
				t.Errorf("%s: access %d, %v", name, access.Access, err)
			}
		}
		for name, key := range map[string]string{
			"none":                "",
			"wrong":               "ak_" + strings.Repeat("a", 26),
			"revoked":             gone,
			"a record key":        record,
			"longer than any key": full + strings.Repeat("x", 600),
			"its hash":            auth.Hash(full),
		} {
			access, err := keys.API(t.Context(), key)
			if run.KindOf(err) != run.Unauthorized || access.Access != auth.Read {
				t.Errorf("%s: access %d, %v", name, access.Access, err)
			}
			if err != nil && key != "" && strings.Contains(err.Error(), key) {
				t.Errorf("%s: the message repeats the key", name)
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
			if access, err := keys.API(t.Context(), key); err != nil || access.Access != auth.Write {
				t.Errorf("%d characters: access %d, %v", len(key), access.Access, err)
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
	if access, err := keys.API(t.Context(), reader); err != nil || access.Access != auth.Read {
		t.Errorf("a read-only key has access %d now, %v", access.Access, err)
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
		testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) error { return tx.UpdateProject(ctx, p) })
		if err := keys.Record(t.Context(), "fresh", ""); err != nil {
			t.Error(err)
		}
		if again, err := project(t, db, "fresh"); again.Name != p.Name || err != nil {
			t.Errorf("the project was made again: %+v, %v", again, err)
		}
		if err := keys.Record(t.Context(), "no//good", "x"); run.KindOf(err) != run.Invalid {
			t.Errorf("a bad id: %v", err)
		}
		// Open is for recording only.
		if _, err := keys.API(t.Context(), "anything"); run.KindOf(err) != run.Unauthorized {
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
	db := testkit.SQLite(t)
	projects(t, db, "shop")
	r, record := recordKey(t, db, "shop")
	a, api := apiKey(t, db, auth.Read)
	other, _ := apiKey(t, db, auth.Write)
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
	_, unread := auth.New(db, auth.KeysOnly).API(ctx, "k")
	for name, err := range map[string]error{
		"record": auth.New(db, auth.KeysOnly).Record(ctx, "shop", "k"),
		"open":   auth.New(db, auth.Open).Record(ctx, "shop", "k"),
		"API":    unread,
	} {
		if !errors.Is(err, context.Canceled) || run.KindOf(err) != run.Internal {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestKeyVerbs: what is refused makes no key, and a key of another project is not
// there.
func TestKeyVerbs(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		projects(t, db, "shop", "other")
		keys := auth.New(db, auth.KeysOnly)
		for _, label := range []string{strings.Repeat("x", 256), "a\x00b", "a\xff"} {
			_, _, err := keys.CreateRecordKey(t.Context(), "shop", label)
			kindIs(t, "a record key", err, run.Invalid)
			_, _, err = keys.CreateAPIKey(t.Context(), label, auth.Write, "")
			kindIs(t, "an API key", err, run.Invalid)
		}
		_, _, err := keys.CreateRecordKey(t.Context(), "none", "ci")
		kindIs(t, "no project", err, run.NotFound)
		stored, key := recordKey(t, db, "shop")
		kindIs(t, "another project's key", keys.RevokeRecordKey(t.Context(), "other", stored.ID), run.NotFound)
		if err := keys.Record(t.Context(), "shop", key); err != nil {
			t.Error(err)
		}
		for range 2 {
			_, extra := recordKey(t, db, "shop")
			if extra == key {
				t.Error("two keys are the same")
			}
		}
		if err := keys.RevokeRecordKey(t.Context(), "shop", stored.ID); err != nil {
			t.Error(err)
		}
		kindIs(t, "revoked", keys.Record(t.Context(), "shop", key), run.Unauthorized)
		kindIs(t, "revoked again", keys.RevokeRecordKey(t.Context(), "", stored.ID), run.NotFound)
		api, text := apiKey(t, db, auth.Read)
		if err := keys.RevokeAPIKey(t.Context(), api.ID); err != nil {
			t.Error(err)
		}
		_, err = keys.API(t.Context(), text)
		kindIs(t, "a revoked API key", err, run.Unauthorized)
	})
}
