package app

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"runbell/internal/artifact"
	"runbell/internal/backup"
	"runbell/internal/config"
	"runbell/internal/database"
	"runbell/internal/server"
)

type backupCmd struct {
	config.Database
	config.Storage
	File          string `arg:"" help:"File to write; it must not exist. - is standard output." placeholder:"FILE"`
	WithArtifacts string `name:"with-artifacts" help:"Include screenshots, videos and coverage: yes, no, or auto. auto includes them if they are in a directory, but not in S3." enum:"auto,yes,no" default:"auto" placeholder:"auto|yes|no"`
	NoSecretKey   bool   `help:"Leave the secret key out. You need it to restore: keep a copy of it elsewhere."`
}

func (backupCmd) Help() string {
	return `Writes a consistent copy of the SQLite database, the secret key and the artifacts to a tar archive. The
server can keep running. Anyone who has the file can read everything in it, so keep it as safe as the server.

For PostgreSQL, use pg_dump, and copy the artifacts with the tools of your storage: see docs/operating.md.

Examples:

    runbell backup /backups/runbell-$(date +%F).tar
    runbell backup - | zstd | ssh backup 'cat > runbell.tar.zst'`
}

// Run renames the backup to its name only when it is complete.
func (c *backupCmd) Run(ctx context.Context, s *streams, version versionText) error {
	source, err := c.source(version)
	if err != nil {
		return err
	}
	if c.File == "-" {
		m, err := backup.Write(ctx, s.Out, source)
		warnOfDamage(s, m)
		return err
	}
	if _, err := os.Stat(c.File); err == nil {
		return fmt.Errorf("%s already exists: choose another file", c.File)
	}
	partial := c.File + ".partial"
	m, err := writeBackup(ctx, partial, source)
	if err == nil {
		err = os.Rename(partial, c.File)
	}
	if err != nil {
		return errors.Join(err, os.Remove(partial))
	}
	if err := database.SyncFile(c.File); err != nil {
		return err
	}
	artifacts := fmt.Sprintf("none of the %d artifacts", m.Files)
	if m.Artifacts {
		artifacts = fmt.Sprintf("%d artifacts", m.Files-len(m.Damaged))
	}
	fmt.Fprintf(s.Out, "%s has the database, %s and %s.\n", c.File, choose(m.SecretKey, "the secret key", "no secret key"),
		artifacts)
	warnOfDamage(s, m)
	if !m.Artifacts && m.Files > 0 {
		fmt.Fprintln(s.Out, "The artifacts stay where they are: back up their storage too.")
	}
	return nil
}

// warnOfDamage says which artifacts could not be backed up.
func warnOfDamage(s *streams, m backup.Manifest) {
	if len(m.Damaged) > 0 {
		fmt.Fprintf(s.Err, "%d stored artifacts are damaged, and are not in the backup: %s\n",
			len(m.Damaged), strings.Join(m.Damaged[:min(len(m.Damaged), 10)], ", "))
	}
}

func choose(yes bool, a, b string) string {
	if yes {
		return a
	}
	return b
}

// source is what to back up, from the settings.
func (c *backupCmd) source(version versionText) (backup.Source, error) {
	path, ok := strings.CutPrefix(c.URL(), "sqlite:")
	if !ok {
		return backup.Source{}, errors.New("'runbell backup' copies SQLite databases: for PostgreSQL use pg_dump, see " +
			"docs/operating.md")
	}
	source := backup.Source{Database: path, Scratch: filepath.Dir(path), Version: string(version)}
	if _, err := os.Stat(path); err != nil {
		return source, fmt.Errorf("no database to back up: %w", err)
	}
	if !c.NoSecretKey && c.SecretKey == "" { // else it is not in the data directory, and is kept elsewhere already
		key, err := os.ReadFile(c.KeyFile())
		if err != nil {
			return source, fmt.Errorf("read the secret key: %w", err)
		}
		source.SecretKey = key
	}
	store, err := server.OpenStore(c.DataDir, c.Storage)
	if err != nil {
		return source, err
	}
	_, onDisk := store.(*artifact.Disk)
	if c.WithArtifacts == "yes" || c.WithArtifacts == "auto" && onDisk {
		source.Artifacts = store
	}
	return source, nil
}

func writeBackup(ctx context.Context, path string, source backup.Source) (m backup.Manifest, err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return m, err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	m, err = backup.Write(ctx, w, source)
	return m, errors.Join(err, w.Flush(), f.Close())
}

type restoreCmd struct {
	config.Database
	config.Storage
	File string `arg:"" help:"File to restore; - is standard input." placeholder:"FILE"`
}

func (restoreCmd) Help() string {
	return `Restores a file of 'runbell backup' into a data directory without a database, and migrates it to the schema
of this version. The server then sends the webhooks that were pending at the time of the backup. Receivers can ignore
duplicates by their Webhook-Id.

Examples:

    runbell restore /backups/runbell-2026-02-01.tar --data-dir /var/lib/runbell
    zstdcat runbell.tar.zst | runbell restore -`
}

// Run restores, and says what to do about parts that the backup does not have.
func (c *restoreCmd) Run(ctx context.Context, s *streams) error {
	path, ok := strings.CutPrefix(c.URL(), "sqlite:")
	if !ok {
		return errors.New("'runbell restore' restores SQLite databases: for PostgreSQL use pg_restore, see docs/operating.md")
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	store, err := server.OpenStore(c.DataDir, c.Storage)
	if err != nil {
		return err
	}
	in := s.In
	if c.File != "-" {
		f, err := os.Open(c.File)
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	restored, err := backup.Read(ctx, bufio.NewReaderSize(in, 1<<20),
		backup.Target{Database: path, KeyFile: c.KeyFile(), Artifacts: store})
	if err != nil {
		return err
	}
	return c.report(s.Out, restored)
}

func (c *restoreCmd) report(out io.Writer, r backup.Restored) error {
	_, err := fmt.Fprintf(out, "Restored the backup of %s, made by runbell %s: the database and %d artifacts.\n",
		r.MadeAt.Format("2006-01-02 15:04 MST"), r.Version, r.Artifacts)
	if r.Lost > 0 {
		fmt.Fprintf(out, "%d artifacts are neither in the backup nor in %s. Their runs say so.\n", r.Lost,
			choose(c.Artifacts == "", "the data directory", c.Artifacts))
	}
	if _, errKey := os.Stat(c.KeyFile()); !r.SecretKey && c.SecretKey == "" && errKey != nil {
		fmt.Fprintf(out, "The secret key is not in the backup: copy it to %s, or set RUNBELL_SECRET_KEY, before you start "+
			"the server.\n", c.KeyFile())
	}
	return err
}
