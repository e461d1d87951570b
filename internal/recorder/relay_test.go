package recorder

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// However output is cut into pieces, and whatever in it looks like the marker,
// it is passed on untouched, and what follows the marker is not.
func TestRelay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const marker = "\x1eMARK\x1e"
		text := rapid.StringOf(rapid.SampledFrom([]rune("a\x1eMARK\n"))).Filter(func(s string) bool { return !strings.Contains(s+marker[:len(marker)-1], marker) }).Draw(t, "text")
		ended := rapid.Bool().Draw(t, "ended")
		all := text
		if ended {
			all += marker + "later"
		}
		var to bytes.Buffer
		r := &relay{to: &to, keep: &transcript{}}
		fmt.Fprint(r, "before")
		seen := r.until(marker)
		for len(all) > 0 {
			n := rapid.IntRange(1, len(all)).Draw(t, "piece")
			if _, err := r.Write([]byte(all[:n])); err != nil {
				t.Fatal(err)
			}
			all = all[n:]
		}
		select {
		case <-seen:
			if !ended {
				t.Error("a marker was seen")
			}
		default:
			if ended {
				t.Error("the marker was not seen")
			}
		}
		r.stop()
		if to.String() != text || r.keep.take() != text {
			t.Errorf("passed on %q, want %q", to.String(), text)
		}
		if want := map[bool]string{true: "beforelater", false: "before"}[ended]; r.tail() != want {
			t.Errorf("kept %q, want %q", r.tail(), want)
		}
	})
}

// A spec that prints without end costs no more than its beginning and its end.
func TestTranscriptIsBounded(t *testing.T) {
	k := &transcript{}
	k.write([]byte("the beginning\n"))
	piece := []byte(strings.Repeat("x", 1000))
	for range 20_000 {
		k.write(piece)
		if n := cap(k.head) + cap(k.tail); n > 2*(keepHead+keepTail) {
			t.Fatalf("%d bytes are kept", n)
		}
	}
	k.write([]byte("\nthe end"))
	got := k.take()
	if !strings.HasPrefix(got, "the beginning") || !strings.HasSuffix(got, "the end") || !strings.Contains(got, "bytes left out") || len(got) > keepHead+keepTail+100 {
		t.Errorf("%d bytes: %.60q … %.60q", len(got), got, got[len(got)-60:])
	}
	if again := k.take(); again != "" {
		t.Errorf("taken again: %.60q", again)
	}
}

func TestBeginningOfASpec(t *testing.T) {
	banner := "\n  Running:  %s   (%d of 12)\n\n  ok\n"
	text := "(Run Starting)\n" + fmt.Sprintf(banner, "a.cy.js", 1) + fmt.Sprintf(banner, "b.cy.js", 12)
	if at := beginning(text, 12); at < 0 || !strings.HasPrefix(text[at:], "  Running:  b.cy.js") {
		t.Errorf("the twelfth begins at %d", at)
	}
	if at := beginning(text, 2); at != -1 {
		t.Errorf("a spec that has not begun begins at %d", at)
	}
}
