package backup

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/go-json-experiment/json"

	"runbell/internal/artifact"
	"runbell/internal/database"
	"runbell/internal/run"
	"runbell/internal/store"
)

// Target is where a backup is put. Nothing in it is written over.
type Target struct {
	Database  string         // path of the SQLite database: no file has it
	KeyFile   string         // path of the secret key; one that exists must be the same
	Artifacts artifact.Store // nil leaves the artifacts of the backup out
}

// Restored is the result of a restore.
type Restored struct {
	Manifest
	Artifacts int // that were put into the store
	Lost      int // that the database names, and that are in neither; the pages say so
}

// errDamaged is a backup that is not whole, or was changed.
var errDamaged = errors.New("the backup is damaged: use another one")

// Read puts a backup back. The database appears under its name last, when
// everything else is there; after an error, Read can be called again.
func Read(ctx context.Context, r io.Reader, t Target) (Restored, error) {
	var out Restored
	// SQLite would play the log of an old database into the new one.
	for _, ending := range []string{"", "-wal", "-journal"} {
		if _, err := os.Stat(t.Database + ending); err == nil {
			return out, fmt.Errorf("%s exists: a backup can be restored only where there is no database; move the old one "+
				"away, with its -wal, or name another data directory", t.Database+ending)
		}
	}
	archive := tar.NewReader(r)
	key, err := readBeginning(archive, &out.Manifest)
	if err != nil {
		return out, err
	}
	if err := checkKey(t.KeyFile, key); err != nil {
		return out, err
	}
	partial := t.Database + ".restoring"
	if err := discard(partial); err != nil { // what an earlier attempt has left that was killed
		return out, err
	}
	if err := readDatabase(archive, partial, out.SHA256); err != nil {
		return out, errors.Join(err, discard(partial))
	}
	if out.Artifacts, out.Lost, err = readArtifacts(ctx, archive, partial, t.Artifacts); err != nil {
		return out, errors.Join(err, discard(partial))
	}
	if err := errors.Join(saveKey(t.KeyFile, key), os.Remove(partial+".lock")); err != nil {
		return out, err
	}
	return out, errors.Join(os.Rename(partial, t.Database), database.SyncFile(t.Database))
}

// readBeginning reads what comes before the database: the manifest, and the
// secret key if it is in the backup.
func readBeginning(archive *tar.Reader, m *Manifest) (key []byte, err error) {
	doc, err := readSmall(archive, manifestName)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(doc, m); err != nil || m.Format < 1 {
		return nil, errDamaged
	}
	if m.Format > format {
		return nil, fmt.Errorf("runbell %s made the backup in a newer format: restore it with that version",
			run.Clip(m.Version, 40))
	}
	if !m.SecretKey {
		return nil, nil
	}
	return readSmall(archive, keyName)
}

// readSmall reads the next member, which has that name and is small.
func readSmall(archive *tar.Reader, name string) ([]byte, error) {
	h, err := archive.Next()
	if err != nil || h.Name != name || h.Size > 64<<10 {
		if name == manifestName {
			return nil, errors.New("this is not a backup of runbell")
		}
		return nil, errDamaged
	}
	content, err := io.ReadAll(archive)
	if err != nil {
		return nil, errDamaged
	}
	return content, nil
}

// checkKey refuses a data directory with another key: what one of them has
// encrypted could not be read.
func checkKey(path string, key []byte) error {
	there, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) || key == nil {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the secret key: %w", err)
	}
	if strings.TrimSpace(string(there)) != strings.TrimSpace(string(key)) {
		return fmt.Errorf("%s is not the key of the backup: move it away, or restore into an empty data directory", path)
	}
	return nil
}

// saveKey writes the key if there is none.
func saveKey(path string, key []byte) error {
	if key == nil {
		return nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = f.Write(key)
	return errors.Join(err, f.Sync(), f.Close())
}

// readDatabase writes the next member to a file, and checks its sum.
func readDatabase(archive *tar.Reader, path, want string) error {
	h, err := archive.Next()
	if err != nil || h.Name != databaseName {
		return errDamaged
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(f, sum), archive)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		if n < h.Size && errors.Is(err, io.ErrUnexpectedEOF) {
			return errDamaged
		}
		return fmt.Errorf("write the database: %w", err)
	}
	if hex.EncodeToString(sum.Sum(nil)) != want {
		return errDamaged
	}
	return nil
}

// readArtifacts puts the artifacts that the database names into the store, and
// notes at those that are in neither that they are lost.
func readArtifacts(ctx context.Context, archive *tar.Reader, path string,
	to artifact.Store) (restored, lost int, err error) {
	db, err := store.Open(ctx, "sqlite:"+path, nil) // nothing that is sealed is read
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	for to != nil {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, 0, errDamaged
		}
		ok, err := readArtifact(ctx, db, archive, h, to)
		if err != nil {
			return 0, 0, err
		}
		if ok {
			restored++
		}
	}
	lost, err = loseMissing(ctx, db, to)
	return restored, lost, err
}

// readArtifact puts a member of the backup into the store, if the database has an
// artifact for it.
func readArtifact(ctx context.Context, db *store.DB, archive io.Reader, h *tar.Header,
	to artifact.Store) (bool, error) {
	key, ok := strings.CutPrefix(h.Name, artifactsDir)
	if !ok {
		return false, errDamaged
	}
	var a run.Artifact
	err := db.Read(ctx, func(tx *store.Tx) (err error) {
		a, err = tx.Artifact(ctx, artifact.ArtifactID(key))
		return err
	})
	switch {
	case run.KindOf(err) == run.NotFound || err == nil && a.FileKey != key:
		return false, nil
	case err != nil:
		return false, err
	case a.Size != h.Size && a.SHA256 != "": // else the server has never seen it
		return false, errDamaged
	}
	if err := to.Delete(ctx, key); err != nil { // what an earlier attempt has left
		return false, err
	}
	sum := sha256.New()
	if err := to.Put(ctx, key, io.TeeReader(archive, sum), h.Size, a.ContentType); err != nil {
		return false, fmt.Errorf("artifact %s: %w", key, err)
	}
	if a.SHA256 != "" && hex.EncodeToString(sum.Sum(nil)) != a.SHA256 {
		return false, errDamaged
	}
	return true, nil
}

// loseMissing notes at every artifact without a file in the store that it is lost.
func loseMissing(ctx context.Context, db *store.DB, in artifact.Store) (lost int, err error) {
	if in == nil {
		return 0, nil
	}
	var ids []string
	err = eachFile(ctx, db, func(f store.ArtifactFile) error {
		object, err := in.Open(ctx, f.Key)
		if errors.Is(err, fs.ErrNotExist) {
			ids = append(ids, f.ArtifactID)
			return nil
		}
		if err != nil {
			return err
		}
		return object.Close()
	})
	for _, id := range ids {
		err = errors.Join(err, db.Write(ctx, func(tx *store.Tx) error {
			return tx.LoseArtifact(ctx, id, "It was not in the backup that this server was restored from.")
		}))
	}
	return len(ids), err
}

// discard removes what a restore that failed has left of the database.
func discard(path string) error {
	var errs []error
	for _, ending := range []string{"", "-wal", "-shm", ".lock"} {
		if err := os.Remove(path + ending); !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
