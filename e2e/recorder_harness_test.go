package e2e

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// The majors of Cypress that are tried, by the name of their package.
var majors = []string{"10", "12", "13", "14", "15"}

// usual is the one that most tests use: the first that no other recorder can
// record.
const usual = "13"

// cypressProject is a project with the npm package of a Cypress, and a stand-in
// for its binary.
type cypressProject struct {
	dir string
	env []string // of commands that run Cypress there
}

// plainConfig does without defineConfig, which loads the npm package of Cypress:
// half of what a start of the stand-in takes.
const plainConfig = `module.exports = {
  retries: { runMode: 2, openMode: 0 },
  env: { password: 's3cret-do-not-store', slowMs: 1500 },
  e2e: { supportFile: false },
}
`

// newCypress makes a checkout of the Cypress project that has no plugin, only
// the package.
func newCypress(t *testing.T, major string) cypressProject {
	t.Helper()
	p := cypressProject{dir: checkout(t)}
	name, err := filepath.Abs("recorder/node_modules/cypress-" + major)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := os.ReadFile(filepath.Join(name, "package.json"))
	if err != nil {
		t.Fatal("the packages of Cypress are not installed: run scripts/setup, which 'make test' does")
	}
	var of struct{ Version string }
	if err := json.Unmarshal(manifest, &of); err != nil {
		t.Fatal(err)
	}
	p.write(t, "cypress.config.js", plainConfig)
	p.remove(t, "currents.config.js")
	p.link(t, name, "node_modules/cypress")

	// The npm package looks for the binary in its cache, where a version and a
	// note that it has been verified stand beside it.
	cache := cypressProject{dir: t.TempDir()}
	standin, err := filepath.Abs("client/standin/Cypress")
	if err != nil {
		t.Fatal(err)
	}
	cache.link(t, standin, of.Version+"/Cypress/Cypress")
	cache.write(t, of.Version+"/Cypress/resources/app/package.json", `{"version":"`+of.Version+`"}`)
	cache.write(t, of.Version+"/binary_state.json", `{"verified":true}`)
	p.env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "TMPDIR=" + t.TempDir(), "CYPRESS_CACHE_FOLDER=" + cache.dir,
		"RUNBELL_STANDIN_VERSION=" + of.Version, "DISPLAY=:0"} // else an X server would be started, which nothing here needs
	return p
}

func (p cypressProject) write(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join(p.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func (p cypressProject) remove(t *testing.T, name string) {
	t.Helper()
	if err := os.RemoveAll(filepath.Join(p.dir, name)); err != nil {
		t.Fatal(err)
	}
}

func (p cypressProject) link(t *testing.T, target, name string) {
	t.Helper()
	path := filepath.Join(p.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
}

// only keeps these specs alone, and makes those that are not there: each
// has one test that passes.
func (p cypressProject) only(t *testing.T, names ...string) {
	t.Helper()
	p.remove(t, "cypress/e2e")
	for _, name := range names {
		p.write(t, "cypress/e2e/"+name, "it('passes', () => {})\n")
	}
}

// recording is a process of 'runbell cypress run'.
type recording struct {
	*machine
	stdout, stderr *transcript
}

// record starts recording the project at a server.
func (p cypressProject) record(t *testing.T, url, key string, args ...string) recording {
	t.Helper()
	return p.recordFrom(t, p.dir, []string{"RUNBELL_URL=" + url, "RUNBELL_RECORD_KEY=" + key, "RUNBELL_PROJECT=shop"}, args...)
}

func (p cypressProject) recordFrom(t *testing.T, dir string, env []string, args ...string) recording {
	t.Helper()
	return p.start(t, dir, env, append([]string{"cypress", "run"}, args...)...)
}

// command starts another command in the project.
func (p cypressProject) command(t *testing.T, env []string, args ...string) recording {
	t.Helper()
	return p.start(t, p.dir, env, args...)
}

func (p cypressProject) start(t *testing.T, dir string, env []string, args ...string) recording {
	t.Helper()
	r := recording{stdout: &transcript{}, stderr: &transcript{}}
	c := exec.Command(binary, args...)
	c.Dir, c.Env = dir, slices.Concat(p.env, env)
	c.Stdout, c.Stderr = r.stdout, r.stderr
	r.machine = launch(t, c, func() string { return r.stdout.String() + r.stderr.String() })
	return r
}

// plain runs 'cypress run' of the npm package, without a recorder.
func (p cypressProject) plain(t *testing.T, args ...string) (code int, stdout string) {
	t.Helper()
	out := &transcript{}
	c := exec.Command("node", append([]string{filepath.Join(p.dir, "node_modules/cypress/bin/cypress"), "run"}, args...)...)
	c.Dir, c.Env, c.Stdout = p.dir, p.env, out
	m := launch(t, c, out.String)
	code, _ = m.waitFor(t, 8*time.Minute) // of a real browser, too
	return code, out.String()
}

// runs lists the runs of the project, newest first.
func (s *server) runs() []runInfo {
	s.t.Helper()
	var list []runInfo
	s.call("GET", "/projects/shop/runs", nil, &list)
	return list
}

// theRun is the only run of the project.
func (s *server) theRun() runInfo {
	s.t.Helper()
	list := s.runs()
	if len(list) != 1 {
		s.t.Fatalf("%d runs, want 1", len(list))
	}
	var r runInfo
	s.call("GET", "/runs/"+list[0].RunID, nil, &r)
	return r
}

// runInfo is a run as the REST API has it.
type runInfo struct {
	RunID, Status, CompletionState string
	NoTests                        bool
	Groups                         []struct{ Tests counts }
	Cancellation                   *struct{ Reason string }
	Meta                           struct{ CIBuildID string }
	Specs                          []struct {
		Spec       string
		InstanceID *string
		Results    *struct{ Exception *string }
	}
}

// screenshotIDs are those in a compressed body of results.
func screenshotIDs(t *testing.T, body []byte) []string {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	var r struct {
		Results struct {
			Screenshots []struct{ ScreenshotID string }
		}
	}
	if err := json.NewDecoder(z).Decode(&r); err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, s := range r.Results.Screenshots {
		ids = append(ids, s.ScreenshotID)
	}
	return ids
}

// tests sums the counts of a run's groups.
func (r runInfo) tests() counts {
	var c counts
	for _, g := range r.Groups {
		c.Overall += g.Tests.Overall
		c.Passes += g.Tests.Passes
		c.Failures += g.Tests.Failures
		c.Pending += g.Tests.Pending
		c.Skipped += g.Tests.Skipped
		c.Retries += g.Tests.Retries
		c.Flaky += g.Tests.Flaky
	}
	return c
}

// processes are the command lines with a text in them, on Linux.
func processes(t *testing.T, text string) (found []string) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range all {
		if line, _ := os.ReadFile(path); bytes.Contains(line, []byte(text)) { // it may have ended meanwhile
			found = append(found, string(bytes.ReplaceAll(line, []byte{0}, []byte{' '})))
		}
	}
	return found
}
