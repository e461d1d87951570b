// Package backup writes and reads backups: one tar file with a consistent copy of
// a SQLite database, the server's secret key and the artifacts.
//
// The members, in this order:
//
//	manifest.json    what the backup is, see [Manifest]
//	secret.key       as in the data directory; missing if it was left out
//	runbell.db       the copy of the database
//	artifacts/KEY    each artifact, by its key in the store; none if they were left out
package backup

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/go-json-experiment/json"

	"runbell/internal/artifact"
	"runbell/internal/database"
	"runbell/internal/store"
)

const (
	format       = 1
	manifestName = "manifest.json"
	keyName      = "secret.key"
	databaseName = "runbell.db"
	artifactsDir = "artifacts/"
)

// Manifest says what is in a backup.
type Manifest struct {
	Format    int       `json:"format"`  // of the backup; this version reads and writes 1
	Version   string    `json:"version"` // of the program that made it
	MadeAt    time.Time `json:"madeAt"`
	SHA256    string    `json:"databaseSha256"`
	SecretKey bool      `json:"secretKey"` // it is in the backup
	Artifacts bool      `json:"artifacts"` // they are in the backup
	Files     int       `json:"files"`     // artifacts that the database names
	Bytes     int64     `json:"bytes"`     // of those
	// Damaged are keys of artifacts that are left out, because their files are not as long as
	// they were. It is known only when the backup is written.
	Damaged []string `json:"-"`
}

// Source is what a backup is made of.
type Source struct {
	Database  string         // path of the SQLite database, which a server may be using
	Scratch   string         // directory with room for a copy of the database
	SecretKey []byte         // content of the key file; nil leaves it out
	Artifacts artifact.Store // nil leaves them out
	Version   string
}

// Write writes a backup and returns its manifest. Artifacts that are removed while
// it is made are not in it.
func Write(ctx context.Context, w io.Writer, s Source) (m Manifest, err error) {
	dir, err := os.MkdirTemp(s.Scratch, "runbell-backup-*")
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	path := filepath.Join(dir, databaseName)
	if err := database.CopySQLite(ctx, s.Database, path); err != nil {
		return m, err
	}
	files, err := list(ctx, path)
	if err != nil {
		return m, err
	}
	m = Manifest{Format: format, Version: s.Version, MadeAt: time.Now().UTC(), SecretKey: s.SecretKey != nil,
		Artifacts: s.Artifacts != nil, Files: len(files)}
	for _, f := range files {
		m.Bytes += f.Size
	}
	if m.SHA256, err = sum(path); err != nil {
		return m, err
	}
	t := tar.NewWriter(w)
	if err := begin(t, m, s.SecretKey, path); err != nil {
		return m, err
	}
	if s.Artifacts != nil {
		if m.Damaged, err = addArtifacts(ctx, t, s.Artifacts, files); err != nil {
			return m, err
		}
	}
	return m, t.Close()
}

// begin writes all that comes before the artifacts.
func begin(t *tar.Writer, m Manifest, key []byte, database string) error {
	doc, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if err := addBytes(t, manifestName, doc); err != nil {
		return err
	}
	if key != nil {
		if err := addBytes(t, keyName, key); err != nil {
			return err
		}
	}
	f, err := os.Open(database)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return add(t, databaseName, info.Size(), f)
}

// addArtifacts copies artifacts, except those that were removed since the database
// was copied, and those that are damaged: one file must not prevent the backup of all others.
func addArtifacts(ctx context.Context, t *tar.Writer, from artifact.Store,
	files []store.ArtifactFile) (damaged []string, err error) {
	for _, f := range files {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		whole, err := addArtifact(ctx, t, from, f)
		if err != nil {
			return nil, fmt.Errorf("artifact %s: %w", f.Key, err)
		}
		if !whole {
			damaged = append(damaged, f.Key)
		}
	}
	return damaged, nil
}

// addArtifact copies an artifact, and reports false if it is damaged.
func addArtifact(ctx context.Context, t *tar.Writer, from artifact.Store,
	f store.ArtifactFile) (whole bool, err error) {
	object, err := from.Open(ctx, f.Key)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, object.Close()) }()
	size, err := object.Seek(0, io.SeekEnd)
	if err != nil {
		return false, err
	}
	// What was uploaded past the server may have been replaced since.
	if size != f.Size && f.SHA256 != "" {
		return false, nil
	}
	if _, err := object.Seek(0, io.SeekStart); err != nil {
		return false, err
	}
	return true, add(t, artifactsDir+f.Key, size, object)
}

// list reads the files of artifacts that a copy of the database names.
func list(ctx context.Context, path string) (all []store.ArtifactFile, err error) {
	db, err := store.Open(ctx, "sqlite:"+path, nil) // nothing that is sealed is read
	if err != nil {
		return nil, err
	}
	err = eachFile(ctx, db, func(f store.ArtifactFile) error {
		all = append(all, f)
		return nil
	})
	return all, errors.Join(err, db.Close())
}

// eachFile calls f with the file of every artifact.
func eachFile(ctx context.Context, db *store.DB, f func(store.ArtifactFile) error) error {
	const page = 1000
	for after := ""; ; {
		var files []store.ArtifactFile
		err := db.Read(ctx, func(tx *store.Tx) (err error) {
			files, err = tx.ArtifactFiles(ctx, after, page)
			return err
		})
		if err != nil {
			return err
		}
		for _, file := range files {
			if err := f(file); err != nil {
				return err
			}
			after = file.ArtifactID
		}
		if len(files) < page {
			return nil
		}
	}
}

func addBytes(t *tar.Writer, name string, content []byte) error {
	return add(t, name, int64(len(content)), bytes.NewReader(content))
}

// add writes one member, which must have the size that was announced.
func add(t *tar.Writer, name string, size int64, r io.Reader) error {
	if err := t.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: size, Format: tar.FormatPAX}); err != nil {
		return err
	}
	n, err := io.Copy(t, r)
	if err == nil && n != size {
		err = fmt.Errorf("has %d bytes, not %d", n, size)
	}
	return err
}

func sum(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
