package api

import (
	"context"
	"fmt"
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
		ctx, stop := context.WithCancel(t.Context())
		var inserts sync.WaitGroup
		for range 2 {
			inserts.Go(func() {
				for ctx.Err() == nil {
					if err := insert(ctx); err != nil && ctx.Err() == nil {
						t.Error(err)
					}
				}
			})
		}
		walks := 0
		rapid.Check(t, func(rt *rapid.T) {
			if walks++; walks > 30 {
				return
			}
			list := rapid.SampledFrom([]string{"/v1/projects?", "/v1/projects/demo/runs?branches[]=main&", "/v1/webhooks/" + hook + "/deliveries?"}).Draw(rt, "list")
			key := s.newKey(t, 1)
			limit := func() string { return fmt.Sprint("limit=", rapid.IntRange(7, 100).Draw(rt, "limit")) }
			get := func(query string) ([]object, bool) {
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
		stop()
		inserts.Wait()
	})
}
