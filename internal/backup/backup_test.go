package backup_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"runbell/internal/artifact"
	"runbell/internal/backup"
	"runbell/internal/database"
	"runbell/internal/lifecycle"
	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/testkit"
	"runbell/internal/webhook"
)

const keyText = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"

// world is a server's data directory: a run with results, and a screenshot of it.
type world struct {
	*testing.T
	dir      string
	db       *store.DB
	files    *artifact.Disk
	run      string
	artifact run.Artifact
	content  []byte
}

func newWorld(t *testing.T) *world {
	w := &world{T: t, dir: t.TempDir(), content: bytes.Repeat([]byte("a picture "), 20_000)}
	w.db = testkit.Open(t, testkit.MigratedFile(t, w.dir))
	w.files = artifact.NewDisk(filepath.Join(w.dir, "artifacts"))
	testkit.Project(t, w.db, "shop", func(p *run.Project) { p.CompletionDelay = 0 })
	runs := lifecycle.New(w.db, "http://runbell.test", func(...string) {})
	joined, err := runs.Join(t.Context(), lifecycle.Join{ProjectID: "shop", CIBuildID: "b", Fingerprint: "f", Specs: []string{"a.cy.ts"}, SpecHash: "h"})
	if err != nil {
		t.Fatal(err)
	}
	w.run = joined.RunID
	claimed, err := runs.Claim(t.Context(), lifecycle.Claim{RunID: joined.RunID, MachineID: joined.MachineID, Limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	instance := claimed.Instances[0].ID
	if _, err := runs.Complete(t.Context(), instance, nil, run.Outcome{Results: []run.Result{{ID: "r1", State: run.Failed, Error: "no button"}}}); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(w.content)
	w.artifact = run.Artifact{ID: run.ArtifactID(instance, run.ScreenshotArtifact, "s1"), ProjectID: "shop", RunID: w.run, InstanceID: instance, Kind: run.ScreenshotArtifact,
		ContentType: "image/png", Size: int64(len(w.content)), SHA256: hex.EncodeToString(sum[:])}
	w.artifact.FileKey = artifact.NewKey(w.artifact.ID)
	if err := w.files.Put(t.Context(), w.artifact.FileKey, bytes.NewReader(w.content), w.artifact.Size, "image/png"); err != nil {
		t.Fatal(err)
	}
	testkit.Write(t, w.db, func(ctx context.Context, tx *store.Tx) error {
		w.artifact.StoredAt = tx.Now
		if err := tx.InsertFile(ctx, w.artifact.FileKey, "shop", w.artifact.Size, tx.Now.Add(time.Hour)); err != nil {
			return err
		}
		_, err := tx.PutArtifact(ctx, w.artifact)
		return err
	})
	return w
}

// backup makes a backup of the database, which stays open and in use.
func (w *world) backup(change ...func(*backup.Source)) []byte {
	w.Helper()
	s := backup.Source{Database: filepath.Join(w.dir, "runbell.db"), Scratch: w.TempDir(), SecretKey: []byte(keyText), Artifacts: w.files, Version: "v1.2.3"}
	for _, f := range change {
		f(&s)
	}
	var out bytes.Buffer
	m, err := backup.Write(w.Context(), &out, s)
	if err != nil {
		w.Fatal(err)
	}
	if m.Version != "v1.2.3" || m.Files != 1 || m.Bytes != w.artifact.Size {
		w.Errorf("the manifest: %+v", m)
	}
	if left, err := os.ReadDir(s.Scratch); err != nil || len(left) != 0 {
		w.Errorf("left in the scratch directory: %v, %v", left, err)
	}
	return out.Bytes()
}

// target is an empty data directory.
func target(t *testing.T) (backup.Target, string) {
	dir := t.TempDir()
	return backup.Target{Database: filepath.Join(dir, "runbell.db"), KeyFile: filepath.Join(dir, "secret.key"), Artifacts: artifact.NewDisk(filepath.Join(dir, "artifacts"))}, dir
}

// TestRestoredWhole checks that a restored backup equals the original.
func TestRestoredWhole(t *testing.T) {
	w := newWorld(t)
	to, dir := target(t)
	restored, err := backup.Read(t.Context(), bytes.NewReader(w.backup()), to)
	if err != nil {
		t.Fatal(err)
	}
	if restored.Artifacts != 1 || restored.Lost != 0 {
		t.Errorf("restored %+v", restored)
	}
	if key, err := os.ReadFile(to.KeyFile); err != nil || string(key) != keyText {
		t.Errorf("the secret key is %q, %v", key, err)
	}
	for _, name := range []string{"runbell.db", "secret.key"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, %v: want its owner only", name, info.Mode(), err)
		}
	}
	db := testkit.Open(t, "sqlite:"+to.Database)
	testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) error {
		r, err := tx.Run(ctx, w.run)
		if err != nil || r.State != run.Finished {
			t.Errorf("the run is %s, %v", r.State, err)
		}
		_, outcome, err := tx.Tests(ctx, w.artifact.InstanceID)
		if err != nil || outcome.Results[0].Error != "no button" {
			t.Errorf("the results: %+v, %v", outcome, err)
		}
		a, err := tx.Artifact(ctx, w.artifact.ID)
		if a != w.artifact {
			t.Errorf("the artifact is\n%+v, want\n%+v", a, w.artifact)
		}
		return err
	})
	f, err := to.Artifacts.Open(t.Context(), w.artifact.FileKey)
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(f)
	if err := errors.Join(err, f.Close()); err != nil || !bytes.Equal(content, w.content) {
		t.Errorf("the file has other content, %v", err)
	}
}

// TestEveryRowIsRestored compares all tables, row by row.
func TestEveryRowIsRestored(t *testing.T) {
	w := newWorld(t)
	testkit.Endpoint(t, w.db, "shop")
	to, _ := target(t)
	if _, err := backup.Read(t.Context(), bytes.NewReader(w.backup()), to); err != nil {
		t.Fatal(err)
	}
	before, after := everything(t, w.db), everything(t, testkit.Open(t, "sqlite:"+to.Database))
	if diff := cmp.Diff(before, after); diff != "" {
		t.Error(diff)
	}
	for _, table := range []string{"project", "run", "run_group", "machine", "instance", "outcome", "artifact", "stored_file", "endpoint"} {
		if len(before[table]) == 0 {
			t.Errorf("the table %s was empty", table)
		}
	}
}

// everything is each row of each table, as text.
func everything(t *testing.T, db *store.DB) map[string][]string {
	t.Helper()
	all := map[string][]string{}
	testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) error {
		texts := func(query string, args ...any) ([]string, error) {
			rows, err := tx.Query(ctx, query, args...)
			return database.All(rows, err, func(r database.Row) (text string, err error) { err = r.Scan(&text); return text, err })
		}
		tables, err := texts(`SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%' ORDER BY name`)
		if err != nil {
			return err
		}
		for _, table := range tables {
			columns, err := texts(`SELECT 'quote(' || name || ')' FROM pragma_table_info($1) ORDER BY cid`, table)
			if err != nil {
				return err
			}
			if all[table], err = texts(`SELECT ` + strings.Join(columns, `|| ', ' ||`) + ` AS row FROM ` + table + ` ORDER BY row`); err != nil {
				return err
			}
		}
		return nil
	})
	return all
}

// TestPendingDeliveriesAreRestored: what was not delivered when the backup was made
// is delivered by the server that is made of it.
func TestPendingDeliveriesAreRestored(t *testing.T) {
	w := newWorld(t)
	e := testkit.Endpoint(t, w.db, "shop")
	testkit.Write(t, w.db, func(ctx context.Context, tx *store.Tx) error {
		_, err := tx.InsertTest(ctx, e, webhook.Event{ID: webhook.NewID("evt_", tx.Now), ProjectID: "shop", Scope: run.GroupScope, Kind: webhook.RunStart, Payload: []byte("{}"), CreatedAt: tx.Now})
		return err
	})
	to, _ := target(t)
	if _, err := backup.Read(t.Context(), bytes.NewReader(w.backup()), to); err != nil {
		t.Fatal(err)
	}
	testkit.Read(t, testkit.Open(t, "sqlite:"+to.Database), func(ctx context.Context, tx *store.Tx) error {
		list, _, err := tx.Deliveries(ctx, store.DeliveryFilter{EndpointID: e.ID, States: []webhook.DeliveryState{webhook.Waiting}}, store.Page{Limit: 10})
		if len(list) != 1 {
			t.Errorf("%d deliveries wait, want 1", len(list))
		}
		return err
	})
}

// TestBackupWhileUploadsRun: whatever is uploaded, replaced and deleted meanwhile, a restored backup has whole files, and says which
// it has not.
func TestBackupWhileUploadsRun(t *testing.T) {
	w := newWorld(t)
	service := artifact.New(artifact.Options{DB: w.db, Store: w.files, Secret: make([]byte, 32), PublicURL: "http://runbell.test", Max: 1 << 20,
		Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry()})
	ctx, stop := context.WithCancel(t.Context())
	var uploads sync.WaitGroup
	for n := range 4 {
		uploads.Go(func() {
			for round := 0; ctx.Err() == nil; round++ {
				to, err := service.Expect(context.Background(), w.artifact.InstanceID, run.Outcome{Screenshots: []run.Screenshot{{ID: fmt.Sprint(n, round%5)}}})
				if err != nil {
					t.Error(err)
					return
				}
				address, err := url.Parse(to.Screenshots[0].UploadURL)
				if err != nil {
					t.Error(err)
					return
				}
				content := strings.Repeat(fmt.Sprint(round, " "), 1+round%3000)
				if err := service.Receive(context.Background(), artifact.Upload{ID: path.Base(address.Path), Query: address.Query(), Size: -1, Body: strings.NewReader(content)}); err != nil {
					t.Error(err)
				}
				if _, _, err := service.DeleteFiles(context.Background(), 100); err != nil {
					t.Error(err)
				}
			}
		})
	}
	defer uploads.Wait()
	defer stop()
	for range 5 {
		var out bytes.Buffer
		m, err := backup.Write(t.Context(), &out, backup.Source{Database: filepath.Join(w.dir, "runbell.db"), Scratch: t.TempDir(), SecretKey: []byte(keyText), Artifacts: w.files})
		if err != nil || len(m.Damaged) > 0 {
			t.Fatalf("%+v, %v", m, err)
		}
		to, dir := target(t)
		restored, err := backup.Read(t.Context(), &out, to)
		if err != nil || restored.Artifacts+restored.Lost != m.Files {
			t.Fatalf("%+v of %d files, %v", restored, m.Files, err)
		}
		db := testkit.Open(t, "sqlite:"+to.Database)
		there := testkit.Files(t, filepath.Join(dir, "artifacts"))
		testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) error {
			list, err := tx.RunArtifacts(ctx, w.run)
			lost := 0
			for _, a := range list {
				switch {
				case a.FileKey == "" && strings.Contains(a.Problem, "backup"):
					lost++
				case !there[a.FileKey]:
					t.Errorf("%+v has no file", a)
				}
			}
			if lost != restored.Lost {
				t.Errorf("%d artifacts say that they are lost, want %d", lost, restored.Lost)
			}
			return err
		})
	}
}

// TestRestoreWasKilled: what a restore has left that was killed is not mixed with the next one.
func TestRestoreWasKilled(t *testing.T) {
	w := newWorld(t)
	whole := w.backup()
	to, dir := target(t)
	// A log with pages of a database that is like the restored one, and has other pages.
	log, err := os.ReadFile(filepath.Join(w.dir, "runbell.db-wal"))
	if err == nil && len(log) == 0 {
		err = errors.New("the log is empty")
	}
	if err = errors.Join(err, os.WriteFile(filepath.Join(dir, "runbell.db.restoring-wal"), log, 0o600)); err != nil {
		t.Fatal(err)
	}
	if restored, err := backup.Read(t.Context(), bytes.NewReader(whole), to); err != nil || restored.Lost != 0 {
		t.Fatalf("%+v, %v", restored, err)
	}
	testkit.Read(t, testkit.Open(t, "sqlite:"+to.Database), func(ctx context.Context, tx *store.Tx) error {
		var found string
		err := tx.QueryRow(ctx, `PRAGMA integrity_check`).Scan(&found)
		if found != "ok" {
			t.Errorf("the database: %s", found)
		}
		_, errRun := tx.Run(ctx, w.run)
		return errors.Join(err, errRun)
	})
}

// TestLostFiles: an artifact whose file is gone says so after the restore, and the
// rest is there.
func TestLostFiles(t *testing.T) {
	for name, change := range map[string]func(*world, *backup.Source){
		"removed while the backup was made": func(w *world, _ *backup.Source) {
			if err := w.files.Delete(w.Context(), w.artifact.FileKey); err != nil {
				w.Fatal(err)
			}
		},
		"cut on the disk": func(w *world, _ *backup.Source) {
			if err := os.Truncate(filepath.Join(w.dir, "artifacts", w.artifact.FileKey), 10); err != nil {
				w.Fatal(err)
			}
		},
		"a backup without artifacts": func(_ *world, s *backup.Source) { s.Artifacts = nil },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			to, _ := target(t)
			restored, err := backup.Read(t.Context(), bytes.NewReader(w.backup(func(s *backup.Source) { change(w, s) })), to)
			if err != nil || restored.Lost != 1 {
				t.Fatalf("restored %+v, %v", restored, err)
			}
			testkit.Read(t, testkit.Open(t, "sqlite:"+to.Database), func(ctx context.Context, tx *store.Tx) error {
				a, err := tx.Artifact(ctx, w.artifact.ID)
				if a.FileKey != "" || !strings.Contains(a.Problem, "backup") {
					t.Errorf("the artifact is %+v", a)
				}
				return err
			})
		})
	}
}

// TestDamagedBackups: a backup that is cut anywhere, or has another byte somewhere,
// is refused or restored whole, and leaves no database that is neither.
func TestDamagedBackups(t *testing.T) {
	w := newWorld(t)
	whole := w.backup()
	for i := range 20 {
		at := len(whole) * i / 20
		changed := bytes.Clone(whole)
		changed[at] ^= 0x20
		for name, damaged := range map[string][]byte{fmt.Sprintf("cut at %d", at): whole[:at], fmt.Sprintf("another byte at %d", at): changed} {
			to, dir := target(t)
			_, err := backup.Read(t.Context(), bytes.NewReader(damaged), to)
			if err == nil {
				continue // a byte that nothing is read from
			}
			entries, errDir := os.ReadDir(dir)
			for _, e := range entries {
				if e.Name() != "artifacts" {
					t.Errorf("%s: %s is left (%v)", name, e.Name(), err)
				}
			}
			if errDir != nil {
				t.Error(errDir)
			}
			// The same place takes a good one afterwards.
			if i%5 == 0 {
				if restored, err := backup.Read(t.Context(), bytes.NewReader(whole), to); err != nil || restored.Lost != 0 {
					t.Errorf("%s, then a good one: %+v, %v", name, restored, err)
				}
			}
		}
	}
}

func TestRefusals(t *testing.T) {
	w := newWorld(t)
	whole := w.backup()
	newer := func() []byte {
		var out bytes.Buffer
		archive := tar.NewWriter(&out)
		doc := `{"format":2,"version":"v9.0.0"}`
		_ = archive.WriteHeader(&tar.Header{Name: "manifest.json", Size: int64(len(doc))})
		_, _ = archive.Write([]byte(doc))
		_ = archive.Close()
		return out.Bytes()
	}()
	for name, c := range map[string]struct {
		content []byte
		there   string // a file in the data directory
		want    string
	}{
		"a text":               {[]byte(strings.Repeat("no backup ", 200)), "", "not a backup of runbell"},
		"nothing":              {nil, "", "not a backup of runbell"},
		"a database is there":  {whole, "runbell.db", "only where there is no database"},
		"its log is there":     {whole, "runbell.db-wal", "move the old one away"},
		"another key is there": {whole, "secret.key", "is not the key of the backup"},
		"made by a newer one":  {newer, "", "v9.0.0"},
	} {
		t.Run(name, func(t *testing.T) {
			to, dir := target(t)
			if c.there != "" {
				if err := os.WriteFile(filepath.Join(dir, c.there), []byte("something else"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := backup.Read(t.Context(), bytes.NewReader(c.content), to); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if c.there != "" {
				if text, err := os.ReadFile(filepath.Join(dir, c.there)); err != nil || string(text) != "something else" {
					t.Errorf("%s was changed: %v", c.there, err)
				}
			}
		})
	}
}
