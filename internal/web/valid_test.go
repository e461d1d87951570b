package web_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"runbell/internal/web"
)

func TestValidText(t *testing.T) {
	for _, c := range []struct{ path, query, wantID, wantQ, wantURI string }{
		{"/run/abc", "q=é&q=b", "abc", "é", "/run/abc?q=é&q=b"},
		{"/run/a%2Fb", "q=%C3%A9", "a/b", "é", "/run/a%2Fb?q=%C3%A9"},
		{"/run/%00", "", "\uFFFD", "", "/run/%EF%BF%BD"},
		{"/run/a%00b%2Fc", "q=1", "a\uFFFDb/c", "1", "/run/a%EF%BF%BDb%2Fc?q=1"},
		{"/run/%ff%fe", "", "\uFFFD", "", "/run/%EF%BF%BD"},
		{"/run/%ED%A0%80", "", "\uFFFD", "", "/run/%EF%BF%BD"},
		{"/run/a", "q=%ff", "a", "\uFFFD", "/run/a?q=%EF%BF%BD"},
		{"/run/a", "q=a%00b&x=1", "a", "a\uFFFDb", "/run/a?q=a%EF%BF%BDb&x=1"},
		{"/run/a", "%00=1&q=b", "a", "b", "/run/a?q=b&%EF%BF%BD=1"},
		{"/run/a", "q=b&%zz", "a", "b", "/run/a?q=b"},
	} {
		mux := http.NewServeMux()
		reached := false
		mux.HandleFunc("/run/{id}", func(_ http.ResponseWriter, r *http.Request) {
			reached = true
			if id, q := r.PathValue("id"), r.URL.Query().Get("q"); id != c.wantID || q != c.wantQ || r.URL.RequestURI() != c.wantURI {
				t.Errorf("%s?%s: id %q, q %q, %s", c.path, c.query, id, q, r.URL.RequestURI())
			}
			if got := r.Header.Get("X-Name"); got != "a\uFFFDb" {
				t.Errorf("the header is %q", got)
			}
		})
		r := httptest.NewRequest("GET", c.path+"?"+c.query, nil)
		if c.query == "" {
			r = httptest.NewRequest("GET", c.path, nil)
		}
		r.Header.Set("X-Name", "a\xffb")
		web.ValidText(mux).ServeHTTP(httptest.NewRecorder(), r)
		if !reached {
			t.Errorf("%s?%s did not reach its handler", c.path, c.query)
		}
	}
}
