package webhook

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/binary"
	"time"
)

// ordered is base32 whose order is that of the bytes.
var ordered = base32.NewEncoding("0123456789abcdefghijklmnopqrstuv").WithPadding(base32.NoPadding)

// NewID makes an id of 80 random bits behind a prefix and the time, so that rows
// of one time lie together in the indexes of the database: otherwise each row
// that a commit touches would be a page of its own.
func NewID(prefix string, now time.Time) string {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], uint64(now.UnixMilli())<<16)
	rand.Read(b[6:])
	return prefix + ordered.EncodeToString(b[:])
}
