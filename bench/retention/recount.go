package main

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"runbell/internal/run"
	"runbell/internal/store"
)

// tables are those that grow.
var tables = []string{"run", "run_group", "machine", "instance", "announcement", "outcome", "console_output", "history_part",
	"artifact", "stored_file", "event", "delivery", "attempt"}

// stock is what is in a data directory.
type stock struct {
	rows     map[string]int
	database int64 // bytes
	files    int
	bytes    int64 // of the files
}

func takeStock(ctx context.Context, data string) (stock, error) {
	s := stock{rows: map[string]int{}}
	db, err := open(ctx, data)
	if err != nil {
		return s, err
	}
	err = db.Read(ctx, func(tx *store.Tx) error {
		for _, table := range tables {
			var n int
			if err := tx.QueryRow(ctx, `SELECT COUNT(*) FROM `+table).Scan(&n); err != nil {
				return err
			}
			s.rows[table] = n
		}
		return nil
	})
	if err = errors.Join(err, db.Close()); err != nil { // that brings the file up to date
		return s, err
	}
	info, err := os.Stat(filepath.Join(data, "runbell.db"))
	if err != nil {
		return s, err
	}
	s.database = info.Size()
	err = eachFile(data, func(_ string, e fs.DirEntry) error {
		info, err := e.Info()
		if err == nil {
			s.files, s.bytes = s.files+1, s.bytes+info.Size()
		}
		return err
	})
	return s, err
}

// eachFile calls a function for each file of an artifact.
func eachFile(data string, f func(key string, e fs.DirEntry) error) error {
	root := filepath.Join(data, "artifacts")
	return filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		key, err := filepath.Rel(root, path)
		return errors.Join(err, f(key, e))
	})
}

func printStock(before, after stock) {
	fmt.Printf("%-16s %12s %12s\n", "rows", "before", "after")
	sum := [2]int{}
	for _, table := range tables {
		fmt.Printf("%-16s %12d %12d\n", table, before.rows[table], after.rows[table])
		sum[0], sum[1] = sum[0]+before.rows[table], sum[1]+after.rows[table]
	}
	fmt.Printf("%-16s %12d %12d\n", "all", sum[0], sum[1])
	const mb = 1e6
	fmt.Printf("%-16s %12.1f %12.1f\n", "database, MB", float64(before.database)/mb, float64(after.database)/mb)
	fmt.Printf("%-16s %12d %12d\n%-16s %12.1f %12.1f\n", "files", before.files, after.files, "files, MB",
		float64(before.bytes)/mb, float64(after.bytes)/mb)
}

// freePages is how many pages of the database hold nothing, as its file says.
func freePages(data string) (uint32, error) {
	f, err := os.Open(filepath.Join(data, "runbell.db"))
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }()
	var b [4]byte
	_, err = f.ReadAt(b[:], 36) // https://sqlite.org/fileformat.html#the_database_header
	return binary.BigEndian.Uint32(b[:]), err
}

// left is what has to be left of a run.
type left struct{ run, files, output, delivery bool }

// expect says by a plain reading of the settings what has to be left of each run.
func (y *year) expect() map[string]left {
	k := run.DefaultRetention()
	want := map[string]left{}
	var kept int64 // bytes of museum
	for _, p := range y.past {
		days := int(y.began.Sub(p.At) / day)
		fileDays := k.PassedArtifacts
		if p.Bad {
			fileDays = k.FailedArtifacts
		}
		w := left{run: true, files: p.Files > 0, output: true}
		if p.Project == museum {
			kept += int64(p.Files) * y.size
		} else {
			w.delivery = days < k.Deliveries
			if !p.Pinned && !p.Running {
				w.run = days < k.Runs
				w.files = w.files && days < fileDays && w.run
				w.output = days < k.Output && w.run
			}
		}
		want[p.ID] = w
	}
	limit := kept / 2
	for _, p := range slices.SortedFunc(slices.Values(y.past), func(a, b past) int { return cmp.Compare(a.At.UnixMicro(), b.At.UnixMicro()) }) {
		if p.Project == museum && kept > limit && p.Files > 0 && !p.Pinned && !p.Running {
			kept -= int64(p.Files) * y.size
			w := want[p.ID]
			w.files = false
			want[p.ID] = w
		}
	}
	return want
}

// recount checks, run by run and file by file, that exactly the expected data is left.
func (y *year) recount(ctx context.Context, data string) error {
	db, err := open(ctx, data)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	want, wrong := y.expect(), 0
	known := map[string]bool{}
	err = db.Read(ctx, func(tx *store.Tx) error {
		for _, p := range y.past {
			got, err := look(ctx, tx, p)
			if err != nil {
				return err
			}
			if w := want[p.ID]; got != w {
				if wrong++; wrong <= 10 {
					fmt.Printf("WRONG: %+v, %d days old: %+v is left, and %+v should be\n", p, y.began.Sub(p.At)/day, got, w)
				}
			}
		}
		return knownFiles(ctx, tx, known)
	})
	if err != nil {
		return err
	}
	orphans := 0
	if err := eachFile(data, func(key string, _ fs.DirEntry) error {
		if !known[filepath.ToSlash(key)] {
			orphans++
		}
		delete(known, filepath.ToSlash(key))
		return nil
	}); err != nil {
		return err
	}
	fmt.Printf("\nrecount of %d runs: %d wrong; %d files that no artifact has, %d artifacts without their file\n",
		len(y.past), wrong, orphans, len(known))
	if wrong+orphans+len(known) > 0 {
		return errors.New("what is left is not what has to be left")
	}
	return nil
}

// look sees what is left of a run. Files are all there or none.
func look(ctx context.Context, tx *store.Tx, p past) (left, error) {
	var got left
	var runs, files, instances, outputs, deliveries int
	for _, q := range []struct {
		into *int
		sql  string
		of   string
	}{
		{&runs, `run WHERE id = $1`, p.ID},
		{&files, `artifact WHERE run_id = $1`, p.ID},
		{&instances, `instance WHERE run_id = $1`, p.ID},
		{&outputs, `instance i JOIN console_output o ON o.instance_id = i.id WHERE i.run_id = $1`, p.ID},
		{&deliveries, `delivery WHERE id = $1`, p.DeliveryID},
	} {
		if err := tx.QueryRow(ctx, `SELECT COUNT(*) FROM `+q.sql, q.of).Scan(q.into); err != nil {
			return got, err
		}
	}
	if files != 0 && files != p.Files || runs*specs != instances {
		return got, fmt.Errorf("run %s is half there: %d of %d files, %d instances, %d rows", p.ID, files, p.Files, instances, runs)
	}
	return left{runs > 0, files > 0, outputs > 0, deliveries > 0}, nil
}

// knownFiles lists the files that artifacts have.
func knownFiles(ctx context.Context, tx *store.Tx, known map[string]bool) error {
	for after := ""; ; {
		list, err := tx.ArtifactFiles(ctx, after, 1000)
		if err != nil || len(list) == 0 {
			return err
		}
		for _, f := range list {
			known[f.Key], after = true, f.ArtifactID
		}
	}
}
