package app

import (
	"context"
	"fmt"
	"io"

	"runbell/internal/client"
)

type keyCmd struct {
	remote

	Create keyCreateCmd `cmd:"" help:"Create a key. It is shown only once."`
	List   keyListCmd   `cmd:"" help:"List keys, without their values."`
	Delete keyDeleteCmd `cmd:"" help:"Revoke a key. Requests using it are then rejected."`
}

// keyKind says which keys a command is about.
type keyKind struct {
	Project string `xor:"kind" required:"" help:"Record keys of this project, for reporters." placeholder:"ID"`
	API     bool   `name:"api" xor:"kind" required:"" help:"API keys, for programs and these commands."`
}

type keyCreateCmd struct {
	keyKind
	Label  string `help:"Label, to tell keys apart." placeholder:"TEXT"`
	Access string `help:"Access of an API key: read or write. Default: read." enum:"read,write," default:"" placeholder:"read"`
	Only   string `help:"Limit an API key to this project." placeholder:"ID"`
}

func (keyCreateCmd) Help() string {
	return `Examples:

    runbell key create --project my-shop --label "GitHub Actions"
    runbell key create --api --access write --label deploy
    runbell key create --api --only my-shop --label "dashboard of the shop"`
}

// Run creates a key.
func (c *keyCreateCmd) Run(ctx context.Context, s *session) error {
	k := client.NewKey{Label: c.Label, Access: c.Access, ProjectID: c.Only}
	var created client.Result[client.Key]
	var err error
	switch {
	case c.API:
		if k.Access == "" {
			k.Access = "read"
		}
		created, err = s.CreateAPIKey(ctx, k)
	case c.Access != "" || c.Only != "":
		return usagef("--access and --only are for API keys: a record key can only record, and in its project")
	default:
		created, err = s.CreateRecordKey(ctx, c.Project, k)
	}
	if err != nil {
		return err
	}
	return show(s, created, func(w io.Writer, k client.Key) error {
		if err := fields(w, "Key", k.RecordKey+k.APIKey, "Id", k.ID, "Access", k.Access, "Only",
			orEmpty(k.ProjectID), "Label", orEmpty(k.Label)); err != nil {
			return err
		}
		_, err := fmt.Fprintln(w, "\nThe key is not shown again.")
		return err
	})
}

type keyListCmd struct {
	keyKind
}

func (keyListCmd) Help() string {
	return `Examples:

    runbell key list --project my-shop
    runbell key list --api`
}

// Run lists keys.
func (c *keyListCmd) Run(ctx context.Context, s *session) error {
	list := s.APIKeys
	if !c.API {
		list = func(ctx context.Context) (client.Result[[]client.Key], error) { return s.RecordKeys(ctx, c.Project) }
	}
	keys, err := list(ctx)
	if err != nil {
		return err
	}
	return show(s, keys, func(w io.Writer, list []client.Key) error {
		header := []string{"ID", "KEY", "LABEL", "CREATED", "LAST USED"}
		if c.API {
			header = append(header, "ACCESS", "ONLY")
		}
		var rows [][]string
		for _, k := range list {
			row := []string{k.ID, k.Hint, orEmpty(k.Label), when(k.CreatedAt), when(k.LastUsed)}
			if c.API {
				row = append(row, k.Access, orEmpty(k.ProjectID))
			}
			rows = append(rows, row)
		}
		return table(w, "No keys.", header, rows)
	})
}

type keyDeleteCmd struct {
	Key string `arg:"" help:"Label of a record key or API key, its id, or a prefix of that, from 'runbell key list'."`
}

func (keyDeleteCmd) Help() string {
	return `Examples:

    runbell key delete "GitHub Actions"
    runbell key delete 0b5c9d5e`
}

// Run deletes a key of either kind: ids are random, so one is enough to find it.
func (c *keyDeleteCmd) Run(ctx context.Context, s *session) error {
	id, err := s.findKey(ctx, c.Key)
	if err != nil {
		return err
	}
	deleted, err := s.DeleteRecordKey(ctx, id)
	if client.IsNotFound(err) {
		deleted, err = s.DeleteAPIKey(ctx, id)
	}
	if client.IsNotFound(err) {
		return fmt.Errorf("there is no record key and no API key %q", c.Key)
	}
	if err != nil {
		return err
	}
	return show(s, deleted, func(w io.Writer, d client.Deleted) error {
		_, err := fmt.Fprintf(w, "Revoked key %s.\n", d.ID)
		return err
	})
}
