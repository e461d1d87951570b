package webhook

import "net/url"

// MaskURL is what people may see of the URL of an endpoint who may not manage it:
// the host. Who knows the whole URL of a chat's webhook can post there.
func MaskURL(raw string) string {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" {
		return Masked
	}
	return u.Scheme + "://" + u.Host + "/" + Masked
}

// MaskAttempt is what people may see of an attempt who may not manage its
// endpoint. A signature would let them send the same request themselves. An answer
// may repeat the URL or the header values of the request, so of it they see the
// names of the headers.
func MaskAttempt(a Attempt) Attempt {
	a.RequestHeaders = maskHeaders(a.RequestHeaders, func(name string) bool { return name == HeaderSignature })
	a.ResponseHeaders = maskHeaders(a.ResponseHeaders, func(string) bool { return true })
	if len(a.ResponseBody) > 0 {
		a.ResponseBody = []byte(Masked)
	}
	return a
}

func maskHeaders(headers Headers, secret func(name string) bool) Headers {
	out := make(Headers, len(headers))
	for i, h := range headers {
		if secret(h.Name) {
			h.Value = Masked
		}
		out[i] = h
	}
	return out
}
