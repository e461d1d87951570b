package database_test

import (
	"testing"
	"time"

	"runbell/internal/database"
	"runbell/internal/testkit"
)

func openPostgres(t *testing.T, url string) *database.DB {
	t.Helper()
	db, err := database.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

// Processes whose clocks are an hour off, in either direction, agree on the time
// with each other and with PostgreSQL. So what one queues is due at another.
func TestProcessesAgreeOnTheClockOfPostgres(t *testing.T) {
	url := testkit.Migrated(t)
	for _, off := range []time.Duration{0, time.Hour, -time.Hour} {
		db := openPostgres(t, url)
		if err := db.SetClock(t.Context(), func() time.Time { return time.Now().UTC().Add(off) }); err != nil {
			t.Fatal(err)
		}
		err := db.Write(t.Context(), func(tx *database.Tx) error {
			if d := time.Until(tx.Now).Abs(); d > time.Second {
				t.Errorf("with a clock that is %v off, a transaction is %v off", off, d)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
}

// A clock that is set while the process runs is noticed.
func TestAClockThatJumps(t *testing.T) {
	db := openPostgres(t, testkit.Migrated(t))
	for _, by := range []time.Duration{time.Hour, -24 * time.Hour, 0} {
		if err := db.SetClock(t.Context(), func() time.Time { return time.Now().UTC().Add(by) }); err != nil {
			t.Fatal(err)
		}
		if d := time.Until(db.Now()).Abs(); d > time.Second {
			t.Errorf("after a jump of %v it is %v off", by, d)
		}
	}
}
