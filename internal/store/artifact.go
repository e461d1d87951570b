package store

import (
	"context"
	"errors"
	"time"

	"runbell/internal/database"
	"runbell/internal/run"
)

const artifactColumns = `id, project_id, run_id, instance_id, kind, content_type, encoding, size, sha256, file_key,
	awaited_until, problem, stored_at`

func scanArtifact(r database.Row) (run.Artifact, error) {
	var a run.Artifact
	var file database.NullString
	var awaited database.NullInt64
	var stored int64
	err := r.Scan(&a.ID, &a.ProjectID, &a.RunID, &a.InstanceID, &a.Kind, &a.ContentType, &a.Encoding, &a.Size, &a.SHA256,
		&file, &awaited, &a.Problem, &stored)
	a.FileKey, a.AwaitedUntil, a.StoredAt = file.String, timeOrZero(awaited), timeOf(stored)
	return a, err
}

// Artifact finds an artifact by its id.
func (tx *Tx) Artifact(ctx context.Context, id string) (run.Artifact, error) {
	return one(tx.QueryRow(ctx, `SELECT `+artifactColumns+` FROM artifact WHERE id = $1`, id), scanArtifact,
		run.Missing("file", id))
}

// Artifacts lists the artifacts of one instance of a run.
func (tx *Tx) Artifacts(ctx context.Context, runID, instanceID string) ([]run.Artifact, error) {
	rows, err := tx.Query(ctx, `SELECT `+artifactColumns+
		` FROM artifact WHERE run_id = $1 AND instance_id = $2 ORDER BY id`, runID, instanceID)
	return database.All(rows, err, scanArtifact)
}

// RunArtifacts lists the artifacts of a run.
func (tx *Tx) RunArtifacts(ctx context.Context, runID string) ([]run.Artifact, error) {
	rows, err := tx.Query(ctx, `SELECT `+artifactColumns+` FROM artifact WHERE run_id = $1 ORDER BY instance_id, id`,
		runID)
	return database.All(rows, err, scanArtifact)
}

// InsertFile notes that the store may have a file of size bytes from now on. The file is
// deleted at deleteAt, unless an artifact gets it before.
func (tx *Tx) InsertFile(ctx context.Context, key, projectID string, size int64, deleteAt time.Time) error {
	_, err := tx.Exec(ctx, `INSERT INTO stored_file (key, project_id, size, delete_at) VALUES ($1, $2, $3, $4)`, key,
		projectID, size, micros(deleteAt))
	return err
}

// PutArtifact stores an artifact with its file, which is kept from now on. An earlier
// file of the artifact is deleted. If the new file is already due for deletion,
// PutArtifact reports false and changes nothing. The run must be locked.
func (tx *Tx) PutArtifact(ctx context.Context, a run.Artifact) (bool, error) {
	kept, err := tx.Exec(ctx, `UPDATE stored_file SET delete_at = NULL, size = $2 WHERE key = $1
		AND (delete_at IS NULL OR delete_at > $3)`,
		a.FileKey, a.Size, micros(tx.Now))
	if err != nil || kept == 0 {
		return false, err
	}
	return true, tx.giveFile(ctx, a)
}

// giveFile stores an artifact with a file and deletes its earlier one.
func (tx *Tx) giveFile(ctx context.Context, a run.Artifact) error {
	var before database.NullString
	var size int64
	var awaited database.NullInt64 // until then a reporter may upload the one before
	err := tx.QueryRow(ctx, `SELECT file_key, size, awaited_until FROM artifact WHERE id = $1`, a.ID).Scan(&before, &size,
		&awaited)
	if err != nil && !errors.Is(err, database.ErrNoRows) {
		return err
	}
	more, bytes := 1, a.Size
	if before.Valid {
		more, bytes = 0, a.Size-size
		if _, err := tx.Exec(ctx, `UPDATE stored_file SET delete_at = $3 WHERE key = $1 AND key <> $2`, before.String,
			a.FileKey, max(micros(tx.Now), awaited.Int64)); err != nil {
			return err
		}
	}
	if err := tx.countArtifacts(ctx, a.RunID, more, bytes); err != nil {
		return err
	}
	_, err = tx.Exec(ctx, insertArtifact+
		` ON CONFLICT (id) DO UPDATE SET content_type = excluded.content_type, encoding = excluded.encoding,
			size = excluded.size, sha256 = excluded.sha256, file_key = excluded.file_key, awaited_until = excluded.awaited_until,
			problem = excluded.problem, stored_at = excluded.stored_at`, artifactRow(a)...)
	return err
}

// countArtifacts adds to the run's counts of artifacts.
func (tx *Tx) countArtifacts(ctx context.Context, runID string, more int, bytes int64) error {
	_, err := tx.Exec(ctx, `UPDATE run SET rev = rev + 1, artifacts = artifacts + $2, artifact_bytes = artifact_bytes + $3
		WHERE id = $1`, runID, more, bytes)
	return err
}

// AwaitArtifact notes that a reporter may upload the file of an artifact to the store
// itself. Its size is not known yet. A file that the artifact has must have the same
// key. The run must be locked.
func (tx *Tx) AwaitArtifact(ctx context.Context, a run.Artifact) error {
	if _, err := tx.Exec(ctx, `INSERT INTO stored_file (key, project_id, size) VALUES ($1, $2, 0)
		ON CONFLICT (key) DO NOTHING`, a.FileKey, a.ProjectID); err != nil {
		return err
	}
	return tx.giveFile(ctx, a)
}

// ConfirmArtifact stores that the file of an artifact that is awaited is there, how large it
// is, and until when it is awaited still. It changes nothing if the artifact has another
// file by now. The run must be locked.
func (tx *Tx) ConfirmArtifact(ctx context.Context, a run.Artifact) error {
	before, awaited, err := tx.awaitedSize(ctx, a.ID, a.FileKey)
	if err != nil || !awaited {
		return err
	}
	if _, err := tx.Exec(ctx, `UPDATE artifact SET awaited_until = $2, size = $3, encoding = $4, stored_at = $5
		WHERE id = $1`, a.ID, microsOrNull(a.AwaitedUntil), a.Size, a.Encoding, micros(a.StoredAt)); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `UPDATE stored_file SET size = $2 WHERE key = $1`, a.FileKey, a.Size); err != nil {
		return err
	}
	return tx.countArtifacts(ctx, a.RunID, 0, a.Size-before)
}

// awaitedSize is the size of an artifact that is awaited under a key, as it was last seen.
func (tx *Tx) awaitedSize(ctx context.Context, id, key string) (size int64, awaited bool, err error) {
	err = tx.QueryRow(ctx, `SELECT size FROM artifact WHERE id = $1 AND file_key = $2 AND awaited_until IS NOT NULL`, id,
		key).Scan(&size)
	if errors.Is(err, database.ErrNoRows) {
		return 0, false, nil
	}
	return size, err == nil, err
}

// DropArtifact stores why an awaited artifact has no file. Whatever the store has under
// the key is deleted at an instant. It changes nothing if the artifact has another
// file by now. The run must be locked.
func (tx *Tx) DropArtifact(ctx context.Context, a run.Artifact, key string, deleteAt time.Time) error {
	size, awaited, err := tx.awaitedSize(ctx, a.ID, key)
	if err != nil || !awaited {
		return err
	}
	if _, err := tx.Exec(ctx, `UPDATE artifact SET awaited_until = NULL, file_key = NULL, size = 0, problem = $2,
		stored_at = $3 WHERE id = $1`, a.ID, a.Problem, micros(a.StoredAt)); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `UPDATE stored_file SET delete_at = $2 WHERE key = $1`, key, micros(deleteAt)); err != nil {
		return err
	}
	return tx.countArtifacts(ctx, a.RunID, -1, -size)
}

// AwaitedArtifacts lists the artifacts of a run that are awaited, and that nobody has seen.
func (tx *Tx) AwaitedArtifacts(ctx context.Context, runID string) ([]run.Artifact, error) {
	rows, err := tx.Query(ctx, `SELECT `+artifactColumns+
		` FROM artifact WHERE run_id = $1 AND awaited_until IS NOT NULL AND size = 0 ORDER BY id`, runID)
	return database.All(rows, err, scanArtifact)
}

// OverdueArtifacts lists up to limit awaited artifacts whose time has passed.
func (tx *Tx) OverdueArtifacts(ctx context.Context, limit int) ([]run.Artifact, error) {
	rows, err := tx.Query(ctx, `SELECT `+artifactColumns+` FROM artifact WHERE awaited_until <= $1
		AND EXISTS (SELECT 1 FROM run WHERE run.id = artifact.run_id) ORDER BY awaited_until, id LIMIT $2`,
		micros(tx.Now), limit)
	return database.All(rows, err, scanArtifact)
}

// RefuseArtifact stores why an artifact has no file. An artifact with a file does not
// change. The run must be locked.
func (tx *Tx) RefuseArtifact(ctx context.Context, a run.Artifact) error {
	if _, err := tx.Exec(ctx, `UPDATE run SET rev = rev + 1 WHERE id = $1`, a.RunID); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, insertArtifact+
		` ON CONFLICT (id) DO UPDATE SET problem = excluded.problem, stored_at = excluded.stored_at
		WHERE artifact.file_key IS NULL`, artifactRow(a)...)
	return err
}

const insertArtifact = `INSERT INTO artifact (` + artifactColumns + `)
	VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)`

func artifactRow(a run.Artifact) []any {
	var file any
	if a.FileKey != "" {
		file = a.FileKey
	}
	return []any{a.ID, a.ProjectID, a.RunID, a.InstanceID, string(a.Kind), a.ContentType, a.Encoding, a.Size, a.SHA256,
		file, microsOrNull(a.AwaitedUntil), a.Problem, micros(a.StoredAt)}
}

// RemoveArtifacts removes up to limit artifacts of a run that have a file, and returns
// their number and bytes. Their files become due for deletion. A pinned run keeps its
// artifacts.
func (tx *Tx) RemoveArtifacts(ctx context.Context, runID string, limit int) (n int, bytes int64, err error) {
	if _, err := tx.LockRun(ctx, runID); err != nil {
		return 0, 0, err
	}
	var pinned database.NullInt64
	if err := tx.QueryRow(ctx, `SELECT pinned_at FROM run WHERE id = $1`, runID).Scan(&pinned); err != nil ||
		pinned.Valid {
		return 0, 0, err
	}
	rows, err := tx.Query(ctx, filesOf+`run_id = $1 AND file_key IS NOT NULL LIMIT $2`, runID, limit)
	if _, n, bytes, err = tx.removeFiles(ctx, rows, err); err != nil {
		return 0, 0, err
	}
	_, err = tx.Exec(ctx, `UPDATE run SET rev = rev + 1, artifacts = artifacts - $2, artifact_bytes = artifact_bytes - $3,
		artifacts_removed_at = $4 WHERE id = $1`,
		runID, n, bytes, micros(tx.Now))
	return n, bytes, err
}

// filesOf begins a query whose rows removeFiles takes.
const filesOf = `SELECT id, file_key, size, awaited_until FROM artifact WHERE `

// removeFiles removes the artifacts that a query found. It returns how many, how many of
// them had a file, and the bytes of these.
func (tx *Tx) removeFiles(ctx context.Context, rows database.Rows, err error) (n, files int, bytes int64, _ error) {
	var keys []string
	deleteAt := micros(tx.Now)
	ids, err := database.All(rows, err, func(r database.Row) (string, error) {
		var id string
		var key database.NullString
		var size int64
		var awaited database.NullInt64
		err := r.Scan(&id, &key, &size, &awaited)
		if key.Valid {
			keys, bytes = append(keys, key.String), bytes+size
		}
		deleteAt = max(deleteAt, awaited.Int64) // until then a reporter may upload it
		return id, err
	})
	if err != nil {
		return 0, 0, 0, err
	}
	err = database.Chunks(tx.Tx, ids, func(chunk []string) error {
		among, args := tx.Among(chunk)
		_, err := tx.Exec(ctx, `DELETE FROM artifact WHERE id`+among, args...)
		return err
	})
	if err != nil {
		return 0, 0, 0, err
	}
	return len(ids), len(keys), bytes, database.Chunks(tx.Tx, keys, func(chunk []string) error {
		among, args := tx.Among(chunk, deleteAt)
		_, err := tx.Exec(ctx, `UPDATE stored_file SET delete_at = $1 WHERE key`+among, args...)
		return err
	})
}

// DueFile is a file that is to be deleted.
type DueFile struct {
	Key  string
	Size int64 // bytes; the upper limit if the upload was never complete
}

// DueFiles lists up to limit files that are to be deleted from the store by now. No
// artifact has one of them, and none will.
func (tx *Tx) DueFiles(ctx context.Context, limit int) ([]DueFile, error) {
	rows, err := tx.Query(ctx, `SELECT key, size FROM stored_file WHERE delete_at <= $1 ORDER BY delete_at, key LIMIT $2`,
		micros(tx.Now), limit)
	return database.All(rows, err, func(r database.Row) (DueFile, error) {
		var f DueFile
		err := r.Scan(&f.Key, &f.Size)
		return f, err
	})
}

// DeleteFiles removes the rows of files that are no longer in the store. It returns how
// many rows there were: another node may have been first.
func (tx *Tx) DeleteFiles(ctx context.Context, keys []string) (deleted int, err error) {
	err = database.Chunks(tx.Tx, keys, func(chunk []string) error {
		among, args := tx.Among(chunk)
		n, err := tx.Exec(ctx, `DELETE FROM stored_file WHERE key`+among, args...)
		deleted += int(n)
		return err
	})
	return deleted, err
}

// PostponeFiles postpones the deletion of files to an instant.
func (tx *Tx) PostponeFiles(ctx context.Context, keys []string, until time.Time) error {
	return database.Chunks(tx.Tx, keys, func(chunk []string) error {
		among, args := tx.Among(chunk, micros(until))
		_, err := tx.Exec(ctx, `UPDATE stored_file SET delete_at = $1 WHERE delete_at IS NOT NULL AND key`+among, args...)
		return err
	})
}

// AbandonFile makes the file of a failed upload due for deletion at an instant, or
// earlier if it already was.
func (tx *Tx) AbandonFile(ctx context.Context, key string, deleteAt time.Time) error {
	_, err := tx.Exec(ctx, `UPDATE stored_file SET delete_at = $2 WHERE key = $1 AND delete_at > $2`, key,
		micros(deleteAt))
	return err
}

// AbandonUploads makes the files of all uploads due for deletion at an instant, or earlier if
// they already were. It is for the start of the only process that uses the database: no
// upload continues.
func (tx *Tx) AbandonUploads(ctx context.Context, deleteAt time.Time) error {
	_, err := tx.Exec(ctx, `UPDATE stored_file SET delete_at = $1 WHERE delete_at > $1`, micros(deleteAt))
	return err
}

// CountDueFiles counts the files that are to be deleted by now, and those of runs that
// are removed.
func (tx *Tx) CountDueFiles(ctx context.Context) (n int, err error) {
	err = tx.QueryRow(ctx, `SELECT (SELECT COUNT(*) FROM stored_file WHERE delete_at <= $1)
		+ (SELECT COUNT(*) FROM removal JOIN artifact ON artifact.run_id = removal.run_id
		WHERE artifact.file_key IS NOT NULL)`, micros(tx.Now)).Scan(&n)
	return n, err
}

// ArtifactFile is the complete file of an artifact.
type ArtifactFile struct {
	ArtifactID string
	Key        string
	Size       int64
	SHA256     string
}

// ArtifactFiles lists up to limit files of artifacts, by the artifact's id, from
// the one after.
func (tx *Tx) ArtifactFiles(ctx context.Context, after string, limit int) ([]ArtifactFile, error) {
	rows, err := tx.Query(ctx, `SELECT id, file_key, size, sha256 FROM artifact
		WHERE id > $1 AND file_key IS NOT NULL AND (awaited_until IS NULL OR size > 0) ORDER BY id LIMIT $2`, after, limit)
	return database.All(rows, err, func(r database.Row) (ArtifactFile, error) {
		var f ArtifactFile
		err := r.Scan(&f.ArtifactID, &f.Key, &f.Size, &f.SHA256)
		return f, err
	})
}

// LoseArtifact stores that an artifact no longer has a file, and why, for people.
func (tx *Tx) LoseArtifact(ctx context.Context, id, why string) error {
	a, err := tx.Artifact(ctx, id)
	if err != nil || a.FileKey == "" {
		return err
	}
	if _, err := tx.Exec(ctx, `UPDATE stored_file SET delete_at = $2 WHERE key = $1`, a.FileKey,
		micros(tx.Now)); err != nil {
		return err
	}
	if err := tx.countArtifacts(ctx, a.RunID, -1, -a.Size); err != nil {
		return err
	}
	_, err = tx.Exec(ctx,
		`UPDATE artifact SET file_key = NULL, awaited_until = NULL, size = 0, sha256 = '', problem = $2 WHERE id = $1`, id,
		why)
	return err
}
