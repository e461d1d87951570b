package body

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"runbell/internal/run"
)

// loose are limits of the other kinds that nothing here reaches.
func loose(bytes int) Limits {
	return Limits{Bytes: bytes, Values: 1 << 20, Groups: 1 << 20, Depth: 1 << 20, Text: 1 << 30}
}

// receive receives a body and holds it to its limits, and returns its text.
func receive(w http.ResponseWriter, r *http.Request, limit int) ([]byte, error) {
	b, err := NewPools().Known.Receive(w, r, loose(limit))
	if err != nil {
		return nil, err
	}
	defer b.Release()
	if err := b.measure(nil); err != nil {
		return nil, err
	}
	text, err := b.text()
	return bytes.Clone(text), err
}

func decode(text []byte, v any, strict bool) error {
	b, err := NewPools().Known.Receive(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(text)), loose(1<<20))
	if err != nil {
		return err
	}
	defer b.Release()
	return b.Decode(v, strict)
}

func packed(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	_, err := z.Write(b)
	if err = errors.Join(err, z.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// unsized hides the length of a body, so that it is sent in chunks.
type unsized struct{ io.Reader }

func TestReceive(t *testing.T) {
	const limit = 64 << 10
	text := strings.Repeat("text ", 1000)
	full, over := bytes.Repeat([]byte("x"), limit), bytes.Repeat([]byte("x"), limit+1)
	z := packed(t, []byte(text))
	for name, c := range map[string]struct {
		body     []byte
		encoding string
		want     string // read
		kind     run.Kind
		says     string
	}{
		"plain":                     {[]byte(text), "", text, 0, ""},
		"empty":                     {nil, "", "", run.Invalid, "empty"},
		"identity":                  {[]byte(text), "identity", text, 0, ""},
		"gzip":                      {z, "gzip", text, 0, ""},
		"gzip in upper case":        {z, " GZIP ", text, 0, ""},
		"x-gzip":                    {z, "x-gzip", text, 0, ""},
		"two gzip members":          {append(bytes.Clone(z), z...), "gzip", text + text, 0, ""},
		"just the limit":            {full, "", string(full), 0, ""},
		"the limit, packed":         {packed(t, full), "gzip", string(full), 0, ""},
		"one over the limit":        {over, "", "", run.TooLarge, "larger than 64 KiB"},
		"one over, packed":          {packed(t, over), "gzip", "", run.TooLarge, "larger than 64 KiB"},
		"a bomb":                    {packed(t, make([]byte, 4<<20)), "gzip", "", run.TooLarge, "larger than 64 KiB"},
		"nothing, packed too often": {bytes.Repeat(packed(t, nil), limit/16), "gzip", "", run.TooLarge, "larger than 64 KiB"},
		"packed but unmarked":       {z, "", string(z), 0, ""}, // its JSON is refused later
		"marked, not packed":        {[]byte(text), "gzip", "", run.Invalid, "not valid gzip"},
		"nothing, as gzip":          {nil, "gzip", "", run.Invalid, "cut short"},
		"gzip cut short":            {z[:len(z)-9], "gzip", "", run.Invalid, "cut short"},
		"gzip with garbage":         {append(bytes.Clone(z), "garbage"...), "gzip", "", run.Invalid, "not valid gzip"},
		"a broken checksum":         {append(bytes.Clone(z[:len(z)-8]), make([]byte, 8)...), "gzip", "", run.Invalid, "not valid gzip"},
		"brotli":                    {z, "br", "", run.Invalid, `"br"`},
		"packed twice":              {z, "gzip, gzip", "", run.Invalid, "gzip"},
	} {
		for _, sized := range []bool{true, false} {
			var got []byte
			var err error
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { got, err = receive(w, r, limit) }))
			var body io.Reader = bytes.NewReader(c.body)
			if !sized {
				body = unsized{body}
			}
			req, errReq := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL, body)
			if errReq != nil {
				t.Fatal(errReq)
			}
			if c.encoding != "" {
				req.Header.Set("Content-Encoding", c.encoding)
			}
			// A body over the limit may be refused before all of it was sent: then there is no answer.
			if res, err := s.Client().Do(req); err == nil {
				res.Body.Close()
			}
			s.Close()
			switch {
			case c.says == "" && (err != nil || string(got) != c.want):
				t.Errorf("%s, length known %v: %d bytes, %v; want %d", name, sized, len(got), err, len(c.want))
			case c.says != "" && (run.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.says) || got != nil):
				t.Errorf("%s, length known %v: %d bytes, %v; want %q", name, sized, len(got), err, c.says)
			}
		}
	}
}

// TestTextThatIsNotUTF8: a byte that is not UTF-8 becomes three in a string, which
// counts for the limit and for the room.
func TestTextThatIsNotUTF8(t *testing.T) {
	p := NewPool(8<<20, 1, NewRoom(64<<20))
	for _, c := range []struct {
		text    string
		n       int
		refused bool
		taken   int64 // of the room, at least
	}{
		{"x", 900_000, false, 3 * 900_000},
		{"é", 450_000, false, 3 * 900_000},
		{"\xff", 300_000, false, 9 * 300_000},
		{"\xff", 400_000, true, 0},
	} {
		sent := packed(t, []byte(`{"name":"`+strings.Repeat(c.text, c.n)+`"}`))
		r := httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(sent))
		r.Header.Set("Content-Encoding", "gzip")
		b, err := p.Receive(httptest.NewRecorder(), r, loose(1<<20))
		if err != nil {
			t.Fatal(err)
		}
		var v input
		err = b.Decode(&v, false)
		if refused := run.KindOf(err) == run.TooLarge; refused != c.refused || !refused && (err != nil || b.taken < c.taken) {
			t.Errorf("%d times %q: %v, %d of the room", c.n, c.text, err, b.taken)
		}
		if len(v.Name) > 1<<20 {
			t.Errorf("%d times %q: a name of %d bytes", c.n, c.text, len(v.Name))
		}
		b.Release()
	}
}

func TestALimitIsSaidInItsUnit(t *testing.T) {
	for limit, says := range map[int]string{1 << 10: "1 KiB", 64 << 10: "64 KiB", 1 << 20: "1 MiB", 50 << 20: "50 MiB"} {
		r := httptest.NewRequest(http.MethodPost, "/", nil)
		r.ContentLength = int64(limit) + 1 // refused before anything is read
		if _, err := receive(httptest.NewRecorder(), r, limit); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%d: %v, want %s", limit, err, says)
		}
	}
}

type input struct {
	Name  string            `json:"name"`
	Count int               `json:"count"`
	Small uint8             `json:"small"`
	On    bool              `json:"on"`
	Tags  []string          `json:"tags"`
	Deep  struct{ A []int } `json:"deep"`
	Maybe *string           `json:"maybe"`
	When  *time.Time        `json:"when"`
}

func TestDecode(t *testing.T) {
	for _, c := range []struct {
		body   string
		strict bool
		says   string // "" when it is read
	}{
		{`{"name":"x","count":3,"on":true,"tags":["a"],"deep":{"A":[1]},"maybe":null}`, true, ""},
		{" \n{}\t ", true, ""},
		{`{"extra":1}`, false, ""},
		{`{"extra":1}`, true, `Unknown field "extra".`},
		{`{"deep":{"B":1}}`, true, `Unknown field "deep.B".`},
		{`{"name":"first","name":"x"}`, true, ""}, // as JavaScript reads it: the last one
		{"{\"name\":\"\xff\"}", true, ""},
		{``, true, "The request body is empty: send JSON."},
		{"  \n", true, "The request body is empty: send JSON."},
		{`{`, true, "The request body is cut short: its JSON is incomplete."},
		{`{"name":"x`, true, "The request body is cut short: its JSON is incomplete."},
		{`{"name":"x"} {}`, true, "The request body has more text after its JSON value."},
		{`{"name":"x"}x`, true, "The request body has more text after its JSON value."},
		{`{name:"x"}`, true, "The request body is not valid JSON (at byte 2)."},
		{`{"name":'x'}`, true, "The request body is not valid JSON (at byte 8)."},
		{`name=x`, true, "The request body is not valid JSON (at byte 1)."},
		{`{"name":5}`, true, "name must be a string, not a JSON number."},
		{`{"name":{}}`, true, "name must be a string, not a JSON object."},
		{`{"count":"3"}`, true, "count must be a whole number, not a JSON string."},
		{`{"count":true}`, true, "count must be a whole number, not true."},
		{`{"on":0}`, true, "on must be true or false, not a JSON number."},
		{`{"when":"2026-01-31"}`, true, "when must be a time such as 2026-01-31T12:00:00Z."},
		{`{"when":1}`, true, "when must be a time such as 2026-01-31T12:00:00Z."},
		{`{"when":"2026-01-31T12:00:00+01:00"}`, true, ""},
		{`{"tags":"a"}`, true, "tags must not be a JSON string."},
		{`{"tags":["a",2]}`, true, "tags.1 must be a string, not a JSON number."},
		{`{"deep":{"A":[1,"x"]}}`, true, "deep.A.1 must be a whole number, not a JSON string."},
		{`[]`, true, "the body must not be a JSON array."},
		{`"x"`, true, "the body must not be a JSON string."},
		// It is a number; which one would do must be said.
		{`{"count":1.5}`, true, "count must be a whole number."},
		{`{"count":1e400}`, true, "count must be a whole number."},
		{`{"count":99999999999999999999}`, true, "count is out of range."},
		{`{"small":256}`, true, "small is out of range."},
		{`{"extra":` + strings.Repeat("[", 20_000), false, "The request body is not valid JSON (at byte "},
	} {
		var v input
		err := decode([]byte(c.body), &v, c.strict)
		switch {
		case c.says == "" && err != nil:
			t.Errorf("%.60s: %v", c.body, err)
		case c.says != "" && (run.KindOf(err) != run.Invalid || !strings.HasPrefix(err.Error(), c.says)):
			t.Errorf("%.60s: %v, want %s", c.body, err, c.says)
		}
		if c.says == "" && strings.Contains(c.body, `"first"`) && v.Name != "x" {
			t.Errorf("%s: the name is %q", c.body, v.Name)
		}
	}
}
