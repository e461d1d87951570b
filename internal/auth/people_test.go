package auth_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/argon2"

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

// admin is an admin with the password. What is stored says that a hash costs little, as it may: with the race detector,
// one of the usual cost takes a good part of a second.
func admin(t testing.TB, db *store.DB, email string) {
	t.Helper()
	salt := []byte("salt of the test")
	b64 := base64.RawStdEncoding
	hash := fmt.Sprintf("$argon2id$v=%d$m=8,t=1,p=1$%s$%s", argon2.Version, b64.EncodeToString(salt),
		b64.EncodeToString(argon2.IDKey([]byte(password), salt, 1, 8, 1, 32)))
	testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) error {
		_, err := tx.InsertAccount(ctx, store.Account{ID: "id of " + email, Email: email, Name: "Ada", Role: store.Admin,
			Password: hash, CreatedAt: tx.Now})
		return err
	})
}

// tooLong is a wrong password that is refused without being hashed. It counts like any other.
var tooLong = strings.Repeat("x", 2000)

// at is a visitor without a device cookie.
func at(address string) auth.Visitor { return auth.Visitor{Address: netip.MustParseAddr(address)} }

func kindIs(t testing.TB, what string, err error, want run.Kind) {
	t.Helper()
	if err == nil || run.KindOf(err) != want {
		t.Errorf("%s: %v (kind %d), want kind %d", what, err, run.KindOf(err), want)
	}
}

func TestPeople(t *testing.T) {
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		people := auth.NewPeople(db, make([]byte, 32))
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
		_, err = people.SignIn(ctx, "late@example.test", password, at("1.2.3.4"))
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

		got := must(people.SignIn(ctx, "JOE@example.test ", password, at("1.2.3.4")))(t)
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

		// A link for somebody who has an account: a new password, the same role, no session.
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
		_, err = people.SignIn(ctx, "joe@example.test", password, at("1.2.3.4"))
		kindIs(t, "the old password", err, run.Unauthorized)

		// Of two admins that take each other's role, one stays.
		admin, viewer := store.Admin, store.Viewer
		must(people.Update(ctx, joe, nil, &admin))(t)
		for _, id := range []string{joe, ada.ID} {
			done.Go(func() { _, _ = people.Update(ctx, id, nil, &viewer) })
		}
		done.Wait()
		admins := 0
		testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) error {
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

// TestTriesAtOnceCount: somebody who sends all guesses at the same time has no more of
// them.
func TestTriesAtOnceCount(t *testing.T) {
	db := testkit.SQLite(t)
	ctx := t.Context()
	people := auth.NewPeople(db, make([]byte, 32))
	admin(t, db, "ada@example.test")
	var checked atomic.Int32
	var tries sync.WaitGroup
	for range 12 {
		tries.Go(func() {
			if _, err := people.SignIn(ctx, "ada@example.test", "wrong", at("1.2.3.4")); run.KindOf(err) == run.Unauthorized {
				checked.Add(1)
			}
		})
	}
	tries.Wait()
	if n := checked.Load(); n != 5 {
		t.Errorf("%d guesses at once were checked, want 5", n)
	}
	// A person who knows the password does not guess, however often they sign in.
	people = auth.NewPeople(db, make([]byte, 32))
	for range 7 {
		if _, err := people.SignIn(ctx, "ada@example.test", password, at("1.2.3.4")); err != nil {
			t.Fatal(err)
		}
	}
}

// On virtual time: what ends, and what has to wait.
func TestSessionsAndLinksEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := testkit.SQLite(t)
		ctx := t.Context()
		people := auth.NewPeople(db, make([]byte, 32))
		admin(t, db, "ada@example.test")
		ada := must(people.SignIn(ctx, "ada@example.test", password, at("192.0.2.1")))(t)
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

		known := at("192.0.2.9")
		known.Device = people.Device("ada@example.test")
		// The sixth wrong try in a row has to wait, and so has the right one.
		for n := range 5 {
			_, err := people.SignIn(ctx, "ada@example.test", "wrong", at("192.0.2.1"))
			kindIs(t, "wrong try "+string(rune('1'+n)), err, run.Unauthorized)
		}
		_, err = people.SignIn(ctx, "ada@example.test", password, at("192.0.2.1"))
		kindIs(t, "after five wrong tries", err, run.TooMany)
		// Strangers use up the attempts of strangers, and nobody else's.
		must(people.SignIn(ctx, "ada@example.test", password, known))(t)
		for n := range 5 {
			err := people.ChangePassword(ctx, ada, "wrong", password, token)
			kindIs(t, "wrong old password "+string(rune('1'+n)), err, run.Invalid)
		}
		kindIs(t, "the old password, guessed on the account's page", people.ChangePassword(ctx, ada, "wrong", password, token), run.TooMany)
		time.Sleep(3 * time.Minute)
		must(people.SignIn(ctx, "ada@example.test", password, at("192.0.2.1")))(t)

		// One place that tries many names has to wait, too; others do not.
		for n := range 30 {
			_, err := people.SignIn(ctx, string(rune('a'+n%26))+"x"+strings.Repeat("y", n)+"@example.test", tooLong, at("192.0.2.2"))
			kindIs(t, "another name", err, run.Unauthorized)
		}
		_, err = people.SignIn(ctx, "new@example.test", "wrong", at("192.0.2.2"))
		kindIs(t, "the 31st name", err, run.TooMany)
		must(people.SignIn(ctx, "ada@example.test", password, at("192.0.2.1")))(t)
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
			testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) error {
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
			if _, err := keys.API(t.Context(), api); err != nil {
				t.Fatal(err)
			}
			if a, b := used(); time.Since(a) > 5*time.Minute || time.Since(b) > 5*time.Minute {
				t.Errorf("used %v and %v, now it is %v", a, b, time.Now())
			}
			time.Sleep(4 * time.Minute)
		}
	})
}

// The attack that cleared the limiter: 10,400 invented names between guesses. And
// the lock-out: strangers with wrong passwords do not keep a known device out.
func TestStrangersNeitherGuessNorLockOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := testkit.SQLite(t)
		ctx := t.Context()
		people := auth.NewPeople(db, make([]byte, 32))
		admin(t, db, "ada@example.test")
		must(people.SignIn(ctx, "ada@example.test", password, at("192.0.2.9")))(t)
		home := at("192.0.2.9")
		home.Device = people.Device("ada@example.test")

		guesses := 0
		guess := func(n int) {
			if _, err := people.SignIn(ctx, "ada@example.test", tooLong, at(fmt.Sprintf("198.51.%d.%d", n/250%250, n%250))); run.KindOf(err) == run.Unauthorized {
				guesses++
			}
		}
		gone, hangUp := context.WithCancel(ctx) // an attempt counts before the database is asked
		hangUp()
		for n := range 10_400 {
			_, _ = people.SignIn(gone, fmt.Sprintf("invented-%d@example.test", n), tooLong, at(fmt.Sprintf("203.%d.%d.1", n/250, n%250)))
			if n%100 == 0 {
				guess(n)
			}
		}
		for n := range 200 {
			guess(n)
		}
		if guesses != 5 {
			t.Errorf("%d guesses, want 5", guesses)
		}
		_, err := people.SignIn(ctx, "ada@example.test", password, at("192.0.2.77"))
		kindIs(t, "an unknown device while strangers guess", err, run.TooMany)

		// The device that signed in before, even from an address that strangers share.
		for range 40 {
			_, _ = people.SignIn(ctx, "joe@example.test", tooLong, at("192.0.2.9"))
		}
		must(people.SignIn(ctx, "ada@example.test", password, home))(t)

		// A stolen cookie is no more than five guesses, and for one account only.
		for n := range 5 {
			_, err := people.SignIn(ctx, "ada@example.test", tooLong, home)
			kindIs(t, fmt.Sprint("guess with the cookie ", n), err, run.Unauthorized)
		}
		_, err = people.SignIn(ctx, "ada@example.test", tooLong, home)
		kindIs(t, "the sixth guess with the cookie", err, run.TooMany)
		for name, cookie := range map[string]string{
			"of another account": people.Device("joe@example.test"),
			"of another server":  auth.NewPeople(db, []byte("another key")).Device("ada@example.test"),
			"changed":            home.Device[:len(home.Device)-1] + "!",
			"made up":            "x.1.y", "of two parts": "x.y", "long": strings.Repeat("x.", 1000),
		} {
			_, err = people.SignIn(ctx, "ada@example.test", password, auth.Visitor{Address: at("192.0.2.88").Address, Device: cookie})
			kindIs(t, "a cookie "+name, err, run.TooMany)
		}
		fresh := auth.Visitor{Address: home.Address, Device: people.Device("ada@example.test")}
		time.Sleep(auth.DeviceLife - time.Minute)
		for range 8 {
			_, _ = people.SignIn(ctx, "ada@example.test", tooLong, at("198.51.100.1"))
		}
		must(people.SignIn(ctx, "ada@example.test", password, fresh))(t)
		time.Sleep(2 * time.Minute)
		for range 8 {
			_, _ = people.SignIn(ctx, "ada@example.test", tooLong, at("198.51.100.2"))
		}
		_, err = people.SignIn(ctx, "ada@example.test", password, fresh)
		kindIs(t, "a cookie from a year ago", err, run.TooMany)
	})
}

// One host has a whole /64 of IPv6, and IPv4 in IPv6 is IPv4.
func TestAddressesCountByNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := testkit.SQLite(t)
		people := auth.NewPeople(db, make([]byte, 32))
		tries := func(n int, address func(int) string) (checked int) {
			for i := range n {
				_, err := people.SignIn(t.Context(), fmt.Sprintf("%s-%d@example.test", strings.NewReplacer(":", "-").Replace(address(0)), i), tooLong, at(address(i)))
				if run.KindOf(err) == run.Unauthorized {
					checked++
				}
			}
			return checked
		}
		for _, c := range []struct {
			name    string
			address func(int) string
			want    int
		}{
			{"one /64", func(n int) string { return fmt.Sprintf("2001:db8:0:1::%x", n+1) }, 30},
			{"the next /64", func(n int) string { return "2001:db8:0:2::1" }, 30},
			{"many /64", func(n int) string { return fmt.Sprintf("2001:db8:1:%x::1", n) }, 60},
			{"one IPv4", func(n int) string { return []string{"192.0.2.1", "::ffff:192.0.2.1"}[n%2] }, 30},
			{"many IPv4", func(n int) string { return fmt.Sprintf("192.0.2.%d", n+2) }, 60},
		} {
			if got := tries(60, c.address); got != c.want {
				t.Errorf("%s: %d attempts, want %d", c.name, got, c.want)
			}
		}
	})
}

// Many passwords at once are checked a few at a time, and nobody waits forever.
// A known device does not wait for strangers.
func TestHashingIsBounded(t *testing.T) {
	db := testkit.SQLite(t)
	ctx := t.Context()
	people := auth.NewPeople(db, make([]byte, 32))
	if err := people.FirstAdmin(ctx, "ada@example.test", password); err != nil {
		t.Fatal(err)
	}
	var before, peak runtime.MemStats
	runtime.ReadMemStats(&before)
	stop := make(chan struct{})
	var watch, attack sync.WaitGroup
	watch.Go(func() {
		for {
			var now runtime.MemStats
			runtime.GC() // what is in use, and not garbage
			runtime.ReadMemStats(&now)
			if now.HeapAlloc > peak.HeapAlloc {
				peak = now
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	})
	for n := range 24 {
		attack.Go(func() {
			_, _ = people.SignIn(ctx, fmt.Sprintf("n%d@example.test", n), "wrong", at(fmt.Sprintf("192.0.2.%d", n)))
		})
	}
	must(people.SignIn(ctx, "ada@example.test", password, auth.Visitor{Device: people.Device("ada@example.test")}))(t)
	attack.Wait()
	close(stop)
	watch.Wait()
	if used := (peak.HeapAlloc - min(before.HeapAlloc, peak.HeapAlloc)) >> 20; used > 64 {
		t.Errorf("24 passwords at once took %d MiB", used)
	}
}
