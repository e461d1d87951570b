package artifact

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/url"
	"strconv"
	"time"

	"runbell/internal/run"
)

// signer signs the addresses of artifacts. A signature is for one verb, one
// artifact and one query, so an address allows only what is in it.
type signer struct{ key []byte }

// verbs of addresses.
const (
	uploads = "PUT"
	reads   = "GET"
)

func newSigner(secret []byte) signer {
	key, err := hkdf.Key(sha256.New, secret, nil, "runbell artifact addresses", sha256.Size)
	if err != nil {
		panic("artifact: a key of 32 bytes cannot be derived: " + err.Error()) // it is never too long
	}
	return signer{key}
}

// sign adds when the address expires, and the signature.
func (s signer) sign(verb, id string, query url.Values, expires time.Time) url.Values {
	query.Set("expires", strconv.FormatInt(expires.Unix(), 10))
	query.Set("signature", s.signature(verb, id, query))
	return query
}

// check returns an error of kind Forbidden unless sign has made the query.
func (s signer) check(verb, id string, query url.Values) error {
	if !hmac.Equal([]byte(query.Get("signature")), []byte(s.signature(verb, id, query))) {
		return run.Errorf(run.Forbidden,
			"The signature of this link is not valid: use the whole link, as the server gave it.")
	}
	return nil
}

// expired returns an error of kind Forbidden if the time of a signed query is over.
func expired(query url.Values, now time.Time) error {
	seconds, err := strconv.ParseInt(query.Get("expires"), 10, 64)
	if err != nil || now.Unix() >= seconds {
		return run.Errorf(run.Forbidden, "This address expired at %s: request a new one.",
			time.Unix(seconds, 0).UTC().Format("2006-01-02 15:04:05 UTC"))
	}
	return nil
}

// signature signs everything but itself. The lengths are signed too, so that no
// two lists are the same bytes.
func (s signer) signature(verb, id string, query url.Values) string {
	signed := url.Values{}
	for name, values := range query {
		if name != "signature" {
			signed[name] = values
		}
	}
	mac := hmac.New(sha256.New, s.key)
	for _, part := range []string{verb, id, signed.Encode()} {
		_, _ = fmt.Fprintf(mac, "%d:%s", len(part), part) // a hash takes everything
	}
	return hex.EncodeToString(mac.Sum(nil)[:16]) // 128 bits cannot be guessed
}
