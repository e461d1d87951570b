package ui

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"runbell/internal/auth"
	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/testkit"
)

func TestProjectsOfTheDashboard(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	w.token = w.person("ada", store.Admin)

	w.refused(400, "The name must have 1 to 255 characters.", "/new-project", "name", " ")
	w.refused(400, "is not a valid projectId: it must have 1 to 100 characters", "/new-project", "name", "Web", "id", "a//b")
	w.refused(400, `There is already a project "shop"`, "/new-project", "name", "Web", "id", "shop")
	rec := w.send("POST", "/new-project", form("name", "Web <shop>", "branch", "main"))
	if rec.Code != http.StatusOK || rec.Header().Get("Cache-Control") != "no-store" {
		t.Fatalf("%d %v", rec.Code, rec.Header())
	}
	wellFormed(t, rec.Body.String())
	key := regexp.MustCompile(`rk_\w+`).FindString(rec.Body.String())
	wants(t, rec.Body.String(), "Web <shop>", "RUNBELL_RECORD_KEY="+key+" runbell cypress run --url ", " --project web-shop Copy")
	if err := auth.New(w.db, auth.KeysOnly).Record(w.ctx, "web-shop", key); err != nil {
		t.Errorf("the key that is shown: %v", err)
	}
	page := w.page("/projects/web-shop")
	wellFormed(t, page)
	wants(t, page, "No runs yet.", "Create one")
	lacks(t, page, key)

	// Settings, and what is refused of them.
	page = w.page("/projects/web-shop/settings")
	wellFormed(t, page)
	lacks(t, page, key)
	good := []string{"name", "Web", "branch", "trunk", "inactivity", "7.5", "completion", "0", "failfast", "3", "rundays", "200", "failedartifacts", "20",
		"passedartifacts", "3", "artifactbytes", "1.5 GiB", "output", "0", "retention", "90", "public", "on"}
	for name, c := range map[string]struct{ value, why string }{
		"name":          {"", "The name must have"},
		"inactivity":    {"2", "The inactivity timeout must be a number from 3 to 720."},
		"completion":    {"901", "The completion delay must be a number from 0 to 900."},
		"failfast":      {"-1", "The number of failures must be"},
		"rundays":       {"-1", "The number of days to keep runs must be from 0 to 3650."},
		"output":        {"1.5", "The number of days to keep console output must be from 0 to 3650."},
		"retention":     {"0", "The number of days to keep the delivery log must be from 1 to 3650."},
		"artifactbytes": {"1 GB", "is not a size such as 500MiB or 2GiB."},
	} {
		w.refused(400, c.why, "/projects/web-shop/settings", append([]string{name, c.value}, good...)...)
	}
	w.post("/projects/web-shop/settings", good...)
	w.check(w.db.Read(w.ctx, func(tx *store.Tx) error {
		p, err := tx.Project(w.ctx, "web-shop")
		if p.Name != "Web" || p.DefaultBranch != "trunk" || p.InactivityTimeout != 450*time.Second || p.CompletionDelay != 0 || p.FailFast != 3 || p.Keep != (run.Retention{Runs: 200, FailedArtifacts: 20, PassedArtifacts: 3, Deliveries: 90, ArtifactBytes: 3 << 29}) || !p.PublicRuns {
			t.Errorf("saved as %+v", p)
		}
		return err
	}))
	wants(t, w.page("/projects/web-shop/settings?done=saved"), "Saved.")

	// Record keys.
	rec = w.send("POST", "/projects/web-shop/keys", form("label", "CI"))
	second := regexp.MustCompile(`rk_\w+`).FindString(rec.Body.String())
	wants(t, rec.Body.String(), "New key “CI”. Copy it now; it won’t be shown again.")
	page = w.page("/projects/web-shop/settings")
	id := regexp.MustCompile(`name="id" value="([^"]+)"`).FindAllStringSubmatch(page, -1)[1][1]
	if rec := w.send("POST", "/projects/shop/keys/revoke", form("id", id)); rec.Code != 404 {
		t.Errorf("a key of another project: %d", rec.Code)
	}
	w.post("/projects/web-shop/keys/revoke", "id", id)
	if err := auth.New(w.db, auth.KeysOnly).Record(w.ctx, "web-shop", second); run.KindOf(err) != run.Unauthorized {
		t.Errorf("the revoked key: %v", err)
	}

	// Deleting asks for the id.
	w.refused(400, "type its id, web-shop", "/projects/web-shop/delete", "confirm", "Web")
	w.post("/projects/web-shop/delete", "confirm", "web-shop")
	for _, path := range []string{"/projects/web-shop", "/projects/web-shop/settings", "/projects/%00", "/projects/..%2f..%2fetc"} {
		if rec := w.get(path); rec.Code != 404 {
			t.Errorf("GET %s = %d", path, rec.Code)
		}
	}
}

func TestListOfProjects(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	w.token = w.person("vera", store.Viewer)
	green := []spec{passing("a.cy.js", "a > one")}
	red := []spec{failing("b.cy.js")}
	w.play(shopJoin("build-1", green...), green)
	w.play(shopJoin("build-2", red...), red)
	j := shopJoin("build-3", green...)
	j.Commit.Branch = "main"
	w.play(j, green)
	page := w.page("/")
	wellFormed(t, page)
	wants(t, page, "shop all branches Passed feat: change button colour 1 passed", "66% of 3 runs passed", "feat: change button colour: Failed")
	if n := strings.Count(page, `class="hit"`); n != 3 {
		t.Errorf("%d runs in the bar", n)
	}
	lacks(t, page, "New project")
	w.check(w.db.Write(w.ctx, func(tx *store.Tx) error {
		p, err := tx.Project(w.ctx, "shop")
		if err != nil {
			return err
		}
		p.DefaultBranch = "feat/button-colour"
		return tx.UpdateProject(w.ctx, p)
	}))
	wants(t, w.page("/"), "shop feat/button-colour Failed feat: change button colour", "50% of 2 runs passed")

	// More projects than a page has.
	for n := range projectsPerPage {
		testkit.Project(t, w.db, fmt.Sprintf("p%02d", n), func(p *run.Project) { p.CreatedAt = p.CreatedAt.Add(-time.Hour) })
	}
	page = w.page("/")
	if !strings.Contains(page, "project-shop") || strings.Count(page, `<li id="project-`) != projectsPerPage {
		t.Error("the first page of projects does not have the one with runs, and as many as fit")
	}
	page = w.page("/?page=2")
	if strings.Contains(page, "project-shop") || strings.Count(page, `<li id="project-`) != 1 {
		t.Error("the second page of projects does not have the last one")
	}
	wants(t, page, "Page 2 of 2")
	page = w.page("/?q=P0")
	if n := strings.Count(page, `<li id="project-`); n != 10 {
		t.Errorf("a search finds %d projects, want 10", n)
	}
	wants(t, w.page("/?q=nothing%25"), "No projects match.")
	w.join(shopJoin("build-4", green...))
	wants(t, w.page("/"), "1 running")
}
