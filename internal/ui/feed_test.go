package ui

import (
	"fmt"
	"html"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/testkit"
)

// builds are the builds that a page of the feed lists, in order.
func builds(page string) []string {
	var out []string
	for _, m := range regexp.MustCompile(`build-\d+`).FindAllString(text(page), -1) {
		if !slices.Contains(out, m) {
			out = append(out, m)
		}
	}
	return out
}

func TestFeedFilters(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	w.token = w.person("vera", store.Viewer)
	green, red := []spec{passing("a.cy.js", "a > one")}, []spec{failing("b.cy.js")}
	w.play(shopJoin("build-0", red...), red)
	w.play(shopJoin("build-1", green...), green)
	j := shopJoin("build-2", red...)
	j.Commit.Branch, j.Commit.AuthorName, j.Tags, j.Commit.Message = "main", "Joe", nil, "fix: 100% of it"
	j.Group = "chrome"
	w.play(j, red)
	running := w.join(shopJoin("build-3", green...))
	gone := w.join(shopJoin("build-4", green...))
	_, err := w.runs.Cancel(w.ctx, gone.RunID, "ada", "")
	w.check(err)

	page := w.page("/projects/shop")
	wellFormed(t, page)
	wants(t, page, "Canceled feat: change button colour feat/button-colour 1ea02a6 Jane Roe build-4", "Running feat: change button colour", "0 of 1 spec", "Failing fix: 100% of it main 1ea02a6 Joe build-2", "chrome", "#smoke", "GitHub Actions")
	if !strings.Contains(page, `href="https://github.com/acme/shop/commit/1ea02a6664aaf4872b49b3bb8d99d556c07d2a54"`) {
		t.Error("there is no link to the commit")
	}
	if !strings.Contains(page, `data-live="3"`) {
		t.Error("the newest runs are not kept up to date")
	}
	lacks(t, page, `http-equiv="refresh"`) // it would empty the fields of the filter
	today := time.Now().UTC().Format(time.DateOnly)
	for query, want := range map[string][]string{
		"":                          {"build-4", "build-3", "build-2", "build-1", "build-0"},
		"branch=main":               {"build-2"},
		"branch=mai":                nil,
		"author=Joe":                {"build-2"},
		"tag=smoke":                 {"build-4", "build-3", "build-1", "build-0"},
		"tag=smok":                  nil,
		"status=FAILED":             {"build-0"},
		"status=failed":             {"build-0"},
		"status=Passed":             {"build-1"},
		"status=canceled":           {"build-4"},
		"status=timed-out":          nil,
		"status=running":            {"build-3", "build-2"}, // build-2 waits for a late group
		"q=100%25":                  {"build-2"},
		"q=BUILD-3":                 {"build-3"},
		"q=nothing":                 nil,
		"from=" + today:             {"build-4", "build-3", "build-2", "build-1", "build-0"},
		"to=2020-01-01":             nil,
		"status=WRONG&from=never":   {"build-4", "build-3", "build-2", "build-1", "build-0"},
		"branch=main&status=failed": nil,
	} {
		page := w.page("/projects/shop?" + query)
		wellFormed(t, page)
		_, list, _ := strings.Cut(page, "</datalist>")
		if got := builds("<body>" + list); !slices.Equal(got, want) {
			t.Errorf("%q lists %v, want %v", query, got, want)
		}
	}
	page = w.page("/projects/shop?branch=main&author=Joe&status=running")
	for _, link := range []string{`href="/projects/shop?author=Joe&amp;status=running" title="Remove this filter"`, `href="/projects/shop?status=failed">Failed<`, `href="/projects/shop?author=vera">Mine<`} {
		if !strings.Contains(page, link) {
			t.Errorf("the page lacks %s", link)
		}
	}
	wants(t, page, "branch: main ×", "author: Joe ×", "Clear all")
	if !strings.Contains(w.page("/projects/shop?status=Failed"), `href="/projects/shop?status=failed" aria-current="true">Failed<`) {
		t.Error("the preset that is on does not look so")
	}
	wants(t, w.page("/projects/shop?q=nothing"), "No runs match. Show all runs")
	_ = running

	// What is typed comes back as text.
	evil := `"><script>alert(1)</script>`
	page = w.page("/projects/shop?" + url.Values{"q": {evil}, "branch": {evil}, "after": {evil}}.Encode())
	wellFormed(t, page)
	lacks(t, page, "<script>")
}

func TestFeedPages(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	w.token = w.person("vera", store.Viewer)
	const runs = 2*runsPerPage + 10
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	insert := func(n int, branch string) {
		testkit.Run(t, w.db, "shop", fmt.Sprintf("%032d", n), func(r *run.Run) {
			r.CIBuildID, r.Commit.Branch = fmt.Sprintf("build-%d", n), branch
			r.CreatedAt = at.Add(time.Duration(n/3) * time.Second) // several at one instant
		})
	}
	for n := range runs {
		insert(n, "main")
	}
	link := func(page, rel string) string {
		m := regexp.MustCompile(`<a href="([^"]+)" rel="` + rel + `">`).FindStringSubmatch(page)
		if m == nil {
			return ""
		}
		return html.UnescapeString(m[1])
	}
	var forth, back []string
	path, last := "/projects/shop?branch=main", ""
	for path != "" {
		page := w.page(path)
		forth = append(forth, builds(page)...)
		last, path = path, link(page, "next")
	}
	for path = last; path != ""; {
		page := w.page(path)
		back = append(builds(page), back...)
		path = link(page, "prev")
	}
	if len(forth) != runs || !slices.Equal(forth, back) {
		t.Errorf("forth %d, back %d of %d runs", len(forth), len(back), runs)
	}
	if forth[0] != fmt.Sprintf("build-%d", runs-1) {
		t.Errorf("the newest is %s", forth[0])
	}
}

// TestAFeedSearchIsBounded: what no index finds is looked for in a limited number of
// runs at a time, forth and back.
func TestAFeedSearchIsBounded(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	w.token = w.person("vera", store.Viewer)
	needles := map[int]bool{1: true, 3: true, testDepth - 10: true}
	w.check(w.db.Write(w.ctx, func(tx *store.Tx) error {
		for n := range 2*testDepth + 6 {
			commit := run.Commit{Branch: "main", AuthorName: "Joe", Message: "chore"}
			if needles[n] {
				commit.AuthorName, commit.Message = "Jane", "the needle"
			}
			if _, err := tx.InsertRun(w.ctx, run.Run{ID: fmt.Sprintf("%032d", n), ProjectID: "shop", CIBuildID: fmt.Sprintf("build-%d", n),
				Commit: commit, CreatedAt: tx.Now.Add(time.Duration(n) * time.Second)}); err != nil {
				return err
			}
		}
		return nil
	}))
	for _, filter := range []string{"q=needle", "branch=main&author=Jane"} {
		page := w.page("/projects/shop?" + filter)
		follow := func(rel, text string) {
			t.Helper()
			link := regexp.MustCompile(`href="([^"]+)" rel="` + rel + `">` + text).FindStringSubmatch(page)
			if link == nil {
				t.Fatalf("%s: there is no %s:\n%s", filter, text, page)
			}
			page = w.page(html.UnescapeString(link[1]))
		}
		finds := func(want ...string) {
			t.Helper()
			_, list, _ := strings.Cut(page, "</datalist>")
			if got := builds("<body>" + list); !slices.Equal(got, want) {
				t.Errorf("%s finds %v, want %v", filter, got, want)
			}
		}
		wants(t, page, "No matches in the latest 20 runs.")
		follow("next", "Search older runs")
		finds("build-10")
		follow("next", "Search older runs")
		finds("build-3", "build-1")
		lacks(t, page, "Search older runs")
		follow("prev", "Newer")
		finds("build-10")
		follow("next", "Older")
		finds("build-3", "build-1")
		follow("prev", "Newer")
		follow("prev", "Newer")
		finds()
		follow("next", "Older")
		wants(t, page, "No matches in these 20 runs.")
		follow("next", "Search older runs")
		finds("build-10", "build-3")
	}
}
