package body

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// BenchmarkDecode is what a body of 10 KB costs, of which little is kept.
func BenchmarkDecode(b *testing.B) {
	var config strings.Builder
	for i := range 120 {
		fmt.Fprintf(&config, `,"setting%d":{"value":"some value of a setting","from":"default"}`, i)
	}
	text := []byte(`{"name":"x","tags":["a","b"],"config":{` + config.String()[1:] + `}}`)
	for encoding, sent := range map[string][]byte{"plain": text, "gzip": packed(b, text)} {
		b.Run(encoding, func(b *testing.B) {
			p := NewPools().Known
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				r := httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(sent))
				if encoding == "gzip" {
					r.Header.Set("Content-Encoding", encoding)
				}
				in, err := p.Receive(httptest.NewRecorder(), r, loose(1<<20))
				if err != nil {
					b.Fatal(err)
				}
				var v input
				if err := in.Decode(&v, false); err != nil {
					b.Fatal(err)
				}
				in.Release()
			}
		})
	}
}
