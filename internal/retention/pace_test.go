package retention

import (
	"testing"
	"testing/synctest"
	"time"

	"runbell/internal/store"
	"runbell/internal/testkit"
)

// Whether rows are small or have megabytes, a transaction is short, and removes as much as that allows.
func TestPace(t *testing.T) {
	for name, c := range map[string]struct {
		row         time.Duration // what one takes
		least, most int           // rows at once, in the end
	}{
		"small": {time.Microsecond, mostRows, mostRows},
		"usual": {20 * time.Microsecond, 50, 100},
		"large": {700 * time.Microsecond, 4, 7},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				p := newPace(testkit.Open(t, testkit.MigratedFile(t, dir)))
				for range 20 {
					if _, err := p.remove(t.Context(), func(_ *store.Tx, rows int) (int, error) {
						time.Sleep(time.Duration(rows) * c.row)
						return rows, nil
					}); err != nil {
						t.Fatal(err)
					}
				}
				if p.rows < c.least || p.rows > c.most {
					t.Errorf("%d rows at once, want %d to %d", p.rows, c.least, c.most)
				}
			})
		})
	}
}
