package retention

import (
	"fmt"
	"testing"

	"runbell/internal/store"
)

// TestMostProjects: the metrics have the projects that use most, and the sum of all others.
func TestMostProjects(t *testing.T) {
	var list []store.ProjectUsage
	for n := range mostProjects + 3 {
		list = append(list, store.ProjectUsage{ProjectID: fmt.Sprint("p", n), Runs: 1, Artifacts: 2, ArtifactBytes: int64(n)})
	}
	got := most(list)
	if len(got) != mostProjects+1 || got[0].ProjectID != "p102" || got[mostProjects] != (store.ProjectUsage{Runs: 3, Artifacts: 6, ArtifactBytes: 0 + 1 + 2}) {
		t.Errorf("%d series, from %+v to %+v", len(got), got[0], got[len(got)-1])
	}
	if few := most(list[:2]); len(few) != 2 {
		t.Errorf("%+v", few)
	}
}
