package auth

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// TestInventedNamesResetNobody is the attack of 10,400 names: it used to clear
// the limiter.
func TestInventedNamesResetNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(5, 3*time.Minute)
		for range 5 {
			if wait := l.take("victim"); wait != 0 {
				t.Fatalf("wait %s", wait)
			}
		}
		guesses := 0
		for round := range 20 { // an hour
			for n := range 520 { // 10,400 names in all
				l.take(fmt.Sprintf("invented-%d", round*520+n))
				if l.take("victim") == 0 {
					guesses++
				}
			}
			time.Sleep(3 * time.Minute)
		}
		if guesses > 20 {
			t.Errorf("%d guesses in an hour, want at most 20", guesses)
		}
		if len(l.names) > rememberedNames || len(l.debts) != len(l.names) {
			t.Errorf("%d names, %d debts", len(l.names), len(l.debts))
		}
	})
}

// A name that was dropped starts with the debt of the last one dropped, so
// dropping it gives it no attempt.
func TestFullLimiterFailsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(3, time.Minute)
		l.limit = 10
		for n := range 10 {
			for range 3 {
				l.take(fmt.Sprint(n))
			}
		}
		if wait := l.take("new"); wait != 0 { // nothing has been dropped before it
			t.Fatalf("the first new name waits %s", wait)
		}
		for n := range 10 {
			if l.take(fmt.Sprint(n)) == 0 {
				t.Errorf("name %d got an attempt", n)
			}
		}
		if l.take("newer") == 0 {
			t.Error("a full limiter lets a name through that it may have dropped")
		}
		time.Sleep(3 * time.Minute)
		if wait := l.take("newer"); wait != 0 {
			t.Errorf("wait %s when all debts are paid", wait)
		}
	})
}

// Against a limiter that forgets nothing, the bounded one never allows more.
func TestLimiterNeverAllowsMoreThanExact(t *testing.T) {
	type step struct{ what, name, seconds int }
	rapid.Check(t, func(rt *rapid.T) {
		steps := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) step {
			return step{rapid.IntRange(0, 9).Draw(rt, "what"), rapid.IntRange(0, 12).Draw(rt, "name"), rapid.IntRange(1, 100).Draw(rt, "seconds")}
		}), 1, 200).Draw(rt, "steps")
		wrong := ""
		synctest.Test(t, func(*testing.T) {
			bounded, exact := newLimiter(3, time.Minute), newLimiter(3, time.Minute)
			bounded.limit = 4
			for _, s := range steps {
				name := fmt.Sprint(s.name)
				switch s.what {
				case 0:
					time.Sleep(time.Duration(s.seconds) * time.Second)
				case 1:
					if bounded.names[name] != nil {
						exact.giveBack(name)
						bounded.giveBack(name)
					}
				default:
					if bounded.take(name) == 0 && exact.take(name) > 0 {
						wrong = name + " got an attempt that it does not have"
					}
				}
				if len(bounded.names) > 4 {
					wrong = fmt.Sprintf("%d names are remembered", len(bounded.names))
				}
			}
		})
		if wrong != "" {
			rt.Fatal(wrong)
		}
	})
}

// TestADroppedNameStillOwes: a name that is dropped after one that owed more does not
// make that one's debt smaller.
func TestADroppedNameStillOwes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(3, time.Minute)
		l.limit = 4
		for _, name := range []string{"a", "b", "b", "c", "c"} {
			l.take(name)
		}
		time.Sleep(time.Second)
		for _, name := range []string{"a", "d", "d", "e", "f", "a"} { // a and then e are dropped
			l.take(name)
		}
		if l.take("a") == 0 {
			t.Error("a fourth attempt")
		}
	})
}
