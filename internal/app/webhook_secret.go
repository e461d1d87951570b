package app

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

// hookSecret is what a webhook signs with.
type hookSecret struct {
	Secret        string     `json:"secret"`
	PreviousUntil *time.Time `json:"previousSecretExpiresAt"`
	PublicKey     *string    `json:"publicKey"`
}

func (h hookSecret) print(w io.Writer) error {
	return fields(w, "Secret", h.Secret, "Previous secret", previous(h.PreviousUntil), "Public key", orEmpty(h.PublicKey))
}

func previous(until *time.Time) string {
	if until == nil {
		return "does not sign"
	}
	return "signs, too, until " + when(until)
}

// secret reads the signing secret of a webhook.
func (s *session) secret(ctx context.Context, id string) (hookSecret, json.RawMessage, error) {
	a, err := s.do(ctx, http.MethodGet, "/webhooks/"+url.PathEscape(id)+"/secret", nil, nil)
	if err != nil {
		return hookSecret{}, nil, err
	}
	var secret hookSecret
	return secret, a.Data, a.into(&secret)
}

type webhookSecretCmd struct {
	webhookID
	PublicKey bool `help:"Print the public key of the ed25519 signature instead." xor:"what"`
	Detail    bool `help:"Print both, and until when the secret before the last rotation signs." xor:"what"`
}

func (webhookSecretCmd) Help() string {
	return `Needs a read-write API key.

Examples:

    runbell listen --secret "$(runbell webhook secret 7c9e6679-7425-40de-944b-e07fc1f90ae7)"
    runbell webhook secret 7c9e6679-7425-40de-944b-e07fc1f90ae7 --public-key
    runbell webhook secret 7c9e6679-7425-40de-944b-e07fc1f90ae7 --detail`
}

// Run prints what was asked for and nothing else, so that a script can use it.
func (c *webhookSecretCmd) Run(ctx context.Context, s *session) error {
	secret, data, err := s.secret(ctx, c.ID)
	if err != nil {
		return err
	}
	return s.show(data, func(w io.Writer) error {
		text := secret.Secret
		switch {
		case c.Detail:
			return secret.print(w)
		case c.PublicKey && secret.PublicKey == nil:
			return fmt.Errorf("this webhook has no public key: 'runbell webhook update %s --ed25519' makes one", c.ID)
		case c.PublicKey:
			text = *secret.PublicKey
		}
		_, err := fmt.Fprintln(w, text)
		return err
	})
}

type webhookRotateCmd struct {
	webhookID
	Grace time.Duration `help:"For how long the secret before signs, too; 0s to 720h." default:"24h" placeholder:"24h"`
}

func (webhookRotateCmd) Help() string {
	return `Until the grace is over each request has two signatures, and receivers may have either secret. Without a grace, receivers that have the secret before refuse webhooks from now on. The ed25519 key stays.

Examples:

    runbell webhook rotate 7c9e6679-7425-40de-944b-e07fc1f90ae7
    runbell webhook rotate 7c9e6679-7425-40de-944b-e07fc1f90ae7 --grace 0s`
}

// Run makes a new secret.
func (c *webhookRotateCmd) Run(ctx context.Context, s *session) error {
	grace, err := wholeSeconds("--grace", c.Grace)
	if err != nil {
		return err
	}
	a, err := s.do(ctx, http.MethodPost, "/webhooks/"+url.PathEscape(c.ID)+"/rotate-secret", nil, map[string]any{"graceSeconds": grace})
	if err != nil {
		return err
	}
	return s.show(a.Data, func(w io.Writer) error {
		var secret hookSecret
		if err := a.into(&secret); err != nil {
			return err
		}
		if err := secret.print(w); err != nil {
			return err
		}
		todo := "Receivers need the new secret now: what the one before checks is refused."
		if secret.PreviousUntil != nil {
			todo = "Give receivers the new secret until then."
		}
		_, err := fmt.Fprintf(w, "\n%s\n", todo)
		return err
	})
}
