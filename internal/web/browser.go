package web

import "strings"

// SessionCookie has the token of the session of somebody who has signed in.
const SessionCookie = "runbell"

// CookieName is what a cookie is called. Where people come with https, it has the
// prefix that browsers take as a promise: only this host, over https, has set it.
func CookieName(name string, secure bool) string {
	if secure {
		return "__Host-" + name
	}
	return name
}

// TakesGzip says whether an Accept-Encoding header lets an answer be packed.
func TakesGzip(header string) bool {
	for part := range strings.SplitSeq(header, ",") {
		coding, parameters, _ := strings.Cut(strings.TrimSpace(part), ";")
		if coding == "gzip" && strings.TrimSpace(parameters) != "q=0" {
			return true
		}
	}
	return false
}
