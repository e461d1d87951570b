//go:build dev

package app

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/alecthomas/kong"

	"runbell/internal/client"
	"runbell/internal/replay"
	"runbell/internal/server"
)

// devCommands are those of builds for development.
func devCommands() kong.Plugins {
	return kong.Plugins{&struct {
		Dev devCmd `cmd:"" group:"try" help:"Serve data that stays: what 'make dev' runs."`
	}{}}
}

type devCmd struct{}

// Where the server and the receivers of its webhooks listen, on this machine only, and who may sign in.
const (
	devDir      = ".dev/data"
	devPort     = 8484
	devReceiver = "127.0.0.1:8485"
	devHooks    = "127.0.0.1:8486"
	devKey      = "runbell-development"
	devEmail    = "dev@example.com"
	devPassword = "development"
)

// Run serves until ctx ends. The first time it makes up data, as the demo with a history does.
func (c *devCmd) Run(ctx context.Context, s *streams, env *environment, version versionText) (err error) {
	recording, err := replay.Load(bytes.NewReader(demoRun))
	if err != nil {
		return err
	}
	cfg, err := demoConfig(devDir, devPort)
	if err != nil {
		return err
	}
	cfg.APIKey, cfg.AdminEmail, cfg.AdminPassword, cfg.LogLevel = devKey, devEmail, devPassword, "info"
	ready := filepath.Join(devDir, "ready") // there if all the data is
	_, err = os.Stat(ready)
	fresh := errors.Is(err, fs.ErrNotExist)
	if fresh {
		if err := errors.Join(os.RemoveAll(devDir), os.MkdirAll(devDir, 0o700)); err != nil {
			return err
		}
		if err := writeHistory(ctx, cfg, time.Now()); err != nil {
			return err
		}
	}
	serverCtx, stopServer := context.WithCancel(context.WithoutCancel(ctx))
	defer stopServer()
	srv, err := server.Start(serverCtx, cfg, string(version), cfg.Logger(s.Err))
	if err != nil {
		return err
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
		arrived: make(chan struct{}, 1), receiver: devReceiver, hooks: devHooks}
	open := d.reopen
	if fresh {
		open = d.fill
	}
	stop, err := open(ctx)
	defer stop()
	if err != nil {
		return err
	}
	if fresh {
		if err := os.WriteFile(ready, nil, 0o600); err != nil {
			return err
		}
	}
	d.say("\n%s  sign in as %s with the password %s; the API key is %s\n", d.look.bold(d.url), devEmail, devPassword,
		devKey)
	<-ctx.Done()
	return nil
}

// fill makes projects, webhooks and runs, and serves the receivers until stop is called.
func (d *demo) fill(ctx context.Context) (stop func(), err error) {
	stop = func() {}
	stopReceiver, err := d.prepare(ctx)
	if err != nil {
		return stop, err
	}
	stopHooks, err := d.moreHooks(ctx)
	if err != nil {
		return stopReceiver, err
	}
	stop = func() { stopHooks(); stopReceiver() }
	return stop, errors.Join(d.play(ctx), d.disableHooks(ctx))
}

// reopen serves the receivers of the webhooks that are there until stop is called.
func (d *demo) reopen(ctx context.Context) (stop func(), err error) {
	stop = func() {}
	hooks, err := d.api.Webhooks(ctx, demoProject)
	if err != nil {
		return stop, err
	}
	at := slices.IndexFunc(hooks.Value, func(h client.Webhook) bool { return orEmpty(h.Label) == demoReceiver })
	if at < 0 {
		return stop, fmt.Errorf("the project %s no longer has a webhook %q: remove %s to start over", demoProject,
			demoReceiver, devDir)
	}
	listener, err := net.Listen("tcp", d.receiver)
	if err != nil {
		return stop, err
	}
	stopReceiver, err := d.serveReceiver(ctx, listener, hooks.Value[at].HookID)
	if err != nil {
		return stop, err
	}
	_, stopHooks, err := d.serveHooks()
	if err != nil {
		return stopReceiver, err
	}
	return func() { stopHooks(); stopReceiver() }, nil
}
