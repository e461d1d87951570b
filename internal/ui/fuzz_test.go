package ui

import (
	"net/http"
	"net/http/httptest"
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
	ids := strings.NewReplacer("{projectId}", "shop", "{runId}", joined.RunID, "{hookId}", hook, "{name}", "history", "{token}", "t", "{signature}", "s",
		"{fingerprint}", "f", "{deliveryId}", "d", "{$}", "")
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
