package test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"runbell/internal/run"
)

// TestTheTableOfCIServices holds the table in docs/recording.md to the code.
func TestTheTableOfCIServices(t *testing.T) {
	page := read(t, "docs/recording.md")
	code := func(names []string, between string) string {
		if len(names) == 0 {
			return ""
		}
		return "`" + strings.Join(names, "`"+between+"`") + "`"
	}
	var table strings.Builder
	table.WriteString("| CI service | build id | head of a pull request: branch; commit | pull request: number; title; link; author |\n|---|---|---|---|\n")
	for _, provider := range slices.Sorted(maps.Keys(run.BuildParams)) {
		var builds []string
		for _, names := range run.BuildParams[provider] {
			builds = append(builds, code(names, " + "))
		}
		if number := run.JobNumbers[provider]; len(number) > 0 {
			builds = append(builds, code(number, " + ")+" + the commit")
		}
		p := run.PullParams[provider]
		parts := func(lists ...[]string) string {
			var out []string
			for _, names := range lists {
				out = append(out, code(names, " or "))
			}
			return strings.TrimSpace(strings.TrimRight(strings.Join(out, "; "), "; "))
		}
		table.WriteString("| " + provider + " | " + strings.Join(builds, ", else ") + " | " + parts(p.Branch, p.SHA) + " | " + parts(p.Number, p.Title, p.URL, p.Author) + " |\n")
	}
	if !strings.Contains(string(page), table.String()) {
		t.Errorf("docs/recording.md does not have this table:\n\n%s", table.String())
	}
}
