package app

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

type keyCmd struct {
	remote

	Create keyCreateCmd `cmd:"" help:"Create a key; it is shown once."`
	List   keyListCmd   `cmd:"" help:"List keys, not the keys themselves."`
	Delete keyDeleteCmd `cmd:"" help:"Delete a key: whoever uses it is refused from then on."`
}

// keyKind says which keys a command is about.
type keyKind struct {
	Project string `xor:"kind" required:"" help:"Record keys of this project, for reporters." placeholder:"ID"`
	API     bool   `name:"api" xor:"kind" required:"" help:"API keys, for programs and these commands."`
}

func (k keyKind) path() string {
	if k.API {
		return "/api-keys"
	}
	return "/projects/" + url.PathEscape(k.Project) + "/record-keys"
}

// key is what the commands print of a key of the API, of either kind.
type key struct {
	ID        string     `json:"id"`
	Label     *string    `json:"label"`
	Access    string     `json:"access"`
	Hint      string     `json:"hint"`
	RecordKey string     `json:"recordKey"`
	APIKey    string     `json:"apiKey"`
	CreatedAt *time.Time `json:"createdAt"`
}

type keyCreateCmd struct {
	keyKind
	Label  string `help:"To tell keys apart." placeholder:"TEXT"`
	Access string `help:"What an API key may do: read or write." enum:"read,write," default:"" placeholder:"read"`
}

func (keyCreateCmd) Help() string {
	return `Examples:

    runbell key create --project my-shop --label "GitHub Actions"
    runbell key create --api --access write --label deploy`
}

// Run creates a key.
func (c *keyCreateCmd) Run(ctx context.Context, s *session) error {
	body := map[string]any{}
	if c.Label != "" {
		body["label"] = c.Label
	}
	switch {
	case c.API && c.Access == "":
		body["access"] = "read"
	case c.API:
		body["access"] = c.Access
	case c.Access != "":
		return usagef("--access is for API keys: a record key can only record")
	}
	a, err := s.do(ctx, http.MethodPost, c.path(), nil, body)
	if err != nil {
		return err
	}
	return s.show(a.Data, func(w io.Writer) error {
		var k key
		if err := a.into(&k); err != nil {
			return err
		}
		if err := fields(w, "Key", k.RecordKey+k.APIKey, "Id", k.ID, "Access", k.Access, "Label", orEmpty(k.Label)); err != nil {
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
	a, err := s.do(ctx, http.MethodGet, c.path(), nil, nil)
	if err != nil {
		return err
	}
	return s.show(a.Data, func(w io.Writer) error {
		var list []key
		if err := a.into(&list); err != nil {
			return err
		}
		header := []string{"ID", "KEY", "LABEL", "CREATED"}
		if c.API {
			header = append(header, "ACCESS")
		}
		var rows [][]string
		for _, k := range list {
			row := []string{k.ID, k.Hint, orEmpty(k.Label), when(k.CreatedAt)}
			if c.API {
				row = append(row, k.Access)
			}
			rows = append(rows, row)
		}
		return table(w, "No keys.", header, rows)
	})
}

type keyDeleteCmd struct {
	ID string `arg:"" help:"Id of a record key or an API key, from 'runbell key list'."`
}

func (keyDeleteCmd) Help() string {
	return `Examples:

    runbell key delete 0b5c9d5e-6a1f-4a47-9d0c-7d1c1f0f6f11`
}

// Run deletes a key of either kind: ids are random, so one is enough to find it.
func (c *keyDeleteCmd) Run(ctx context.Context, s *session) error {
	a, err := s.do(ctx, http.MethodDelete, "/record-keys/"+url.PathEscape(c.ID), nil, nil)
	if isNotFound(err) {
		a, err = s.do(ctx, http.MethodDelete, "/api-keys/"+url.PathEscape(c.ID), nil, nil)
	}
	if isNotFound(err) {
		return fmt.Errorf("there is no record key and no API key with the id %q", c.ID)
	}
	if err != nil {
		return err
	}
	return s.show(a.Data, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "Deleted key %s.\n", c.ID)
		return err
	})
}
