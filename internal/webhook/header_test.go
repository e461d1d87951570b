package webhook_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"runbell/internal/webhook"
)

func TestHeadersAsJSON(t *testing.T) {
	in := webhook.Headers{{Name: "Z", Value: "first"}, {Name: "A", Value: `"\<ä>` + "\x00\n"}, {Name: "A", Value: "again"}, {Name: "Authorization", Value: "hunter2", Secret: true}, {Name: "Bad", Value: "\xff"}}
	b, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(b), "hunter2") || !json.Valid(b) || string(in.AppendJSON([]byte("x"))[:2]) != "x{" {
		t.Errorf("as JSON %s", b)
	}
	var out webhook.Headers
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatal(err)
	}
	want := slices.Clone(in)
	want[3] = webhook.Header{Name: "Authorization", Value: webhook.Masked}
	want[4].Value = "\uFFFD"
	if diff := cmp.Diff(want, out); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if out.Get("A") != want[1].Value || out.Get("a") != "" || out.Get("none") != "" {
		t.Errorf("Get: %q, %q, %q", out.Get("A"), out.Get("a"), out.Get("none"))
	}
	for text, want := range map[string]int{"{}": 0, "null": 0, `{"A":"1"}`: 1} {
		if err := json.Unmarshal([]byte(text), &out); err != nil || len(out) != want {
			t.Errorf("%s: %v, %v", text, out, err)
		}
	}
	if b := webhook.Headers(nil).AppendJSON(nil); string(b) != "{}" {
		t.Errorf("none is %s", b)
	}
	for _, text := range []string{`{"A":1}`, `{"A":{}}`} {
		if json.Unmarshal([]byte(text), &out) == nil {
			t.Errorf("%s was read", text)
		}
	}
}

// Whatever prints headers does not print what is secret.
func TestSecretHeadersAreMasked(t *testing.T) {
	h := webhook.Header{Name: "Authorization", Value: "hunter2", Secret: true}
	for _, value := range []any{h, &h, webhook.Headers{h}, webhook.Attempt{RequestHeaders: webhook.Headers{h}}, map[string]webhook.Headers{"x": {h}}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			if s := fmt.Sprintf(verb, value); strings.Contains(s, "hunter2") || strings.Contains(s, "68756e74657232") {
				t.Errorf("%s of a %T is %s", verb, value, s)
			}
		}
		if b, err := json.Marshal(value); err != nil || strings.Contains(string(b), "hunter2") {
			t.Errorf("%T as JSON: %s, %v", value, b, err)
		}
	}
}

// Ids are in the order of their times, and never the same.
func TestNewID(t *testing.T) {
	seen := map[string]bool{}
	last := ""
	for _, ms := range []int64{0, 1, 31, 32, 1 << 20, 1_700_000_000_000, 1_700_000_000_001, 1_764_108_884_000, 1 << 47} {
		for range 50 {
			id := webhook.NewID("dlv_", time.UnixMilli(ms))
			if seen[id] || !strings.HasPrefix(id, "dlv_") || len(id) != 30 || strings.ToLower(id) != id {
				t.Fatalf("id %q", id)
			}
			seen[id] = true
			if id[:12] < last {
				t.Errorf("%q comes after %q", id, last)
			}
			last = id[:12]
		}
	}
	if a, b := webhook.NewID("", time.UnixMilli(1_764_108_884_000)), webhook.NewID("", time.UnixMilli(1_764_108_884_001)); a >= b {
		t.Errorf("%q is not before %q", a, b)
	}
}
