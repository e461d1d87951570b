package api

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/url"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"runbell/internal/lifecycle"
	"runbell/internal/run"
)

// TestPagesUnderInserts walks through lists, in both directions and by pages of any size,
// while others add to them. Each item of the first list must appear once, in order.
func TestPagesUnderInserts(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		s.project(t, "demo")
		hook := s.hook(t, "demo", object{"hookEvents": []string{}})
		builds := make(chan int, 1)
		go func() {
			for n := 0; ; n++ {
				select {
				case builds <- n:
				case <-t.Context().Done():
					return
				}
			}
		}()
		insert := func(ctx context.Context) error {
			n := <-builds
			if _, err := s.runs.Join(ctx, lifecycle.Join{ProjectID: "demo", CIBuildID: fmt.Sprint("b-", n), Specs: []string{"a.cy.js"}, Commit: run.Commit{Branch: "main"}}); err != nil {
				return err
			}
			if _, err := s.endpoints.Test(ctx, hook, "RUN_FINISH"); err != nil {
				return err
			}
			_, _, err := s.projects.Create(ctx, run.NewProject(fmt.Sprint("p-", n)))
			return err
		}
		for range 25 {
			if err := insert(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		// While a page is read, two others add to the lists: a few items for each page, or the walks would be long.
		turns := make(chan struct{}, 2)
		var inserts sync.WaitGroup
		for range cap(turns) {
			inserts.Go(func() {
				for range turns {
					if err := insert(t.Context()); err != nil {
						t.Error(err)
					}
				}
			})
		}
		defer func() {
			close(turns)
			inserts.Wait()
		}()
		walks := 0
		rapid.Check(t, func(rt *rapid.T) {
			if walks++; walks > 30 {
				return
			}
			list := rapid.SampledFrom([]string{"/v1/projects?", "/v1/projects/demo/runs?branches[]=main&", "/v1/webhooks/" + hook + "/deliveries?"}).Draw(rt, "list")
			key := s.newKey(t, 1)
			limit := func() string { return fmt.Sprint("limit=", rapid.IntRange(7, 100).Draw(rt, "limit")) }
			get := func(query string) ([]object, bool) {
				for range cap(turns) {
					turns <- struct{}{}
				}
				answer := s.callWith(t, key, 200, "GET", list+query, nil)
				return itemsOf(answer), answer["has_more"].(bool)
			}
			there := map[string]bool{}
			page, _ := get("limit=20")
			for _, item := range page {
				there[item["cursor"].(string)] = true
			}
			walk := func(direction, from string, wanted int) {
				seen, found := map[string]bool{}, 0
				for more := true; more; {
					query := limit()
					if from != "" {
						query += "&" + direction + "=" + url.QueryEscape(from)
					}
					var items []object
					if items, more = get(query); len(items) == 0 && more {
						rt.Fatal("an empty page says that there is more")
					}
					for n, item := range items {
						cursor := item["cursor"].(string)
						if seen[cursor] {
							rt.Fatalf("%s came twice", cursor)
						}
						if seen[cursor] = true; there[cursor] {
							found++
						}
						if n == 0 && direction == "ending_before" || direction == "starting_after" {
							from = cursor
						}
					}
					if found == wanted {
						break // others may add faster than we walk
					}
				}
				if found != wanted {
					rt.Fatalf("%s: %d of %d", direction, found, wanted)
				}
			}
			walk("starting_after", "", len(there))
			walk("ending_before", page[len(page)-1]["cursor"].(string), len(there)-1)
		})
	})
}

// TestListsThatMove walks through lists whose items move to the front while others record
// runs, in both directions and by pages of any size. Each item of the list as it was at the
// beginning must come once.
func TestListsThatMove(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		s.project(t, "demo")
		runs := 0
		record := func(ctx context.Context, pull int) error {
			runs++
			_, err := s.runs.Join(ctx, lifecycle.Join{ProjectID: "demo", CIBuildID: fmt.Sprint("b-", runs), Specs: []string{"a.cy.js"}, Tags: []string{fmt.Sprint("tag@", pull)},
				Commit: run.Commit{Branch: fmt.Sprint("branch-", pull), PullRequest: &run.PullRequest{Number: pull}}})
			return err
		}
		const first = 30
		for pull := range first {
			if err := record(t.Context(), pull+1); err != nil {
				t.Fatal(err)
			}
		}
		ctx, stop := context.WithCancel(t.Context())
		var inserts sync.WaitGroup
		inserts.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				pull := 1 + rand.IntN(first)
				if n%40 == 0 {
					pull = first + n
				}
				if err := record(ctx, pull); err != nil && ctx.Err() == nil {
					t.Error(err)
				}
			}
		})
		walks := 0
		rapid.Check(t, func(rt *rapid.T) {
			if walks++; walks > 20 {
				return
			}
			list := rapid.SampledFrom([]struct{ path, name, prefix string }{{"pull-requests?", "pr_id", ""}, {"pull-requests?status=RUNNING&", "pr_id", ""},
				{"terms/branch?", "value", "branch-"}, {"terms/tag?", "value", "tag@"}}).Draw(rt, "list")
			key := s.newKey(t, 1)
			get := func(query string) ([]object, bool) {
				answer := s.callWith(t, key, 200, "GET", "/v1/projects/demo/"+list.path+query, nil)
				return itemsOf(answer), answer["has_more"].(bool)
			}
			walk := func(direction, from, last string, seen map[string]bool) (string, string) {
				for more := true; more; {
					var items []object
					items, more = get(fmt.Sprint("limit=", rapid.IntRange(3, 20).Draw(rt, "limit"), "&", direction, "=", url.QueryEscape(from)))
					for n, item := range items {
						id := fmt.Sprint(item[list.name])
						if seen[id] {
							rt.Fatalf("%s came twice", id)
						}
						seen[id] = true
						if n == 0 || direction == "starting_after" {
							last, from = id, item["cursor"].(string)
						}
					}
				}
				return last, from
			}
			page, _ := get("limit=1")
			id := fmt.Sprint(page[0][list.name])
			seen := map[string]bool{id: true}
			last, cursor := walk("starting_after", page[0]["cursor"].(string), id, seen)
			for n := range first {
				if id := fmt.Sprint(list.prefix, n+1); !seen[id] {
					rt.Fatalf("%s did not come: %v", id, seen)
				}
			}
			back := map[string]bool{}
			walk("ending_before", cursor, last, back)
			for id := range seen {
				if id != last && !back[id] {
					rt.Fatalf("%s did not come backwards: %v", id, back)
				}
			}
		})
		stop()
		inserts.Wait()
	})
}
