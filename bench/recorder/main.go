// Command recorder measures what 'runbell cypress run' adds to a Cypress run:
// time per spec beside plain 'cypress run', memory, and how four machines share
// 40 specs. Cypress is its real npm package; in place of the browser binary is
// the stand-in of the tests, so that what is measured is not lost in what a
// browser takes. With -real it is the real binary, which shows how much of a
// whole run the recorder is.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

func main() {
	major := flag.String("cypress", "13", "the major of Cypress: 10, 12, 13, 14 or 15")
	specs := flag.Int("specs", 20, "how many specs are run, one after another")
	rounds := flag.Int("rounds", 3, "how often; the median counts")
	real := flag.Bool("real", false,
		"run the real Cypress of e2e/cypress, installed by scripts/cypress, and compare whole runs only")
	flag.Parse()
	run := func() error { return measure(*major, *specs, *rounds) }
	if *real {
		run = func() error { return measureReal(*specs, *rounds) }
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "recorder:", err)
		os.Exit(1)
	}
}

// bench is a server and a Cypress project without specs.
type bench struct {
	dir, binary, url, project string
	env                       []string
	builds                    int
}

func measure(major string, specs, rounds int) error {
	b, stop, err := newBench(major)
	if err != nil {
		return err
	}
	defer stop()
	if err := b.overhead(specs, rounds); err != nil {
		return err
	}
	if err := b.memory(); err != nil {
		return err
	}
	return b.packing()
}

// measureReal compares whole runs of the real Cypress, without and with the
// recorder.
func measureReal(n, rounds int) error {
	b, stop, err := newBench("")
	if err != nil {
		return err
	}
	defer stop()
	texts := map[string]string{}
	for i := range n {
		texts[fmt.Sprintf("spec-%03d.cy.js",
			i)] = `describe('a page', () => { for (let i = 0; i < 6; i++) it('test ' + i, () => {
  cy.document().then((doc) => { doc.body.innerHTML = '<button>' + i + '</button><p></p>'; doc.querySelector('button').onclick = () => { doc.querySelector('p').textContent = 'clicked' } })
  cy.get('button').should('contain', i).click()
  cy.contains('clicked').should('be.visible')
  cy.wait(250)
}) })
`
	}
	if err := b.specs(texts); err != nil {
		return err
	}
	ways := []*way{
		{name: "'cypress run'", run: func() (time.Duration, error) {
			took, _, err := b.command("node", filepath.Join(b.project, "node_modules/cypress/bin/cypress"), "run")
			return took, err
		}},
		{name: "runbell cypress run", run: func() (time.Duration, error) { took, _, err := b.record(); return took, err }},
		{name: "runbell cypress run --batch 1",
			run: func() (time.Duration, error) { took, _, err := b.record("--batch", "1"); return took, err }},
	}
	if err := inTurns(ways, rounds); err != nil {
		return err
	}
	fmt.Printf("%d specs of 6 tests, real Cypress, %d rounds, median:\n", n, rounds)
	for _, w := range ways {
		fmt.Printf("  %-42s %8.1f s, %.2f of the first line\n", w.name, w.median().Seconds(),
			w.median().Seconds()/ways[0].median().Seconds())
	}
	return nil
}

// way is a way to run the same specs.
type way struct {
	name string
	run  func() (time.Duration, error)
	took []time.Duration
}

func (w *way) median() time.Duration {
	sorted := slices.Sorted(slices.Values(w.took))
	return sorted[len(sorted)/2]
}

// inTurns runs each way as often as there are rounds, so that all see the same
// machine.
func inTurns(ways []*way, rounds int) error {
	for range rounds {
		for _, w := range ways {
			took, err := w.run()
			if err != nil {
				return err
			}
			w.took = append(w.took, took)
		}
	}
	return nil
}

func newBench(major string) (b *bench, stop func(), err error) {
	dir, err := os.MkdirTemp("", "runbell-bench-")
	if err != nil {
		return nil, nil, err
	}
	stop = func() { _ = os.RemoveAll(dir) }
	defer func() {
		if err != nil {
			stop()
		}
	}()
	b = &bench{dir: dir, binary: filepath.Join(dir, "runbell"), project: filepath.Join(dir, "project")}
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", b.binary, "./cmd/runbell")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, nil, fmt.Errorf("build: %w\n%s", err, out)
	}
	install := func() error { return b.install(major) }
	if major == "" {
		install = b.installReal
	}
	if err := install(); err != nil {
		return nil, nil, err
	}
	server, err := b.serve()
	if err != nil {
		return nil, nil, err
	}
	return b, func() {
		_ = server.Process.Kill()
		_ = server.Wait()
		_ = os.RemoveAll(dir)
	}, nil
}

// install makes the project, with the npm package, and puts the stand-in where
// the package looks for its binary.
func (b *bench) install(major string) error {
	name, err := filepath.Abs("e2e/recorder/node_modules/cypress-" + major)
	if err != nil {
		return err
	}
	manifest, err := os.ReadFile(filepath.Join(name, "package.json"))
	if err != nil {
		return fmt.Errorf("the packages of Cypress are not installed, run scripts/setup: %w", err)
	}
	var of struct{ Version string }
	if err := json.Unmarshal(manifest, &of); err != nil {
		return err
	}
	standin, err := filepath.Abs("e2e/client/standin/Cypress")
	if err != nil {
		return err
	}
	cache := filepath.Join(b.dir, "cache")
	b.env = append(os.Environ(), "CYPRESS_CACHE_FOLDER="+cache, "RUNBELL_STANDIN_VERSION="+of.Version, "DISPLAY=:0",
		"RUNBELL_RECORD_KEY=bench", "RUNBELL_PROJECT=bench", "RUNBELL_API_KEY=")
	return errors.Join(
		write(filepath.Join(b.project, "cypress.config.js"), "module.exports = { e2e: { supportFile: false } }\n"),
		link(name, filepath.Join(b.project, "node_modules/cypress")),
		link(standin, filepath.Join(cache, of.Version, "Cypress/Cypress")),
		write(filepath.Join(cache, of.Version, "Cypress/resources/app/package.json"), `{"version":"`+of.Version+`"}`),
		write(filepath.Join(cache, of.Version, "binary_state.json"), `{"verified":true}`))
}

// installReal makes the project with the real Cypress.
func (b *bench) installReal() error {
	modules, err := filepath.Abs("e2e/cypress/node_modules")
	if err != nil {
		return err
	}
	cache := filepath.Join(modules, ".cypress-cache")
	if _, err := os.Stat(cache); err != nil {
		return fmt.Errorf("the real Cypress is not installed, run scripts/cypress: %w", err)
	}
	b.env = append(os.Environ(), "CYPRESS_CACHE_FOLDER="+cache, "RUNBELL_RECORD_KEY=bench", "RUNBELL_PROJECT=bench",
		"RUNBELL_API_KEY=")
	return errors.Join(
		write(filepath.Join(b.project, "cypress.config.js"),
			"module.exports = { e2e: { supportFile: false, video: false } }\n"),
		link(modules, filepath.Join(b.project, "node_modules")))
}

func write(path, text string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), 0o644)
}

func link(target, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.Symlink(target, path)
}

func (b *bench) serve() (*exec.Cmd, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	addr := l.Addr().String()
	_ = l.Close()
	b.url = "http://" + addr
	c := exec.Command(b.binary, "serve")
	c.Env = append(os.Environ(), "RUNBELL_ADDR="+addr, "RUNBELL_PUBLIC_URL="+b.url,
		"RUNBELL_DATA_DIR="+filepath.Join(b.dir, "data"), "RUNBELL_RECORDING=open", "RUNBELL_LOG_LEVEL=error")
	if err := c.Start(); err != nil {
		return nil, err
	}
	b.env = append(b.env, "RUNBELL_URL="+b.url)
	for range 500 {
		if resp, err := http.Get(b.url + "/readyz"); err == nil {
			_ = resp.Body.Close()
			return c, nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	_ = c.Process.Kill()
	return nil, errors.New("the server does not start")
}

// specs replaces those of the project.
func (b *bench) specs(texts map[string]string) error {
	if err := os.RemoveAll(filepath.Join(b.project, "cypress")); err != nil {
		return err
	}
	for name, text := range texts {
		if err := write(filepath.Join(b.project, "cypress/e2e", name), text); err != nil {
			return err
		}
	}
	return nil
}

// command runs a program in the project to its end. It returns how long that
// took, and the most memory that the program itself held, in kilobytes.
func (b *bench) command(name string, args ...string) (took time.Duration, memory int, err error) {
	c := exec.Command(name, args...)
	c.Dir, c.Env, c.Stdout = b.project, b.env, io.Discard
	var said strings.Builder
	c.Stderr = &said
	began := time.Now()
	if err := c.Start(); err != nil {
		return 0, 0, err
	}
	done := make(chan error, 1)
	go func() { done <- c.Wait() }()
	// What the system says at the end includes Node: ask while it runs.
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			memory = max(memory, highWater(c.Process.Pid))
		case err := <-done:
			if err != nil {
				err = fmt.Errorf("%s %s: %w\n%s", filepath.Base(name), strings.Join(args, " "), err, said.String())
			}
			return time.Since(began), memory, err
		}
	}
}

// highWater is the most memory that a process has held so far, in kilobytes; 0
// if the system does not say.
func highWater(pid int) (kb int) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	_, _ = fmt.Sscan(rest, &kb)
	return kb
}

// record records what is in the project, as a build of its own.
func (b *bench) record(args ...string) (took time.Duration, memory int, err error) {
	b.builds++
	return b.command(b.binary, append([]string{"cypress", "run", "--ci-build-id", fmt.Sprint("bench-", b.builds)},
		args...)...)
}

// overhead compares ways to run the same specs.
func (b *bench) overhead(n, rounds int) error {
	texts := map[string]string{}
	var names []string
	for i := range n {
		name := fmt.Sprintf("spec-%03d.cy.js", i)
		texts[name] = "for (let i = 0; i < 10; i++) it(`test ${i}`, () => { cy.wait(1) })\n"
		names = append(names, "cypress/e2e/"+name)
	}
	slices.Sort(names)
	if err := b.specs(texts); err != nil {
		return err
	}
	cli := filepath.Join(b.project, "node_modules/cypress/bin/cypress")
	each := func() (time.Duration, error) {
		var sum time.Duration
		for _, name := range names {
			took, _, err := b.command("node", cli, "run", "--spec", name)
			if err != nil {
				return 0, err
			}
			sum += took
		}
		return sum, nil
	}
	once := func() (time.Duration, error) {
		took, _, err := b.command("node", cli, "run", "--spec", strings.Join(names, ","))
		return took, err
	}
	// The Module API as the recorder uses it, and nothing else.
	script := "const cypress = require('cypress'); (async () => { for (const spec of process.argv.slice(1)) await " +
		"cypress.run({ spec }) })()"
	module := func() (time.Duration, error) {
		took, _, err := b.command("node", append([]string{"-e", script}, names...)...)
		return took, err
	}
	recorded := func(batch int) func() (time.Duration, error) {
		return func() (time.Duration, error) {
			var args []string
			if batch > 0 {
				args = []string{"--batch", fmt.Sprint(batch)}
			}
			took, _, err := b.record(args...)
			return took, err
		}
	}
	ways := []*way{
		{name: "'cypress run' for each spec", run: each},
		{name: "cypress.run() for each spec, in one Node", run: module},
		{name: "runbell cypress run --batch 1", run: recorded(1)},
		{name: "'cypress run' for all specs at once", run: once},
		{name: "runbell cypress run, all in one start", run: recorded(0)},
	}
	if err := inTurns(ways, rounds); err != nil {
		return err
	}
	fmt.Printf("%d specs of 10 tests, %d rounds, median:\n", n, rounds)
	for i, w := range ways {
		fmt.Printf("  %-42s %8.0f ms, %6.1f ms a spec", w.name, ms(w.median()), ms(w.median())/float64(n))
		if strings.HasPrefix(w.name, "runbell") {
			fmt.Printf(", %+.1f ms a spec beside the line above", (ms(w.median())-ms(ways[i-1].median()))/float64(n))
		}
		fmt.Println()
	}
	return nil
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// memory is the most that the process of the recorder itself held, in runs that
// are hard on it.
func (b *bench) memory() error {
	fmt.Println("memory of the recorder, at most:")
	many := map[string]string{}
	for i := range 40 {
		many[fmt.Sprintf("s%02d.cy.js", i)] = "it('passes', () => {})\n"
	}
	for _, c := range []struct {
		name  string
		specs map[string]string
	}{
		{"40 small specs", many},
		{"a spec of 2,000 tests", map[string]string{"a.cy.js": "for (let i = 0; i < 2000; i++) it(`test ${i}`, () => {})\n"}},
		{"a spec that prints 100 MB", map[string]string{"a.cy.js": "it('prints', () => { for (let i = 0; i < 100; i++) " +
			"process.stdout.write('x'.repeat(1 << 20) + '\\n') })\n"}},
	} {
		if err := b.specs(c.specs); err != nil {
			return err
		}
		_, memory, err := b.record()
		if err != nil {
			return err
		}
		fmt.Printf("  %-42s %8.1f MB\n", c.name, float64(memory)/1024)
	}
	return nil
}

// packing lets four machines share 40 specs, first without and then with a
// history.
func (b *bench) packing() error {
	texts := map[string]string{}
	var total, longest time.Duration
	for i := range 40 {
		// From one second to seventeen, most of them short, the long ones late.
		d := time.Duration(1000*math.Exp(3.4*math.Mod(float64(i)*0.618034+0.3, 1)*float64(i)/39)) * time.Millisecond
		texts[fmt.Sprintf("spec-%02d.cy.js", i)] = fmt.Sprintf("it('takes its time', () => { cy.wait(%d) })\n",
			d.Milliseconds())
		total += d
		longest = max(longest, d)
	}
	if err := b.specs(texts); err != nil {
		return err
	}
	fmt.Printf("40 specs of %.0f s in all, the longest %.1f s, four machines; no packing takes less than %.1f s, "+
		"without starting Cypress:\n",
		total.Seconds(), longest.Seconds(), max(total/4, longest).Seconds())
	for _, name := range []string{"first-come order (no history)", "the longest expected first"} {
		b.builds++
		build := fmt.Sprint("bench-", b.builds)
		began := time.Now()
		var machines sync.WaitGroup
		errs := make([]error, 4)
		for i := range errs {
			machines.Go(func() {
				_, _, errs[i] = b.command(b.binary, "cypress", "run", "--parallel", "--ci-build-id", build)
			})
		}
		machines.Wait()
		if err := errors.Join(errs...); err != nil {
			return err
		}
		fmt.Printf("  %-42s %8.1f s\n", name, time.Since(began).Seconds())
	}
	return nil
}
