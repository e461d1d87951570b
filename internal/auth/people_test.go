package auth_test

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"runbell/internal/auth"
	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/testkit"
)

const password = "correct horse battery"

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func kindIs(t testing.TB, what string, err error, want run.Kind) {
	t.Helper()
	if err == nil || run.KindOf(err) != want {
		t.Errorf("%s: %v (kind %d), want kind %d", what, err, run.KindOf(err), want)
	}
}

func TestPeople(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		people := auth.NewPeople(db)
		first := must(people.Setup(ctx))(t)
		setup := must(people.Setup(ctx))(t)
		_, err := people.Accept(ctx, first, "ada@example.test", "Ada", password)
		kindIs(t, "a setup link that was replaced", err, run.NotFound)
		ada := must(people.Accept(ctx, setup, "ada@example.test", "Ada", password))(t)
		if ada.Role != store.Admin {
			t.Errorf("the first person is %s", ada.Role)
		}
		if err := people.FirstAdmin(ctx, "late@example.test", password); err != nil {
			t.Fatal(err)
		}
		_, err = people.SignIn(ctx, "late@example.test", password, "1.2.3.4")
		kindIs(t, "a second first admin", err, run.Unauthorized)

		// Where two use a link at once, one does.
		_, link, err := people.Invite(ctx, "joe@example.test", store.Member, "Ada")
		if err != nil {
			t.Fatal(err)
		}
		var done sync.WaitGroup
		made := make(chan string, 8)
		for range cap(made) {
			done.Go(func() {
				if joe, err := people.Accept(ctx, link, "", "Joe", password); err == nil {
					made <- joe.ID
				}
			})
		}
		done.Wait()
		if len(made) != 1 {
			t.Fatalf("a link made %d accounts", len(made))
		}
		joe := <-made

		got := must(people.SignIn(ctx, "JOE@example.test ", password, "1.2.3.4"))(t)
		if got.ID != joe || got.Role != store.Member {
			t.Errorf("signed in as %+v", got)
		}
		token := must(people.Begin(ctx, joe, ""))(t)
		other := must(people.Begin(ctx, joe, ""))(t)
		if who := must(people.Session(ctx, token))(t); who.ID != joe {
			t.Errorf("the session is of %+v", who)
		}
		for name, bad := range map[string]string{"no token": "", "its hash": auth.Hash(token), "half of it": token[:20], "a long one": strings.Repeat("x", 9999)} {
			_, err := people.Session(ctx, bad)
			kindIs(t, name, err, run.Unauthorized)
		}
		if err := people.SignOutOthers(ctx, joe, token); err != nil {
			t.Fatal(err)
		}
		_, err = people.Session(ctx, other)
		kindIs(t, "another session", err, run.Unauthorized)

		// A link for who has an account: a new password, the same role, no session.
		_, link, err = people.Invite(ctx, "joe@example.test", store.Viewer, "Ada")
		if err != nil {
			t.Fatal(err)
		}
		again := must(people.Accept(ctx, link, "", "", "another long password"))(t)
		if again.ID != joe || again.Role != store.Member || again.Name != "Joe" {
			t.Errorf("after a new password: %+v", again)
		}
		_, err = people.Session(ctx, token)
		kindIs(t, "a session from before the new password", err, run.Unauthorized)
		_, err = people.SignIn(ctx, "joe@example.test", password, "1.2.3.4")
		kindIs(t, "the old password", err, run.Unauthorized)

		// Of two admins that take each other's role, one stays.
		admin, viewer := store.Admin, store.Viewer
		must(people.Update(ctx, joe, nil, &admin))(t)
		for _, id := range []string{joe, ada.ID} {
			done.Go(func() { _, _ = people.Update(ctx, id, nil, &viewer) })
		}
		done.Wait()
		admins := 0
		read(t, db, func(ctx context.Context, tx *store.Tx) error {
			list, err := tx.Accounts(ctx)
			for _, a := range list {
				if a.Role == store.Admin {
					admins++
				}
			}
			return err
		})
		if admins != 1 {
			t.Errorf("%d admins are left", admins)
		}
	})
}

func read(t testing.TB, db *store.DB, f func(context.Context, *store.Tx) error) {
	t.Helper()
	if err := db.Read(t.Context(), func(tx *store.Tx) error { return f(t.Context(), tx) }); err != nil {
		t.Fatal(err)
	}
}

// TestTriesAtOnceCount: whoever sends all guesses at the same time has no more of
// them.
func TestTriesAtOnceCount(t *testing.T) {
	db := testkit.SQLite(t)
	ctx := t.Context()
	people := auth.NewPeople(db)
	if err := people.FirstAdmin(ctx, "ada@example.test", password); err != nil {
		t.Fatal(err)
	}
	var checked atomic.Int32
	var tries sync.WaitGroup
	for range 12 {
		tries.Go(func() {
			if _, err := people.SignIn(ctx, "ada@example.test", "wrong", "1.2.3.4"); run.KindOf(err) == run.Unauthorized {
				checked.Add(1)
			}
		})
	}
	tries.Wait()
	if n := checked.Load(); n != 5 {
		t.Errorf("%d guesses at once were checked, want 5", n)
	}
	// Whoever knows the password is no guesser, however often they sign in.
	people = auth.NewPeople(db)
	for range 7 {
		if _, err := people.SignIn(ctx, "ada@example.test", password, "1.2.3.4"); err != nil {
			t.Fatal(err)
		}
	}
}

// On virtual time: what ends, and what has to wait.
func TestSessionsAndLinksEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := testkit.SQLite(t)
		ctx := t.Context()
		people := auth.NewPeople(db)
		if err := people.FirstAdmin(ctx, "ada@example.test", password); err != nil {
			t.Fatal(err)
		}
		ada := must(people.SignIn(ctx, "ada@example.test", password, "p"))(t)
		token := must(people.Begin(ctx, ada.ID, ""))(t)
		for range 3 { // it lives as long as it is used
			time.Sleep(auth.SessionLife - time.Minute)
			must(people.Session(ctx, token))(t)
		}
		time.Sleep(auth.SessionLife + time.Minute)
		_, err := people.Session(ctx, token)
		kindIs(t, "a session that was not used", err, run.Unauthorized)

		_, link, err := people.Invite(ctx, "joe@example.test", store.Member, "Ada")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(auth.InviteLife + time.Second)
		_, err = people.Accept(ctx, link, "", "Joe", password)
		kindIs(t, "an old link", err, run.NotFound)

		// The sixth wrong try in a row has to wait, and so has the right one.
		for n := range 5 {
			_, err := people.SignIn(ctx, "ada@example.test", "wrong", "p")
			kindIs(t, "wrong try "+string(rune('1'+n)), err, run.Unauthorized)
		}
		_, err = people.SignIn(ctx, "ada@example.test", password, "p")
		kindIs(t, "after five wrong tries", err, run.TooMany)
		kindIs(t, "the old password, guessed on the account's page", people.ChangePassword(ctx, ada, "wrong", password, token), run.TooMany)
		time.Sleep(3 * time.Minute)
		must(people.SignIn(ctx, "ada@example.test", password, "p"))(t)

		// One place that tries many names has to wait, too; others do not.
		for n := range 30 {
			_, err := people.SignIn(ctx, string(rune('a'+n%26))+"x"+strings.Repeat("y", n)+"@example.test", "wrong", "q")
			kindIs(t, "another name", err, run.Unauthorized)
		}
		_, err = people.SignIn(ctx, "new@example.test", "wrong", "q")
		kindIs(t, "the 31st name", err, run.TooMany)
		must(people.SignIn(ctx, "ada@example.test", password, "p"))(t)
	})
}

func TestKeysSayWhenTheyWereUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := testkit.SQLite(t)
		projects(t, db, "shop")
		stored, key := recordKey(t, db, "shop")
		storedAPI, api := apiKey(t, db, auth.Read)
		keys := auth.New(db, auth.KeysOnly)
		used := func() (record, program time.Time) {
			read(t, db, func(ctx context.Context, tx *store.Tx) error {
				k, err := tx.RecordKey(ctx, stored.ID)
				record = k.UsedAt
				a, errAPI := tx.APIKeyByHash(ctx, storedAPI.Hash)
				program = a.UsedAt
				if err == nil {
					err = errAPI
				}
				return err
			})
			return record, program
		}
		if a, b := used(); !a.IsZero() || !b.IsZero() {
			t.Errorf("used before use: %v, %v", a, b)
		}
		kindIs(t, "another project", keys.Record(t.Context(), "other", key), run.Unauthorized)
		if a, _ := used(); !a.IsZero() {
			t.Error("a refusal counts as use")
		}
		for range 3 {
			if err := keys.Record(t.Context(), "shop", key); err != nil {
				t.Fatal(err)
			}
			if err := keys.API(t.Context(), api, auth.Read); err != nil {
				t.Fatal(err)
			}
			if a, b := used(); time.Since(a) > 5*time.Minute || time.Since(b) > 5*time.Minute {
				t.Errorf("used %v and %v, now it is %v", a, b, time.Now())
			}
			time.Sleep(4 * time.Minute)
		}
	})
}
