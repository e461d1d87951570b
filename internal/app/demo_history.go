package app

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"runbell/internal/config"
	"runbell/internal/lifecycle"
	"runbell/internal/run"
	"runbell/internal/server"
	"runbell/internal/store"
)

const (
	historyDays = 30
	// historyAtOnce is how many runs are written at the same time: they share commits.
	historyAtOnce = 32
	// historySeed makes the same month each time.
	historySeed = 20260131
)

// pastRun is a run of the month before: what was tested, when, and how it went.
type pastRun struct {
	project *pastProject
	at      time.Time
	number  int
	branch  string
	author  pastAuthor
	subject string
	end     run.State // how it ended
	// filesSince is from when on runs have screenshots and videos.
	filesSince time.Time
	daysAgo    int
}

// writeHistory fills a database that no server uses with a month of runs, which
// the verbs of reporters write at the times when they would have been made.
func writeHistory(ctx context.Context, cfg config.Serve, now time.Time) (err error) {
	db, err := server.OpenDatabase(ctx, cfg.Database)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	first := now.AddDate(0, 0, -historyDays).Truncate(24 * time.Hour)
	if err := db.Write(ctx, func(tx *store.Tx) error {
		for _, p := range pastProjects {
			project := run.NewProject(p.id)
			project.Name, project.DefaultBranch, project.CompletionDelay, project.PublicRuns, project.CreatedAt = p.name, "main",
				0, true, first
			if _, err := tx.InsertProject(ctx, project); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	runs := lifecycle.New(db, cfg.PublicURL, func(...string) {})
	if err := writeRuns(ctx, runs, monthOf(first, now)); err != nil {
		return err
	}
	return writeFiles(ctx, db, cfg, now.AddDate(0, 0, -pastFileDays))
}

// writeRuns writes runs of which none depends on another, except that silence is
// noticed at the end.
func writeRuns(ctx context.Context, runs *lifecycle.Service, month []pastRun) error {
	var mu sync.Mutex
	var failed error
	var silent []time.Time
	var work sync.WaitGroup
	places := make(chan struct{}, historyAtOnce)
	for _, r := range month {
		places <- struct{}{}
		work.Go(func() {
			defer func() { <-places }()
			last, err := r.write(ctx, runs)
			mu.Lock()
			defer mu.Unlock()
			failed = errors.Join(failed, err)
			if r.end == run.TimedOut {
				silent = append(silent, last.Add(run.DefaultInactivity))
			}
		})
	}
	work.Wait()
	for _, at := range silent {
		if failed == nil {
			_, failed = runs.At(at).Sweep(ctx)
		}
	}
	return failed
}

// monthOf makes up the runs: more on working days, most of them on main or of
// pull requests that are tested until they are green.
func monthOf(first, now time.Time) []pastRun {
	random := rand.New(rand.NewPCG(historySeed, 1))
	var month []pastRun
	for day := first; day.Before(now); day = day.AddDate(0, 0, 1) {
		for i := range pastProjects {
			p := &pastProjects[i]
			n := 1 + random.IntN(p.perDay)
			if wd := day.Weekday(); wd == time.Saturday || wd == time.Sunday {
				n = random.IntN(2)
			}
			for range n {
				at := day.Add(7*time.Hour + time.Duration(random.IntN(11*3600))*time.Second)
				if at.After(now.Add(-40 * time.Minute)) {
					continue
				}
				r := p.draw(at, len(month), random)
				r.filesSince, r.daysAgo = now.AddDate(0, 0, -pastFileDays), int(now.Sub(at)/(24*time.Hour))
				month = append(month, r)
			}
		}
	}
	return month
}

// draw makes up one run of a project.
func (p *pastProject) draw(at time.Time, number int, random *rand.Rand) pastRun {
	r := pastRun{project: p, at: at, number: number, branch: "main", author: pastAuthors[random.IntN(len(pastAuthors))],
		end: run.Finished}
	r.subject = pastSubjects[random.IntN(len(pastSubjects))]
	if random.IntN(5) < 2 {
		r.branch = pastBranches[random.IntN(len(pastBranches))]
	}
	switch n := random.IntN(100); {
	case n < 3:
		r.end = run.Canceled
	case n < 5:
		r.end = run.TimedOut
	}
	return r
}

// sha is what the run tested.
func (r pastRun) sha() string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d", r.project.id, r.number))
	return hex.EncodeToString(sum[:20])
}

// join is the machine's request for one group.
func (r pastRun) join(group string) lifecycle.Join {
	runID := fmt.Sprint(7_100_000_000 + r.number*131)
	params := map[string]string{"githubRepository": "acme/" + r.project.id, "githubRunId": runID, "githubRunAttempt": "1",
		"githubActor": r.author.login}
	if r.branch != "main" {
		params["githubEventName"], params["githubRef"] = "pull_request", fmt.Sprintf("refs/pull/%d/merge", 400+r.number%90)
	}
	browser := strings.TrimSuffix(group, "-mobile")
	return lifecycle.Join{
		ProjectID: r.project.id, CIBuildID: fmt.Sprintf("acme/%s-%s-1", r.project.id, runID), Group: group,
		Specs: r.project.specs(), SpecHash: "history", Fingerprint: fmt.Sprintf("%s %d %s", r.project.id, r.number, group),
		Tags: r.project.tags, Commit: run.Commit{SHA: r.sha(), Branch: r.branch, AuthorName: r.author.name,
			AuthorEmail: r.author.login + "@example.com", Message: r.subject,
			RemoteOrigin: "https://github.com/acme/" + r.project.id + ".git", DefaultBranch: "main"},
		CI:       run.CI{Provider: "githubActions", Params: params},
		Client:   run.Client{Name: "runbell", Version: "1.0.0", Framework: run.Framework{Name: "cypress", Version: "15.4.0"}},
		Platform: run.Platform{OSName: "linux", OSVersion: "Ubuntu - 24.04", BrowserName: browser, BrowserVersion: "141"},
	}
}

// write lets the run's machines join, claim and report. It returns when the last
// of them was heard.
func (r pastRun) write(ctx context.Context, runs *lifecycle.Service) (time.Time, error) {
	last := r.at
	var joined []lifecycle.Joined
	for n, group := range r.project.groups {
		j, err := runs.At(r.at.Add(time.Duration(n)*time.Second)).Join(ctx, r.join(group))
		if err != nil {
			return last, err
		}
		joined = append(joined, j)
	}
	for n, j := range joined {
		group := r.project.groups[n]
		at := r.at.Add(time.Duration(n+3) * time.Second)
		for left := len(r.project.areas); ; left-- {
			if r.end != run.Finished && n == len(joined)-1 && left <= len(r.project.areas)/2 {
				break // the machine is never heard again, or somebody has seen enough
			}
			claimed, err := runs.At(at).Claim(ctx, lifecycle.Claim{RunID: j.RunID, MachineID: j.MachineID, Limit: 1})
			if err != nil || len(claimed.Instances) == 0 {
				if err != nil {
					return last, err
				}
				break
			}
			spec := claimed.Instances[0]
			chance := group + " " + spec.Spec
			if r.end != run.Finished {
				chance = fmt.Sprint(group, left) // any half of its specs
			}
			tests, outcome := r.result(spec.Spec, at, chance)
			if r.at.Before(r.filesSince) {
				outcome.Screenshots, outcome.Video = nil, false
			}
			at = at.Add(outcome.Duration + 2*time.Second)
			if _, err := runs.At(at).Complete(ctx, spec.ID, &tests, outcome); err != nil {
				return last, err
			}
			if at.After(last) {
				last = at
			}
		}
	}
	if r.end == run.Canceled {
		_, err := runs.At(last.Add(20*time.Second)).Cancel(ctx, joined[0].RunID, r.author.name,
			"superseded by a newer commit")
		return last, err
	}
	return last, nil
}
