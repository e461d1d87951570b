package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"runbell/internal/artifact"
	"runbell/internal/config"
	"runbell/internal/endpoint"
	"runbell/internal/importer"
	"runbell/internal/lifecycle"
	"runbell/internal/server"
)

type importCmd struct {
	SorryCypress importSorryCypressCmd `cmd:"" name:"sorry-cypress" help:"Import projects and runs from a dump of the sorry-cypress database."`
}

type importSorryCypressCmd struct {
	config.Database
	config.Storage
	FilesFrom string `help:"Screenshots and videos of sorry-cypress to copy: disk:PATH of a copy of its bucket, or s3://BUCKET/PREFIX in the storage of the S3 settings." placeholder:"PLACE"`
	Dir       string `arg:"" type:"existingdir" help:"Directory with the output of mongodump or mongoexport: the collections projects, runs and instances."`
}

func (importSorryCypressCmd) Help() string {
	return `Create the dump with 'mongodump --uri mongodb://HOST/sorry-cypress --out DIR', or with mongoexport, one file
for each collection (runs.json, instances.json, projects.json).

Stop the server first. Runs keep their times and their ids, so links to /run/ID still work. No webhooks are sent, and
imported webhooks are disabled. You can repeat the command: runs that exist are not changed.

Examples:

    runbell import sorry-cypress ./dump
    runbell import sorry-cypress ./dump --files-from disk:./bucket
    runbell import sorry-cypress ./dump --database-url postgres://runbell@db.internal/runbell`
}

// Run imports, and prints what it did and what it could not do.
func (c *importSorryCypressCmd) Run(ctx context.Context, s *streams) (err error) {
	db, err := server.OpenDatabase(ctx, c.Database)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	nobody := func(...string) {} // no server runs
	o := importer.Options{
		DB:   db,
		Runs: lifecycle.New(db, "", nobody),
		// Addresses are checked when they are called, and imported webhooks are disabled.
		Endpoints: endpoint.New(db, "", func(string) error { return nil }, nobody),
		Progress: func(r importer.Report) {
			if n := r.Runs + r.Before; n > 0 && n%1000 == 0 {
				fmt.Fprintf(s.Err, "%d runs so far\n", n)
			}
		},
	}
	if c.FilesFrom != "" {
		if err := c.withFiles(s, &o); err != nil {
			return err
		}
	}
	report, err := importer.SorryCypress(ctx, c.Dir, o)
	for _, p := range report.Problems {
		fmt.Fprintln(s.Err, p)
	}
	if err != nil {
		return fmt.Errorf("%w\nThe import stopped after %d runs: repeat the command to continue", err,
			report.Runs+report.Before)
	}
	_, err = fmt.Fprintf(s.Out, "Imported: %d projects, %d runs, %d specs with results, %d files. Already "+
		"there: %d runs.\n",
		report.Projects, report.Runs, report.Specs, report.Files, report.Before)
	return err
}

// withFiles says from where files are copied, and to where.
func (c *importSorryCypressCmd) withFiles(s *streams, o *importer.Options) error {
	from := c.Storage
	from.Artifacts = c.FilesFrom
	var err error
	if o.Files, err = server.OpenStore(c.DataDir, from); err != nil {
		return usagef("--files-from: %w", err)
	}
	to, err := server.OpenStore(c.DataDir, c.Storage)
	if err != nil {
		return err
	}
	key, err := c.Key()
	if err != nil {
		return err
	}
	if to == nil || o.Files == nil {
		return usagef("--files-from needs a place to copy from, and RUNBELL_ARTIFACTS one to copy to: neither can be off")
	}
	o.Artifacts = artifact.New(artifact.Options{DB: o.DB, Store: to, Secret: key, Max: int64(c.ArtifactMax),
		Log: slog.New(slog.NewTextHandler(s.Err, nil)), Metrics: prometheus.NewRegistry()})
	return nil
}
