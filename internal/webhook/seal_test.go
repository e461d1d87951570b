package webhook_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"runbell/internal/webhook"
)

func sealer(t *testing.T, key byte) *webhook.Sealer {
	t.Helper()
	s, err := webhook.NewSealer(bytes.Repeat([]byte{key}, webhook.SealKeySize))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestOpenGivesBackWhatWasSealed(t *testing.T) {
	s := sealer(t, 1)
	for _, plain := range []string{"", "x", "whsec_abc", strings.Repeat("long ", 10_000), "nul \x00 and \xff"} {
		sealed := s.Seal(plain, "row")
		if len(plain) > 4 && strings.Contains(sealed, plain) {
			t.Errorf("%q is readable in %q", plain, sealed)
		}
		if got, err := sealer(t, 1).Open(sealed, "row"); got != plain || err != nil {
			t.Errorf("sealed %q, opened %q, %v", plain, got, err)
		}
	}
}

func TestTheSameTextIsNeverSealedTheSame(t *testing.T) {
	s, seen := sealer(t, 1), map[string]bool{}
	for range 1000 {
		sealed := s.Seal("secret", "row")
		if seen[sealed] {
			t.Fatal("two sealed values are equal: anyone who reads the database sees which endpoints share a secret")
		}
		seen[sealed] = true
	}
}

func TestOnlyTheSameKeyContextAndBytesOpen(t *testing.T) {
	s := sealer(t, 1)
	sealed := s.Seal("secret", "row 1")
	raw, err := base64.StdEncoding.DecodeString(sealed)
	if err != nil {
		t.Fatal(err)
	}
	refused := func(name string, by *webhook.Sealer, sealed, context string) {
		t.Helper()
		if plain, err := by.Open(sealed, context); !errors.Is(err, webhook.ErrSealed) || plain != "" {
			t.Errorf("%s: opened %q, %v", name, plain, err)
		}
	}
	refused("another key", sealer(t, 2), sealed, "row 1")
	refused("another row", s, sealed, "row 2")
	refused("no context", s, sealed, "")
	refused("nothing", s, "", "row 1")
	refused("not base64", s, "***", "row 1")
	refused("plain text", s, "c2VjcmV0", "row 1")
	for n := range raw {
		changed := bytes.Clone(raw)
		changed[n] ^= 1
		refused("a changed byte", s, base64.StdEncoding.EncodeToString(changed), "row 1")
		refused("a cut value", s, base64.StdEncoding.EncodeToString(raw[:n]), "row 1")
	}
}

func TestSealKeysHave32Bytes(t *testing.T) {
	for _, n := range []int{0, 16, 24, 31, 33, 64} {
		if _, err := webhook.NewSealer(make([]byte, n)); err == nil {
			t.Errorf("%d bytes were accepted", n)
		}
	}
}
