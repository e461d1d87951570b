package app

import (
	"context"
	"fmt"
	"io"
	"time"

	"runbell/internal/client"
)

func printSecret(w io.Writer, h client.Secret) error {
	return fields(w, "Secret", h.Secret, "Previous secret", previous(h.PreviousSecretExpiresAt), "Public key",
		orEmpty(h.PublicKey))
}

func previous(until *time.Time) string {
	if until == nil {
		return "does not sign"
	}
	return "also signs until " + when(until)
}

type webhookSecretCmd struct {
	whichWebhook
	PublicKey bool `help:"Print the public key of the ed25519 signature instead." xor:"what"`
	Detail    bool `help:"Print the secret, the public key, and until when the old secret is valid." xor:"what"`
}

func (webhookSecretCmd) Help() string {
	return `This needs a read-write API key.

Examples:

    runbell listen --secret "$(runbell webhook secret chat)"
    runbell webhook secret chat --public-key
    runbell webhook secret chat --detail`
}

// Run prints only what was asked for, so that a script can use it.
func (c *webhookSecretCmd) Run(ctx context.Context, s *session) error {
	secret, err := about(ctx, s, c.whichWebhook, s.WebhookSecret)
	if err != nil {
		return err
	}
	return show(s, secret, func(w io.Writer, secret client.Secret) error {
		text := secret.Secret
		switch {
		case c.Detail:
			return printSecret(w, secret)
		case c.PublicKey && secret.PublicKey == nil:
			return fmt.Errorf("this webhook has no public key: create one with 'runbell webhook update %s --ed25519'", c.Webhook)
		case c.PublicKey:
			text = *secret.PublicKey
		}
		_, err := fmt.Fprintln(w, text)
		return err
	})
}

type webhookRotateCmd struct {
	whichWebhook
	Grace time.Duration `help:"How long the old secret stays valid, 0s to 720h." default:"24h" placeholder:"24h"`
}

func (webhookRotateCmd) Help() string {
	return `During the grace period, each request has two signatures, and receivers can use either secret. Without a grace
period, receivers with the old secret reject webhooks at once. The ed25519 key does not change.

Examples:

    runbell webhook rotate chat
    runbell webhook rotate chat --grace 0s`
}

// Run makes a new secret.
func (c *webhookRotateCmd) Run(ctx context.Context, s *session) error {
	if _, err := wholeSeconds("--grace", c.Grace); err != nil {
		return err
	}
	rotated, err := about(ctx, s, c.whichWebhook,
		func(ctx context.Context, id string) (client.Result[client.Secret], error) {
			return s.RotateSecret(ctx, id, c.Grace)
		})
	if err != nil {
		return err
	}
	return show(s, rotated, func(w io.Writer, secret client.Secret) error {
		if err := printSecret(w, secret); err != nil {
			return err
		}
		todo := "Receivers need the new secret now: the old one is no longer valid."
		if secret.PreviousSecretExpiresAt != nil {
			todo = "Give receivers the new secret until then."
		}
		_, err := fmt.Fprintf(w, "\n%s\n", todo)
		return err
	})
}
