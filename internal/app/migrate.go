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
	return `'runbell serve' does this when it starts. Use this command to migrate before the start, or as another user.
You can run it more than once. It refuses a database with a newer schema.

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
	_, err = fmt.Fprintf(s.Out, "The database has schema %d, the one of runbell %s.\n", schema, version)
	return err
}
