package ui

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"runbell/internal/lifecycle"
	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/testkit"
)

// FuzzPages: every page is shown, or refused for a reason that its reader caused, whatever the
// query says.
func FuzzPages(f *testing.F) {
	w := newWorld(f)
	w.token = w.person("Ada", store.Admin)
	joined := w.join(lifecycle.Join{ProjectID: "shop", CIBuildID: "b-1", Specs: []string{"a.cy.js"}, Commit: run.Commit{Branch: "main"}})
	hook := testkit.Endpoint(f, w.db, "shop").ID
	w.past(1, "main", cart("failed", 300))
	w.catch()
	ids := strings.NewReplacer("{projectId}", "shop", "{runId}", joined.RunID, "{hookId}", hook, "{name}", "history", "{token}", "t", "{signature}", addsUp,
		"{fingerprint}", run.Fingerprint(assertion().Text()), "{deliveryId}", "d", "{$}", "")
	var pages []string
	for _, rt := range w.ui.routes() {
		if rt.method == http.MethodGet && !strings.HasPrefix(rt.path, "/static") {
			pages = append(pages, ids.Replace(rt.path))
		}
	}
	cursor := store.Position{At: time.Unix(0, 0), ID: "x"}.Cursor()
	queries := []string{"", "days=7", "days=-1&from=2026-01-31&to=2026-01-01", "from=0000-00-00&to=9999-12-31", "branch=main&author=Ann&tag=a&group=b&q=%25_%27",
		"order=failures&dir=asc&page=2", "order=%00&page=99999999999999999999", "after=" + cursor, "before=" + cursor, "after=%ff&before=x", "health=flaky&health=none&min=1e9",
		"status=FAILED&show=failed&sort=duration&refresh=off", "state=failed&file=a.cy.js&spec=a.cy.js", "done=x&next=//evil.test", "a=b;c", "%"}
	names := parameters(f)
	for _, value := range []string{"", "-1", "%00", "99999999999999999999", "%ff", "2026-01-31", "asc", cursor, strings.Repeat("x", 300)} {
		queries = append(queries, strings.Join(names, "="+value+"&")+"="+value)
	}
	for _, page := range []string{"/projects/shop/tests/" + addsUp, "/projects/shop/errors/" + run.Fingerprint(assertion().Text())} {
		if rec := w.get(page); rec.Code != http.StatusOK || !slices.Contains(pages, page) {
			f.Fatalf("GET %s: %d", page, rec.Code)
		}
	}
	for n := range pages {
		for _, q := range queries {
			f.Add(uint8(n), q)
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, query string) {
		r := httptest.NewRequest(http.MethodGet, pages[int(which)%len(pages)], nil)
		r.URL.RawQuery = query
		r.AddCookie(&http.Cookie{Name: "__Host-runbell", Value: w.token})
		rec := httptest.NewRecorder()
		w.pages.ServeHTTP(rec, r)
		if allowed := []int{http.StatusOK, http.StatusSeeOther, http.StatusBadRequest, http.StatusNotFound, http.StatusForbidden}; !slices.Contains(allowed, rec.Code) || w.log.Len() > 0 {
			t.Errorf("GET %s?%s: %d\n%s", r.URL.Path, query, rec.Code, w.log.String())
		}
	})
}

// parameters are the names that pages read from a query, found in the code so that none is forgotten.
func parameters(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	read := regexp.MustCompile(`(?:query|Get|value|number|word|text|day)\((?:s\.\w+, )?"(\w+)"|\{"(\w+)", &f\.`)
	var names []string
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range read.FindAllStringSubmatch(string(b), -1) {
			if name := m[1] + m[2]; !strings.HasSuffix(file, "_test.go") && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	for _, name := range []string{"after", "branch", "days", "dir", "done", "event", "group", "health", "order", "page", "q", "response", "run", "status"} {
		if !slices.Contains(names, name) {
			t.Errorf("the parameter %s was not found", name)
		}
	}
	return names
}
