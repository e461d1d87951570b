package body

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"runbell/internal/run"
	"runbell/internal/testkit"
)

// FuzzDecode: whatever is sent, plain or packed, is decoded or refused with an
// error for its sender; it costs no more than its limits allow; and everything
// is given back.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{``, `{}`, `null`, `{"name":"x"}`, `{"tags":["a","b"],"deep":{"A":[1]},"x":[[{}]]}`, `{"a":`, "\"\\\"", `{"\ud800":"\xff"}`} {
		f.Add([]byte(s), false)
		f.Add(packed(f, []byte(s)), true)
	}
	f.Add(packed(f, []byte(`{"tags":[`+strings.Repeat(`"",`, 200_000)+`""]}`)), true)
	f.Add([]byte(`{"deep":{"A":[`+strings.Repeat("1,", 200_000)+`1]}}`), false)
	f.Add(packed(f, []byte(`{"x":[`+strings.Repeat("[", 100_000))), true)
	limits := Limits{Bytes: 1 << 20, Values: 1000, Groups: 500, Depth: 20, Text: 10 << 10, Ratio: 100}
	f.Fuzz(func(t *testing.T, sent []byte, isPacked bool) {
		p := NewPools().Strangers
		once := func() error {
			r := httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(sent))
			if isPacked {
				r.Header.Set("Content-Encoding", "gzip")
			}
			b, err := p.Receive(httptest.NewRecorder(), r, limits)
			if err != nil {
				return err
			}
			defer b.Release()
			var who struct{ Name string }
			if err := b.Peek(&who); err != nil {
				return err
			}
			if _, err := b.Sum(); err != nil {
				t.Fatalf("the text of a measured body cannot be read: %v", err)
			}
			var v input
			err = b.Decode(&v, false)
			if m := b.counts; m.values > limits.Values || m.groups > limits.Groups || m.bytes > limits.Bytes {
				t.Fatalf("over the limits: %+v", m)
			}
			return err
		}
		_ = once() // what is made once for all bodies
		var err error
		cost := testkit.Allocated(func() { err = once() })
		if most := uint64(limits.Bytes + limits.Values*valueCost + limits.Groups*groupCost + 256<<10); cost > min(most+uint64(2*len(sent)), uint64(200*len(sent)+256<<10)) && !isPacked || cost > most+uint64(2*len(sent)) {
			t.Fatalf("%d bytes cost %d", len(sent), cost)
		}
		if kind := run.KindOf(err); err != nil && kind != run.Invalid && kind != run.TooLarge {
			t.Fatalf("an error of kind %d: %v", kind, err)
		}
		if p.used != 0 || !p.room.free.TryAcquire(p.room.size) {
			t.Fatal("something was not given back")
		}
	})
}
