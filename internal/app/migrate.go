package app

import (
	"context"
	"errors"
	"fmt"

	"runbell/internal/config"
	"runbell/internal/server"
)

type migrateCmd struct {
	config.Database
}

func (migrateCmd) Help() string {
	return `'runbell serve' does the same when it starts. Use this command to migrate before the start, or as another user.
It can be repeated. A database that a newer version has written is refused.

Examples:

    runbell migrate
    runbell migrate --database-url postgres://runbell@db.internal/runbell`
}

// Run opens the database, which brings it up to date.
func (c *migrateCmd) Run(ctx context.Context, s *streams, version versionText) error {
	db, err := server.OpenDatabase(ctx, c.Database)
	if err != nil {
		return err
	}
	schema, err := db.Version(ctx)
	if err := errors.Join(err, db.Close()); err != nil {
		return err
	}
	_, err = fmt.Fprintf(s.Out, "The database is at schema %d, that of runbell %s.\n", schema, version)
	return err
}
