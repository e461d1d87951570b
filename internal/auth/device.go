package auth

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
	"time"
)

// DeviceLife is how long a browser is known after a sign-in.
const DeviceLife = 365 * 24 * time.Hour

// deviceCookies signs the cookies of browsers that have signed in, so that
// strangers who try an account's password do not lock its owner out (OWASP calls
// them device cookies). A cookie holds a random id, the time and a MAC of both
// and the email. It admits nobody: its browser has attempts of its own.
type deviceCookies struct{ key []byte }

func newDeviceCookies(secret []byte) deviceCookies {
	key, err := hkdf.Key(sha256.New, secret, nil, "runbell device cookie", sha256.Size)
	if err != nil {
		panic(err) // only if the size were out of range
	}
	return deviceCookies{key}
}

func (d deviceCookies) issue(email string) string {
	id, at := rand.Text(), strconv.FormatInt(time.Now().Unix(), 10)
	return id + "." + at + "." + d.mac(id, at, email)
}

// read returns the id in a cookie if it was issued for this email.
func (d deviceCookies) read(cookie, email string) (id string, ok bool) {
	parts := strings.Split(cookie, ".")
	if len(parts) != 3 || len(cookie) > maxKeyLength {
		return "", false
	}
	at, err := strconv.ParseInt(parts[1], 10, 64)
	if err != nil || time.Since(time.Unix(at, 0)) > DeviceLife {
		return "", false
	}
	return parts[0], hmac.Equal([]byte(parts[2]), []byte(d.mac(parts[0], parts[1], email)))
}

func (d deviceCookies) mac(id, at, email string) string {
	m := hmac.New(sha256.New, d.key)
	m.Write([]byte(id + "." + at + "." + email))
	return hex.EncodeToString(m.Sum(nil))
}
