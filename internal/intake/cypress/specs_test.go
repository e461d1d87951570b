package cypress

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestHashSpecsIgnoresOrderOnly(t *testing.T) {
	same := hashSpecs([]string{"a.cy.js", "b.cy.js"})
	if hashSpecs([]string{"b.cy.js", "a.cy.js"}) != same {
		t.Error("another order is another hash")
	}
	input := []string{"b", "a"}
	hashSpecs(input)
	if input[0] != "b" {
		t.Error("the caller's list was sorted")
	}
	seen := map[string]string{same: "a.cy.js b.cy.js"}
	// The same letters, cut in other places.
	for _, specs := range [][]string{nil, {""}, {"a.cy.js"}, {"a.cy.js", "b.cy.js", "b.cy.js"}, {"a.cy.jsb.cy.js"}, {"a.cy.js7:b.cy.js"}, {"a.cy", ".jsb.cy.js"}} {
		h := hashSpecs(specs)
		if other, ok := seen[h]; ok {
			t.Errorf("%q and %q have the same hash", specs, other)
		}
		seen[h] = strings.Join(specs, " ")
	}
}

func TestSpecDifference(t *testing.T) {
	for _, c := range []struct{ group, machine, missing, extra string }{
		{"a b", "b a", "", ""},
		{"c a b", "b", "a c", ""},
		{"b", "c b a", "", "a c"},
		{"a b", "b c", "a", "c"},
		{"", "", "", ""},
	} {
		missing, extra := specDifference(strings.Fields(c.group), strings.Fields(c.machine))
		if diff := cmp.Diff(strings.Fields(c.missing), append([]string{}, missing...)) + cmp.Diff(strings.Fields(c.extra), append([]string{}, extra...)); diff != "" {
			t.Errorf("group %q, machine %q: %s", c.group, c.machine, diff)
		}
	}
}
