package web

import (
	"bytes"
	"compress/gzip"
	"strings"
	"sync"
)

// packers are kept, for a new one takes more memory than most answers.
var packers = sync.Pool{New: func() any {
	z, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed) // a level that exists
	return z
}}

// Pack compresses an answer with gzip.
func Pack(body []byte) []byte {
	var b bytes.Buffer
	z := packers.Get().(*gzip.Writer)
	z.Reset(&b)
	_, _ = z.Write(body) // into memory
	_ = z.Close()
	packers.Put(z)
	return b.Bytes()
}

// Matches says whether an If-None-Match header names the ETag.
func Matches(header, etag string) bool {
	for candidate := range strings.SplitSeq(header, ",") {
		candidate = strings.TrimSpace(candidate)
		if candidate == "*" || strings.TrimPrefix(candidate, "W/") == strings.TrimPrefix(etag, "W/") {
			return true
		}
	}
	return false
}
