package store_test

import (
	"bytes"
	"context"
	"os"
	"slices"
	"strings"
	"testing"

	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/testkit"
)

func contains(t testing.TB, path, text string) bool {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Contains(b, []byte(text))
}

// Filters are exact on both databases, searches are for parts in any case.
func TestRunFiltersAreExact(t *testing.T) {
	runs := map[string]run.Run{
		"main":    {Tags: []string{"smoke"}, Commit: run.Commit{Branch: "main", AuthorName: "Ann", Message: "Fix the Button", DefaultBranch: "trunk", RemoteOrigin: "git@github.com:org/repo"}},
		"upper":   {Tags: []string{"Smoke", "x"}, Commit: run.Commit{Branch: "Main", AuthorName: "ANN", Message: `Say "hi" to 50%_done`, DefaultBranch: "main"}},
		"prefix":  {Tags: []string{"smoke-test"}, Commit: run.Commit{Branch: "main2", AuthorName: "Ann B", Message: "Ärger mit <b>\nzweite Zeile"}},
		"tricky":  {Tags: []string{`a","smoke`}, Commit: run.Commit{Branch: `x","branch":"main`, AuthorName: `"branch":"main"`, Message: `"branch":"main","authorName":"Ann"`}},
		"unknown": {},
	}
	testkit.OnEach(t, func(t *testing.T, db *store.DB) {
		testkit.Project(t, db, "shop")
		testkit.Write(t, db, func(ctx context.Context, tx *store.Tx) error {
			for id, r := range runs {
				r.ID, r.ProjectID, r.CIBuildID, r.CreatedAt = id, "shop", "Build-"+id, tx.Now
				if _, err := tx.InsertRun(ctx, r); err != nil {
					return err
				}
			}
			return nil
		})
		for _, c := range []struct {
			filter store.RunFilter
			want   string
		}{
			{store.RunFilter{Branches: []string{"main"}}, "main"},
			{store.RunFilter{Branches: []string{"Main"}}, "upper"},
			{store.RunFilter{Branches: []string{"MAIN"}}, ""},
			{store.RunFilter{Branches: []string{"main", "main2"}}, "main prefix"},
			{store.RunFilter{Branches: []string{"mai_"}}, ""},
			{store.RunFilter{Branches: []string{"%"}}, ""},
			{store.RunFilter{Branches: []string{"trunk"}}, ""}, // the default branch is another thing
			{store.RunFilter{Branches: []string{`x","branch":"main`}}, "tricky"},
			{store.RunFilter{Authors: []string{"Ann"}}, "main"},
			{store.RunFilter{Authors: []string{"ANN"}}, "upper"},
			{store.RunFilter{Authors: []string{"ann"}}, ""},
			{store.RunFilter{Tags: []string{"smoke"}}, "main"},
			{store.RunFilter{Tags: []string{"Smoke"}}, "upper"},
			{store.RunFilter{Tags: []string{"SMOKE"}}, ""},
			{store.RunFilter{Tags: []string{"smoke", "Smoke"}, AnyTag: true}, "main upper"},
			{store.RunFilter{Tags: []string{"x", "Smoke"}}, "upper"},
			{store.RunFilter{Tags: []string{"x", "smoke"}}, ""},
			{store.RunFilter{Tags: []string{`a","smoke`}}, "tricky"},
			{store.RunFilter{Branches: []string{"Main"}, Authors: []string{"Ann"}}, ""},
			{store.RunFilter{Branches: []string{"Main"}, Authors: []string{"ANN"}, Tags: []string{"x"}, Search: "HI"}, "upper"},

			{store.RunFilter{Search: "fix the button"}, "main"},
			{store.RunFilter{Search: "BUTTON"}, "main"},
			{store.RunFilter{Search: "build-MAIN"}, "main"},
			{store.RunFilter{Search: "build-"}, "main prefix tricky unknown upper"},
			{store.RunFilter{Search: "Ärger"}, "prefix"},
			{store.RunFilter{Search: "<B>"}, "prefix"},
			{store.RunFilter{Search: "mit <b>\nzweite"}, "prefix"},
			{store.RunFilter{Search: `"`}, "tricky upper"},
			{store.RunFilter{Search: `say "hi"`}, "upper"},
			{store.RunFilter{Search: "50%_"}, "upper"},
			{store.RunFilter{Search: "5%d"}, ""},
			{store.RunFilter{Search: "!"}, ""},
			{store.RunFilter{Search: "github"}, ""}, // in the remote, not in the message
			{store.RunFilter{Search: "trunk"}, ""},  // the default branch
			{store.RunFilter{Search: "remoteOrigin"}, ""},
			{store.RunFilter{Search: "Ann B"}, ""},
			{store.RunFilter{Search: "it's \\ odd"}, ""},
		} {
			testkit.Read(t, db, func(ctx context.Context, tx *store.Tx) error {
				list, _, err := tx.Runs(ctx, "shop", c.filter, store.Page{Limit: 10})
				var got []string
				for _, r := range list {
					got = append(got, r.ID)
				}
				slices.Sort(got)
				if strings.Join(got, " ") != c.want {
					t.Errorf("%+v finds %q, want %q", c.filter, got, c.want)
				}
				return err
			})
		}
	})
}
