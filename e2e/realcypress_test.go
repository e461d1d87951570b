//go:build cypress

package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// These tests drive the real Cypress, with its browser: 'make test-cypress'. They
// run one after another, since each wants all processors.

// realCypress makes a project with the real Cypress.
func realCypress(t *testing.T, files map[string]string) cypressProject {
	t.Helper()
	modules, err := filepath.Abs("cypress/node_modules")
	if err != nil {
		t.Fatal(err)
	}
	p := cypressProject{dir: filepath.Join(t.TempDir(), "project")}
	p.link(t, modules, "node_modules")
	for name, text := range files {
		p.write(t, name, text)
	}
	p.env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "TMPDIR=" + t.TempDir(), "CYPRESS_CACHE_FOLDER=" + filepath.Join(modules, ".cypress-cache"),
		"NO_COLOR=1", "TERM=dumb"}
	return p
}

// specsOf lists the specs of the only run, with their outcomes.
func specsOf(t *testing.T, s *server) map[string]string {
	t.Helper()
	became := map[string]string{}
	for _, spec := range s.theRun().Specs {
		switch {
		case spec.Results == nil:
			became[spec.Spec] = "nothing"
		case spec.Results.Exception != nil:
			became[spec.Spec] = *spec.Results.Exception
		default:
			became[spec.Spec] = "ran"
		}
	}
	return became
}

func names(m map[string]string) (list []string) {
	for name := range m {
		list = append(list, name)
	}
	slices.Sort(list)
	return list
}

// patience is for a browser on a machine that does other things, too.
const patience = 8 * time.Minute

const passes = "it('passes', () => { expect(1).to.equal(1) })\n"

const quick = "supportFile: false, video: false, screenshotOnRunFailure: false"

// TestRealCypressAsWithoutRunbell: counts, exit code and handlers of the project are
// those of 'cypress run', and each spec is reported before the next one begins.
func TestRealCypressAsWithoutRunbell(t *testing.T) {
	p := realCypress(t, map[string]string{
		"cypress.config.js": `const fs = require('fs')
module.exports = { retries: 1, e2e: { ` + quick + `, setupNodeEvents (on) {
  for (const event of ['before:run', 'before:spec', 'after:spec', 'after:run']) on(event, () => fs.appendFileSync(__dirname + '/events.txt', event + '\n'))
} } }
`,
		"cypress/e2e/a.cy.js": passes,
		"cypress/e2e/b.cy.js": "describe('b', () => { it('fails', () => { expect('blue').to.equal('green') }); it('passes', () => {}); it.skip('is pending', () => {}) })\n",
		"cypress/e2e/c.cy.js": "let n = 0\nit('is flaky', () => { expect(++n).to.equal(2) })\n",
		"cypress/e2e/d.cy.js": "describe('d', () => { before(() => { throw new Error('the hook broke') }); it('fails', () => {}); it('is skipped', () => {}) })\n",
		"cypress/e2e/e.cy.js": "import './nowhere'\n",
	})
	s := newServer(t)
	key := s.project("shop", nil)
	plain, _ := p.plain(t)
	theirs, err := os.ReadFile(filepath.Join(p.dir, "events.txt"))
	if err != nil {
		t.Fatal(err)
	}
	p.remove(t, "events.txt")
	m := p.record(t, s.url, key)
	code, out := m.waitFor(t, patience)
	if code != plain || code != 3 {
		t.Errorf("exit code %d; 'cypress run' has %d", code, plain)
	}
	if events, _ := os.ReadFile(filepath.Join(p.dir, "events.txt")); string(events) != string(theirs) {
		t.Errorf("handlers of the project ran as\n%s\nand without us as\n%s", events, theirs)
	}
	run := s.theRun()
	if want := (counts{Overall: 8, Passes: 3, Failures: 3, Pending: 1, Skipped: 1, Retries: 2, Flaky: 1}); run.tests() != want {
		t.Errorf("counts %+v, want %+v", run.tests(), want)
	}
	if n := strings.Count(out, "(Run Starting)"); n != 1 {
		t.Errorf("Cypress started %d times", n)
	}
	for _, want := range []string{"Spec 5 of 5: cypress/e2e/e.cy.js. So far: 3 passed, 2 failed", "3 tests failed. Exit code 3, like Cypress. Run: http", "cypress/e2e/b.cy.js: b › fails"} {
		if !strings.Contains(out, want) {
			t.Errorf("it does not say %q", want)
		}
	}
}

// signs are names of specs that are patterns, options, lists or addresses to
// somebody, each beside one that it could be taken for.
var signs = map[string]string{
	"pay+card": "pay-card", "[x]": "x", "(id)": "_id_", "{y,z}": "y", "s*r": "sr", "@at": "-at", "-lead": "_lead", "c,om": "com", "sp ace": "sp_ace",
	"quo'te": "quo_te", `d"q`: "d_q", "$dol^": "dol", "a|b": "b", "+(more)": "more", "@(one)": "one", "ünï cöde": "uni",
}

// Cypress chooses these, and cannot run them: to its bundler "!", "?" and "[id]"
// mean something, and its browser does not open a "#" or a "%".
var broken = map[string]string{"neg!": "neg", "#ha%sh": "hash", "%41": "A", "!(neg)": "pos", "q?x": "qax", "[id]": "i"}

// TestRealCypressExactlyTheChosen: whatever signs are in a name, that file runs,
// and no other.
func TestRealCypressExactlyTheChosen(t *testing.T) {
	files := map[string]string{"cypress.config.js": "module.exports = { e2e: { " + quick + " } }\n"}
	var want, args []string
	for name, other := range signs {
		name, other = "cypress/e2e/"+name+".cy.js", "cypress/e2e/"+other+".cy.js"
		files[name] = fmt.Sprintf("it(%q, () => {})\n", name)
		files[other] = "it('must not run', () => { throw new Error('must not run') })\n"
		want, args = append(want, name), append(args, "--spec", name)
	}
	slices.Sort(want)
	p := realCypress(t, files)
	s := newServer(t)
	code, out := p.record(t, s.url, s.project("shop", nil), args...).waitFor(t, patience)
	became := specsOf(t, s)
	if code != 0 || !slices.Equal(names(became), want) || strings.Count(out, "Running:") != len(want) {
		t.Errorf("exit code %d, ran %q, want %q", code, names(became), want)
	}
	for name, what := range became {
		if what != "ran" {
			t.Errorf("%s: %s", name, what)
		}
	}
	if run := s.theRun(); run.tests() != (counts{Overall: len(want), Passes: len(want)}) {
		t.Errorf("counts %+v", run.tests())
	}
}

// TestRealCypressChooses: the list of a run that machines share is what Cypress
// itself would run, whatever form the patterns have. Its browser does not start: a
// handler of the project writes the list down, and refuses to go on.
func TestRealCypressChooses(t *testing.T) {
	const stop = `, setupNodeEvents (on, config) { on('before:run', ({ specs }) => {
  require('fs').writeFileSync(__dirname + '/list.json', JSON.stringify(specs.map((s) => s.relative).sort())); throw new Error('that is all') }) } } }
`
	odd := map[string]string{}
	for name, other := range broken {
		odd["cypress/e2e/"+name+".cy.js"], odd["cypress/e2e/"+other+".cy.js"] = passes, passes
	}
	for name, c := range map[string]struct {
		config string
		env    []string
		files  []string
		args   []string
	}{
		"several patterns": {config: "specPattern: ['cypress/e2e/**/*.cy.js', '!cypress/e2e/deep/c.cy.js', 'tests'], excludeSpecPattern: 'b.cy.js'",
			files: []string{"cypress/e2e/a.cy.js", "cypress/e2e/b.cy.js", "cypress/e2e/deep/c.cy.js", "cypress/e2e/.hidden.cy.js", "tests/x.js", "node_modules_/y.cy.js", "b.cy.js"}},
		"above the project, and a list in a variable": {env: []string{`CYPRESS_specPattern=["../../e2e/**/*.js","cypress/e2e/a*"]`},
			files: []string{"../../e2e/deep/x.js", "cypress/e2e/a.cy.js", "cypress/e2e/b.cy.js"}},
		"extended globs": {config: "specPattern: 'cypress/e2e/!(a|b).cy.js'",
			files: []string{"cypress/e2e/a.cy.js", "cypress/e2e/b.cy.js", "cypress/e2e/ab.cy.js", "cypress/e2e/c.cy.js"}},
		"names that Cypress cannot run": {files: names(odd), args: []string{"--spec", "cypress/e2e/neg!.cy.js,cypress/e2e/#ha%sh.cy.js,cypress/e2e/%41.cy.js,cypress/e2e/q?x.cy.js,cypress/e2e/[id].cy.js", "--spec", "cypress/e2e/!(neg).cy.js"}},
	} {
		t.Run(name, func(t *testing.T) {
			config := quick
			if c.config != "" {
				config += ", " + c.config
			}
			files := map[string]string{"cypress.config.js": "module.exports = { e2e: { " + config + stop}
			for _, f := range c.files {
				files[f] = passes
			}
			p := realCypress(t, files)
			inner := filepath.Join(p.dir, "in/side") // so that there is something above it in the test's own directory
			if strings.HasPrefix(name, "above") {
				p.write(t, "in/side/x", "")
				p.env = append(p.env, c.env...)
				for name, text := range files {
					p.write(t, filepath.Join("in/side", name), text)
				}
				p.link(t, filepath.Join(p.dir, "node_modules"), "in/side/node_modules")
				p.dir = inner
			}
			p.env = append(p.env, c.env...)
			list := func() (specs []string) {
				b, err := os.ReadFile(filepath.Join(p.dir, "list.json"))
				if err != nil {
					t.Fatal(err)
				}
				if err := json.Unmarshal(b, &specs); err != nil {
					t.Fatal(err)
				}
				p.remove(t, "list.json")
				return specs
			}
			want := []string{"cypress/e2e/!(neg).cy.js", "cypress/e2e/#ha%sh.cy.js", "cypress/e2e/%41.cy.js", "cypress/e2e/[id].cy.js", "cypress/e2e/neg!.cy.js", "cypress/e2e/q?x.cy.js"}
			if c.args == nil {
				p.plain(t)
				want = list()
			}
			s := newServer(t)
			m := p.record(t, s.url, s.project("shop", nil), append(c.args, "--parallel", "--batch", "100", "--ci-build-id", "b")...)
			m.waitFor(t, patience)
			if got := list(); !slices.Equal(got, want) || len(want) == 0 {
				t.Errorf("Cypress would run %q with us, and %q without", got, want)
			}
			if got := names(specsOf(t, s)); !slices.Equal(got, want) {
				t.Errorf("the run has %q, want %q", got, want)
			}
		})
	}
}

// TestRealCypressPlugins: the list of a run is what Cypress would run after the
// real plugins that choose specs, on one machine and on machines that share.
func TestRealCypressPlugins(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		env   []string
		args  []string
		specs []string
		want  counts
	}{
		"@cypress/grep": {files: map[string]string{
			"cypress.config.js":        "module.exports = { e2e: { video: false, env: { grepTags: '@smoke', grepFilterSpecs: true, grepOmitFiltered: true }, setupNodeEvents (on, config) { require('@cypress/grep/src/plugin')(config); return config } } }\n",
			"cypress/support/e2e.js":   "require('@cypress/grep')()\n",
			"cypress/e2e/a.cy.js":      "it('is smoke', { tags: '@smoke' }, () => {})\nit('is not', () => { throw new Error('filtered') })\n",
			"cypress/e2e/b.cy.js":      "it('is not either', () => { throw new Error('filtered') })\n",
			"cypress/e2e/c[1]/c.cy.js": "it('is not smoke', () => { throw new Error('filtered') })\n",
		}, specs: []string{"cypress/e2e/a.cy.js"}, want: counts{Overall: 1, Passes: 1}},
		"cypress-split": {files: map[string]string{
			"cypress.config.js":   "module.exports = { e2e: { " + quick + ", setupNodeEvents (on, config) { require('cypress-split')(on, config); return config } } }\n",
			"cypress/e2e/a.cy.js": passes, "cypress/e2e/b.cy.js": passes, "cypress/e2e/c.cy.js": passes, "cypress/e2e/d.cy.js": passes,
		}, env: []string{"SPLIT=2", "SPLIT_INDEX=0"}, args: []string{"--parallel", "--batch", "1"}, specs: []string{"cypress/e2e/a.cy.js", "cypress/e2e/b.cy.js"}, want: counts{Overall: 2, Passes: 2}},
		"cucumber": {files: map[string]string{
			"cypress.config.js": `const { addCucumberPreprocessorPlugin } = require('@badeball/cypress-cucumber-preprocessor')
const { createEsbuildPlugin } = require('@badeball/cypress-cucumber-preprocessor/esbuild')
const bundler = require('@bahmutov/cypress-esbuild-preprocessor')
module.exports = { e2e: { ` + quick + `, specPattern: 'cypress/e2e/*.feature', env: { tags: '@smoke', filterSpecs: true, omitFiltered: true }, async setupNodeEvents (on, config) {
  await addCucumberPreprocessorPlugin(on, config)
  on('file:preprocessor', bundler({ plugins: [createEsbuildPlugin(config)] }))
  return config
} } }
`,
			"cypress/support/step_definitions/steps.js": "const { Then } = require('@badeball/cypress-cucumber-preprocessor')\nThen('it works', () => {})\nThen('it breaks', () => { throw new Error('filtered') })\n",
			"cypress/e2e/a.feature":                     "Feature: a\n  @smoke\n  Scenario: smoke\n    Then it works\n  Scenario: other\n    Then it breaks\n",
			"cypress/e2e/b.feature":                     "Feature: b\n  Scenario: other\n    Then it breaks\n",
			"package.json":                              `{"cypress-cucumber-preprocessor":{"messages":{"enabled":false}}}`,
		}, args: []string{"--parallel"}, specs: []string{"cypress/e2e/a.feature"}, want: counts{Overall: 1, Passes: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			p := realCypress(t, c.files)
			p.env = append(p.env, c.env...)
			s := newServer(t)
			code, out := p.record(t, s.url, s.project("shop", nil), append(c.args, "--ci-build-id", "b")...).waitFor(t, patience)
			if code != 0 {
				t.Errorf("exit code %d\n%s", code, out)
			}
			if got := specsOf(t, s); !slices.Equal(names(got), c.specs) {
				t.Errorf("the run has %q, want %q", names(got), c.specs)
			}
			if run := s.theRun(); run.tests() != c.want || run.Status != "PASSED" {
				t.Errorf("%s, %+v; want %+v", run.Status, run.tests(), c.want)
			}
		})
	}
}

// TestRealCypressNothingToRun: a spec without tests, and one that is gone when its
// turn comes, are no failures.
func TestRealCypressNothingToRun(t *testing.T) {
	p := realCypress(t, map[string]string{
		"cypress.config.js":   "module.exports = { e2e: { " + quick + ", setupNodeEvents (on) { on('task', { remove (name) { require('fs').unlinkSync(__dirname + name); return null } }) } } }\n",
		"cypress/e2e/a.cy.js": "describe('later', () => {})\n",
		"cypress/e2e/b.cy.js": "it('removes c', () => { cy.task('remove', '/cypress/e2e/c.cy.js') })\n",
		"cypress/e2e/c.cy.js": passes,
	})
	s := newServer(t)
	code, out := p.record(t, s.url, s.project("shop", nil), "--batch", "2").waitFor(t, patience)
	plain, _ := p.plain(t, "--spec", "cypress/e2e/a.cy.js")
	if code != plain || code != 0 || !strings.Contains(out, "Cypress finds nothing to run in cypress/e2e/c.cy.js.") {
		t.Errorf("exit code %d; 'cypress run' has %d\n%s", code, plain, out)
	}
	if run := s.theRun(); run.tests() != (counts{Overall: 1, Passes: 1}) || run.Status != "PASSED" || run.CompletionState != "COMPLETE" {
		t.Errorf("%s, %s, %+v", run.Status, run.CompletionState, run.tests())
	}
	if became := specsOf(t, s); became["cypress/e2e/a.cy.js"] != "ran" || became["cypress/e2e/c.cy.js"] != "ran" {
		t.Errorf("the specs became %v", became)
	}
}

// TestRealCypressReadsTheConfiguration: Cypress does, in every form; where it
// cannot, the exit code is its own, the line is named, and no run is made.
func TestRealCypressReadsTheConfiguration(t *testing.T) {
	specs := map[string]string{"wanted.txt": "tests/*.js\n", "cypress/e2e/not-this.cy.js": passes, "tests/this.js": passes}
	with := func(t *testing.T, files map[string]string) cypressProject {
		p := realCypress(t, specs)
		for name, text := range files {
			p.write(t, name, text)
		}
		return p
	}
	for name, files := range map[string]map[string]string{
		"an ES module": {"cypress.config.mjs": `import { readFileSync } from 'fs'
const specPattern = readFileSync(new URL('./wanted.txt', import.meta.url), 'utf8').trim()
export default { e2e: { ` + quick + `, specPattern } }
`},
		"TypeScript": {"tsconfig.json": `{"compilerOptions":{"baseUrl":".","esModuleInterop":true,"paths":{"@lib/*":["lib/*"]}}}`, "lib/wanted.ts": "export const wanted: string = 'wanted.txt'\n",
			"cypress.config.ts": `import fs from 'fs'
import { wanted } from '@lib/wanted'
const specPattern: string = fs.readFileSync(wanted, 'utf8').trim()
export default { e2e: { ` + quick + `, specPattern } }
`},
	} {
		t.Run(name, func(t *testing.T) {
			p := with(t, files)
			s := newServer(t)
			code, out := p.record(t, s.url, s.project("shop", nil)).waitFor(t, patience)
			if got := names(specsOf(t, s)); code != 0 || !slices.Equal(got, []string{"tests/this.js"}) {
				t.Errorf("exit code %d, %q\n%s", code, got, out)
			}
		})
	}
	t.Run("none that it can read", func(t *testing.T) {
		p := with(t, map[string]string{"cypress.config.ts": `import { readFileSync } from 'fs'
const specPattern: string = await Promise.resolve(readFileSync(new URL('./wanted.txt', import.meta.url), 'utf8').trim())
export default { e2e: { supportFile: false, specPattern } }
`})
		s := newServer(t)
		code, out := p.record(t, s.url, s.project("shop", nil)).waitFor(t, patience)
		if code != 1 || !strings.Contains(out, "Line 2 of cypress.config.ts") || !strings.Contains(out, "Cypress did not start") {
			t.Errorf("exit code %d\n%s", code, out)
		}
		if n := len(s.runs()); n != 0 {
			t.Errorf("%d runs were made of nothing", n)
		}
	})
}

// TestRealCypressCrashes: a crash costs the spec that crashed; what ran before is
// kept, and what comes after runs in another start.
func TestRealCypressCrashes(t *testing.T) {
	p := realCypress(t, map[string]string{
		"cypress.config.js":   "module.exports = { e2e: { " + quick + ", setupNodeEvents (on) { on('task', { crash () { process.kill(process.ppid, 'SIGKILL'); return null } }) } } }\n",
		"cypress/e2e/a.cy.js": passes, "cypress/e2e/b.cy.js": "it('crashes', () => { cy.task('crash') })\n", "cypress/e2e/c.cy.js": passes, "cypress/e2e/d.cy.js": passes,
	})
	s := newServer(t)
	code, out := p.record(t, s.url, s.project("shop", nil)).waitFor(t, patience)
	if code != 1 || strings.Count(out, "(Run Starting)") != 2 {
		t.Errorf("exit code %d\n%s", code, out)
	}
	if run := s.theRun(); run.tests() != (counts{Overall: 4, Passes: 3, Failures: 1}) || run.CompletionState != "COMPLETE" {
		t.Errorf("%s, %+v", run.CompletionState, run.tests())
	}
	lines := bufio.NewScanner(strings.NewReader(out))
	var began []string
	for lines.Scan() {
		if _, spec, ok := strings.Cut(lines.Text(), "runbell: Spec "); ok {
			began = append(began, spec[:6])
		}
	}
	if want := []string{"1 of 4", "2 of 4", "3 of 4", "4 of 4"}; !slices.Equal(began, want) {
		t.Errorf("specs began as %q, want %q", began, want)
	}
}
