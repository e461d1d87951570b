package ui

import (
	"testing"

	"runbell/internal/lifecycle"
	"runbell/internal/store"
)

// Who may pin and delete a run finds it on its page.
func TestPinAndDelete(t *testing.T) {
	w := newWorld(t)
	w.token = w.person("ada", store.Admin)
	id := w.play(lifecycle.Join{ProjectID: "shop", CIBuildID: "build-1", Specs: []string{"a.cy.js"}}, []spec{{name: "a.cy.js"}})
	running := w.join(lifecycle.Join{ProjectID: "shop", CIBuildID: "build-2", Specs: []string{"a.cy.js"}}).RunID
	wants(t, w.page("/run/"+id), "Pin", "Delete run…")
	lacks(t, w.page("/run/"+running), "Delete run…")
	w.post("/run/" + id + "/pin")
	page := w.page("/run/" + id)
	wellFormed(t, page)
	wants(t, page, "Pinned by", "this run is kept until someone unpins it", "Unpin")
	lacks(t, page, "Delete run…")
	w.refused(409, "unpin it first", "/run/"+id+"/delete")
	w.refused(409, "cancel it first", "/run/"+running+"/delete")
	w.post("/run/" + id + "/unpin")
	lacks(t, w.page("/run/"+id), "Pinned by")
	if to := w.post("/run/" + id + "/delete"); to != "/projects/shop?done=rundeleted" {
		t.Errorf("after the deletion to %s", to)
	}
	wants(t, w.page("/projects/shop?done=rundeleted"), "Run deleted.")
	if rec := w.get("/run/" + id); rec.Code != 404 {
		t.Errorf("the page of a deleted run: %d", rec.Code)
	}

	w.token = w.person("vera", store.Viewer)
	page = w.page("/run/" + running)
	lacks(t, page, "Pin</button>")
}
