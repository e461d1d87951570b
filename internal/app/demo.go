package app

import (
	"bytes"
	"context"
	"crypto/rand"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"runbell/internal/client"
	"runbell/internal/config"
	"runbell/internal/replay"
	"runbell/internal/server"
	"runbell/internal/webhook"
)

// demoRun is the traffic of cypress-cloud 1.13 with five specs: one passes, one
// fails, one is flaky, one has a pending and a skipped test, one does not
// compile. See package replay for how it is played. Where attempts begin in the video was
// changed to fit the videos of demoFiles.
//
//go:embed demodata/run.json
var demoRun []byte

type demoCmd struct {
	History bool `help:"First add a month of made-up runs in several projects, and webhooks whose receivers fail, so that every page has data."`
	Exit    bool `help:"End after the runs; exit with 0 only if every expected webhook arrived once, with a valid signature."`
	Port    int  `help:"Port of the server. Default: a free one." placeholder:"N"`
}

func (demoCmd) Help() string {
	return `Starts a temporary server and a webhook receiver that only this machine can reach. Replays a recorded run of
two machines, cancels a second run, and lets a third one time out. Prints each webhook as it arrives. The server then
keeps running until Ctrl-C, so that you can look around. Nothing is kept.

Examples:

    runbell demo
    runbell demo --history
    runbell demo --exit`
}

const (
	demoProject  = "demo"
	demoReceiver = "demo receiver" // the label of the webhook whose requests are printed
	demoMachines = 2
	// demoPace makes the recorded third of a second per spec watchable.
	demoPace = 5
	// demoPatience is how long the last webhook of a run may take.
	demoPatience = 10 * time.Second
)

// demo is a running demo.
type demo struct {
	out, err  io.Writer
	look      style
	api       *client.Client
	url       string
	recording *replay.Recording
	recordKey string
	toDisable []string // webhooks, see moreHooks
	// Where the receivers listen: of the webhook whose requests are printed, and of demoHooks.
	receiver, hooks string

	mu      sync.Mutex
	runs    []demoOutcome
	got     []received
	arrived chan struct{} // a webhook has been added to got
}

// demoOutcome is a run and the webhooks it must have caused.
type demoOutcome struct {
	build  string
	url    string
	events []webhook.Kind
}

// Run runs the demo.
func (c *demoCmd) Run(ctx context.Context, s *streams, env *environment, version versionText) (err error) {
	if c.Port < 0 || c.Port > 65535 {
		return usagef("--port must be 0 to 65535")
	}
	recording, err := replay.Load(bytes.NewReader(demoRun))
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "runbell-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	// The server outlives an interrupted play, to be stopped in order.
	serverCtx, stopServer := context.WithCancel(context.WithoutCancel(ctx))
	defer stopServer()
	cfg, err := demoConfig(dir, c.Port)
	if err != nil {
		return err
	}
	if c.History {
		began := time.Now()
		if err := writeHistory(ctx, cfg, began); err != nil {
			return err
		}
		fmt.Fprintf(s.Out, "History   %d days of runs, made up in %s\n", historyDays, duration(time.Since(began)))
	}
	srv, err := server.Start(serverCtx, cfg, string(version), cfg.Logger(s.Err))
	if err != nil {
		return busyPort(err, "--port")
	}
	defer func() {
		stopServer()
		err = errors.Join(err, srv.Wait())
	}()

	api, err := client.New(srv.URL(), cfg.APIKey)
	if err != nil {
		return err
	}
	d := &demo{out: s.Out, err: s.Err, look: styleFor(s.Out, env), api: api, url: srv.URL(), recording: recording,
		arrived: make(chan struct{}, 1), receiver: "127.0.0.1:0", hooks: "127.0.0.1:0"}
	stopReceiver, err := d.prepare(ctx)
	if err != nil {
		return err
	}
	defer stopReceiver()
	if c.History {
		stopHooks, err := d.moreHooks(ctx)
		if err != nil {
			return err
		}
		defer stopHooks()
	}
	return c.show(ctx, d, cfg)
}

// show replays the recording, prints the result, and keeps the server running
// until ctx ends.
func (c *demoCmd) show(ctx context.Context, d *demo, cfg config.Serve) error {
	if err := errors.Join(d.play(ctx), d.disableHooks(ctx)); err != nil {
		switch {
		case ctx.Err() == nil:
			return err
		case c.Exit:
			return errors.New("interrupted before all webhooks had arrived")
		default:
			return nil // the person watching has seen enough
		}
	}
	problem := d.summarize()
	if c.Exit {
		return problem
	}
	if problem != nil {
		fmt.Fprintln(d.out, d.look.red(problem.Error()))
	}
	d.invite(cfg)
	<-ctx.Done()
	return nil
}

// demoConfig is for a server that only this machine can reach.
func demoConfig(dir string, port int) (config.Serve, error) {
	if port == 0 {
		// The URL must be known before the server listens, so the port is
		// chosen here and given back; nobody else takes it in a moment.
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return config.Serve{}, err
		}
		port = l.Addr().(*net.TCPAddr).Port
		if err := l.Close(); err != nil {
			return config.Serve{}, err
		}
	}
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	return config.Serve{
		Storage:        config.Storage{ArtifactMax: 64 << 20},
		Database:       config.Database{DataDir: dir},
		Addr:           addr,
		PublicURL:      "http://" + addr,
		APIKey:         "demo-" + rand.Text(),
		AdminEmail:     "demo@example.com",
		AdminPassword:  "demo-" + strings.ToLower(rand.Text()[:10]),
		Recording:      "keys",
		WebhookAllow:   "127.0.0.0/8",
		WebhookTimeout: 10 * time.Second,
		WebhookRetries: "1s,2s,5s",
		LogLevel:       "warn", // the webhooks are the story
		LogFormat:      "text",
	}, nil
}

// prepare creates the project and its webhook as anyone would, through the
// API, and starts the receiver.
func (d *demo) prepare(ctx context.Context) (stop func(), err error) {
	name, delay, public := "Demo", int64(0), true
	p, err := d.api.CreateProject(ctx,
		client.ProjectSettings{ProjectID: demoProject, Name: &name, CompletionDelaySeconds: &delay, PublicRunLinks: &public})
	if err != nil {
		return nil, err
	}
	d.recordKey = p.Value.RecordKey

	listener, err := net.Listen("tcp", d.receiver)
	if err != nil {
		return nil, err
	}
	target := fmt.Sprintf("http://%s/hooks/runbell", listener.Addr())
	h, err := d.api.CreateWebhook(ctx, demoProject, client.WebhookSettings{URL: &target, Label: client.Set(demoReceiver)})
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	stop, err = d.serveReceiver(ctx, listener, h.Value.HookID)
	if err == nil {
		fmt.Fprintf(d.out, "Server    %s\nReceiver  %s\n", d.look.bold(d.url), target)
	}
	return stop, err
}

// serveReceiver verifies and prints the requests of a webhook until stop is called.
func (d *demo) serveReceiver(ctx context.Context, listener net.Listener, hookID string) (stop func(), err error) {
	secret, err := d.api.WebhookSecret(ctx, hookID)
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	rc, err := newReceiver(webhook.Secret(secret.Value.Secret), "")
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	rc.seen = d.receive

	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		if err := receive(ctx, listener, rc); err != nil && !errors.Is(err, http.ErrServerClosed) {
			fmt.Fprintln(d.err, "the receiver stopped:", err)
		}
	}()
	return func() {
		cancel()
		<-stopped
	}, nil
}

// receive prints a webhook and keeps it.
func (d *demo) receive(got received) {
	d.mu.Lock()
	defer d.mu.Unlock()
	fmt.Fprintln(d.out, "  "+d.look.line(got))
	d.got = append(d.got, got)
	select {
	case d.arrived <- struct{}{}:
	default: // a waiter will look again anyway
	}
}

func (d *demo) say(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	fmt.Fprintf(d.out, format+"\n", args...)
}

// play runs the three acts.
func (d *demo) play(ctx context.Context) error {
	d.say("\n%s", d.look.bold("1. Two machines share the specs of a recorded run"))
	if err := d.finish(ctx); err != nil {
		return err
	}
	d.say("\n%s", d.look.bold("2. A run is canceled"))
	if err := d.cancel(ctx); err != nil {
		return err
	}
	d.say("\n%s", d.look.bold("3. A machine stops reporting; the project's inactivity timeout is set to 1 s"))
	return d.timeOut(ctx)
}

// join takes a machine into the run of a build.
func (d *demo) join(ctx context.Context, build string,
	ran func(*replay.Machine, replay.Spec)) (*replay.Machine, error) {
	player := replay.Player{Recording: d.recording, URL: d.url, Pace: demoPace, Ran: ran, Files: demoFile,
		Change: map[string]any{"projectId": demoProject, "recordKey": d.recordKey, "ciBuildId": build}}
	return player.Join(ctx)
}

func (d *demo) finish(ctx context.Context) error {
	const build = "demo-1"
	runURL := ""
	failed := make(chan error, demoMachines)
	for n := range demoMachines {
		m, err := d.join(ctx, build, func(_ *replay.Machine, s replay.Spec) {
			d.say("  %s", d.look.faint(fmt.Sprintf("machine %d ran %s", n+1, s.Name)))
		})
		if err != nil {
			return err
		}
		runURL = m.RunURL
		go func() { failed <- m.Run(ctx) }()
	}
	var problems error
	for range demoMachines {
		problems = errors.Join(problems, <-failed)
	}
	if problems != nil {
		return problems
	}
	return d.expect(ctx, demoOutcome{build, runURL, []webhook.Kind{webhook.RunStart, webhook.RunFinish}})
}

func (d *demo) cancel(ctx context.Context) error {
	const build = "demo-2"
	m, err := d.join(ctx, build, nil)
	if err != nil {
		return err
	}
	specs, err := m.Claim(ctx)
	if err != nil {
		return err
	}
	for _, spec := range specs {
		if err := m.Report(ctx, spec); err != nil {
			return err
		}
	}
	if _, err := d.api.CancelRun(ctx, m.RunID, "canceled by the demo"); err != nil {
		return err
	}
	// What the machine is told is the other half of a cancellation.
	refusal, refused := errors.AsType[*replay.StatusError](second(m.Claim(ctx)))
	if !refused {
		return errors.New("a machine got a spec of a canceled run")
	}
	d.say("  the machine asks for its next spec, and the server responds: %s", refusal.Message)
	return d.expect(ctx, demoOutcome{build, m.RunURL, []webhook.Kind{webhook.RunStart, webhook.RunCanceled}})
}

func second[T any](_ T, err error) error { return err }

func (d *demo) timeOut(ctx context.Context) error {
	const build = "demo-3"
	if err := d.setTimeout(ctx, time.Second); err != nil {
		return err
	}
	m, err := d.join(ctx, build, nil)
	if err != nil {
		return err
	}
	if _, err := m.Claim(ctx); err != nil {
		if _, refused := errors.AsType[*replay.StatusError](err); !refused {
			return err
		}
		// On a slow machine the second is over already.
	}
	// A run keeps the timeout it started with; others should not get this one.
	if err := d.setTimeout(ctx, 30*time.Minute); err != nil {
		return err
	}
	return d.expect(ctx, demoOutcome{build, m.RunURL, []webhook.Kind{webhook.RunStart, webhook.RunTimeout}})
}

func (d *demo) setTimeout(ctx context.Context, timeout time.Duration) error {
	seconds := int64(timeout / time.Second)
	_, err := d.api.UpdateProject(ctx, demoProject, client.ProjectSettings{InactivityTimeoutSeconds: &seconds})
	return err
}

// expect waits until the webhooks of a run have arrived. That they have not is
// for the summary to say.
func (d *demo) expect(ctx context.Context, o demoOutcome) error {
	d.mu.Lock()
	d.runs = append(d.runs, o)
	d.mu.Unlock()
	patience := time.NewTimer(demoPatience)
	defer patience.Stop()
	for d.missing(o) {
		select {
		case <-d.arrived:
		case <-patience.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (d *demo) missing(o demoOutcome) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, kind := range o.events {
		if d.count(o.build, kind) == 0 {
			return true
		}
	}
	return false
}

// count says how often an event of a build was received and accepted.
func (d *demo) count(build string, kind webhook.Kind) int {
	n := 0
	for _, got := range d.got {
		if got.Payload.BuildID == build && got.Payload.Event == kind && got.Signature == signatureOK {
			n++
		}
	}
	return n
}

// summarize says whether every expected webhook arrived once, and nothing else
// did.
func (d *demo) summarize() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	expected, once := 0, 0
	var problems []error
	for _, o := range d.runs {
		for _, kind := range o.events {
			expected++
			switch n := d.count(o.build, kind); n {
			case 1:
				once++
			case 0:
				problems = append(problems, fmt.Errorf("%s of %s did not arrive", kind, o.build))
			default:
				problems = append(problems, fmt.Errorf("%s of %s arrived %d times", kind, o.build, n))
			}
		}
	}
	verified := 0
	for _, got := range d.got {
		if got.Signature == signatureOK {
			verified++
		}
	}
	if len(d.got) != expected || verified != expected {
		problems = append(problems, fmt.Errorf("%d requests arrived, %d of them verified; %d were expected", len(d.got),
			verified, expected))
	}
	if len(problems) > 0 {
		return fmt.Errorf("not all webhooks arrived as expected: %w", errors.Join(problems...))
	}
	fmt.Fprintf(d.out, "\n%s %d of %d webhooks arrived, each once, each with a valid signature.\n\n", d.look.green("ok"),
		once, expected)
	for _, o := range d.runs {
		fmt.Fprintf(d.out, "  %s  %s\n", o.build, o.url)
	}
	return nil
}

// invite prints what to do with a server that keeps running.
func (d *demo) invite(cfg config.Serve) {
	d.say(`
The server stays up until Ctrl-C. The pages above are open; for the rest of the dashboard,
sign in at %s as %s with the password %s.

In another terminal:

    export RUNBELL_URL=%s RUNBELL_API_KEY=%s
    runbell run list --project %s

To record a run of your own, in the directory of a project with Cypress 10 or newer:

    RUNBELL_RECORD_KEY=%s runbell cypress run --url %s --project %s
`, d.url, cfg.AdminEmail, cfg.AdminPassword, d.url, cfg.APIKey, demoProject, d.recordKey, d.url, demoProject)
}
