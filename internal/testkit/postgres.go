// Package testkit holds what tests, benchmarks and e2e need to run against the real thing. The released binary has none
// of it.
package testkit

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"runbell/internal/store"
)

// PostgresURLVariable names the environment variable with the URL of a server to use instead of a cluster of our own.
// Its user needs the right to create databases.
const PostgresURLVariable = "RUNBELL_TEST_POSTGRES_URL"

// Postgres returns the URL of a fresh, empty PostgreSQL database that is dropped when the test ends. All tests of a
// process share one cluster, which is started by the first call and goes away with the process.
//
// Where PostgreSQL is not installed the test fails: a store that was only tested on SQLite was not tested.
func Postgres(t testing.TB) string {
	t.Helper()
	server := os.Getenv(PostgresURLVariable)
	if server == "" {
		cluster, err := sharedCluster()
		if err != nil {
			t.Fatalf("start PostgreSQL: %v", err)
		}
		server = cluster.URL()
	}
	return createDatabase(t, server, "template1")
}

// Migrated is Postgres with the schema of today in the database: a copy, because to make the schema takes longer than
// most tests do.
func Migrated(t testing.TB) string {
	t.Helper()
	if os.Getenv(PostgresURLVariable) != "" {
		return Postgres(t) // the store migrates it; on a server that stays, nothing is left behind
	}
	template, err := migratedTemplate()
	if err != nil {
		t.Fatalf("prepare PostgreSQL: %v", err)
	}
	cluster, err := sharedCluster()
	if err != nil {
		t.Fatalf("start PostgreSQL: %v", err)
	}
	return createDatabase(t, cluster.URL(), template)
}

// migratedTemplate is the database that Migrated copies. It ends with the cluster.
var migratedTemplate = sync.OnceValues(func() (string, error) {
	cluster, err := sharedCluster()
	if err != nil {
		return "", err
	}
	const name = "runbell_template"
	if err := execute(cluster.URL(), "CREATE DATABASE "+name); err != nil {
		return "", err
	}
	db, err := store.Open(context.Background(), strings.Replace(cluster.URL(), "/postgres?", "/"+name+"?", 1), nil)
	if err != nil {
		return "", err
	}
	return name, db.Close()
})

// PostgresCluster starts a cluster for this test alone, to be stopped, killed and started again, with settings such as
// "fsync=on". It is removed when the test ends.
func PostgresCluster(t testing.TB, settings ...string) *Cluster {
	t.Helper()
	c, err := newCluster(settings...)
	if err != nil {
		t.Fatalf("start PostgreSQL: %v", err)
	}
	t.Cleanup(c.close)
	return c
}

// createDatabase makes a database with a random name, a copy of template, on the server at serverURL, and returns its
// URL.
func createDatabase(t testing.TB, serverURL, template string) string {
	t.Helper()
	u, err := url.Parse(serverURL)
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" {
		t.Fatalf("%s must be a postgres:// URL", PostgresURLVariable)
	}
	name := "runbell_test_" + strings.ToLower(rand.Text())
	if err := execute(serverURL, "CREATE DATABASE "+name+" TEMPLATE "+template); err != nil {
		t.Fatalf("create a test database: %v", err)
	}
	t.Cleanup(func() {
		// FORCE: a connection the test left open is not a reason to keep the database.
		if err := execute(serverURL, "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			t.Errorf("drop the test database: %v", err)
		}
	})
	u.Path = "/" + name
	return u.String()
}

// execute runs one statement on a connection of its own.
func execute(url, sql string) error {
	// Not the test's context: that one has ended by the time of its cleanups.
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, sql)
	return err
}

// sharedCluster is the cluster behind Postgres. Nobody closes it: it ends with the process, as every cluster does.
var sharedCluster = sync.OnceValues(func() (*Cluster, error) { return newCluster() })

// Cluster is a PostgreSQL server with its data in a temporary directory. However the test process ends, kill -9
// included, the server is stopped and the directory removed. Its methods are not for concurrent use.
type Cluster struct {
	dir      string // holds everything: data/, the socket, the log
	bin      string // the directory of initdb and postgres
	port     int    // 0 until the first start; the same ever after, so that URLs stay valid
	settings []string
	runAs    *syscall.Credential
	reaper   *reaper

	server *exec.Cmd     // the last process: initdb at first, then postgres
	ended  chan struct{} // closed when server has ended
}

func newCluster(settings ...string) (*Cluster, error) {
	bin, err := postgresPrograms()
	if err != nil {
		return nil, err
	}
	runAs, err := postgresUser()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "runbell-postgres-")
	if err != nil {
		return nil, err
	}
	c := &Cluster{dir: dir, bin: bin, settings: settings, runAs: runAs}
	if c.reaper, err = startReaper(dir); err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	if err := c.initialize(); err != nil {
		c.close()
		return nil, err
	}
	if err := c.start(); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// URL is that of the maintenance database; Database makes others.
func (c *Cluster) URL() string {
	return fmt.Sprintf("postgres://postgres@127.0.0.1:%d/postgres?sslmode=disable", c.port)
}

// Database returns the URL of a fresh, empty database. The cluster must be running, here and when the test ends.
func (c *Cluster) Database(t testing.TB) string {
	t.Helper()
	return createDatabase(t, c.URL(), "template1")
}

// Start starts a cluster that was stopped or killed, on the same port with the same data, and waits until it answers.
func (c *Cluster) Start(t testing.TB) {
	t.Helper()
	if err := c.start(); err != nil {
		t.Fatalf("start PostgreSQL: %v", err)
	}
}

// Stop shuts the server down in an orderly way, ending its connections, and waits until it has ended.
func (c *Cluster) Stop(t testing.TB) {
	t.Helper()
	c.end(syscall.SIGINT)
}

// Abort ends the server at once, without tidying up (pg_ctl stop -m immediate), and waits until it has ended.
func (c *Cluster) Abort(t testing.TB) {
	t.Helper()
	c.end(syscall.SIGQUIT)
}

// Kill ends the server without a chance to tidy up (kill -9), and waits until it has ended.
func (c *Cluster) Kill(t testing.TB) {
	t.Helper()
	c.end(syscall.SIGKILL)
}

func (c *Cluster) initialize() error {
	if c.runAs != nil {
		if err := os.Chown(c.dir, int(c.runAs.Uid), int(c.runAs.Gid)); err != nil {
			return err
		}
	}
	// The C locale exists everywhere, whatever the machine's own is, and its order is that of SQLite.
	initdb := c.command("initdb", "--pgdata="+c.dataDir(), "--username=postgres", "--auth=trust", "--encoding=UTF8",
		"--locale=C", "--no-sync")
	if err := c.run(initdb); err != nil {
		return err
	}
	<-c.ended
	if !initdb.ProcessState.Success() {
		return fmt.Errorf("initdb: %v: %s", initdb.ProcessState, c.log())
	}
	return nil
}

// start starts the server and waits until it answers. It tries again when the server gives up: on another port while
// there is none yet, because the first one may be taken; on the same port later, because the memory of a killed server
// is in use until the last of its processes has noticed.
func (c *Cluster) start() error {
	deadline := time.Now().Add(30 * time.Second)
	for {
		port, err := c.port, error(nil)
		if port == 0 {
			if port, err = FreePort(); err != nil {
				return err
			}
		}
		if err = c.startOn(port); err == nil {
			c.port = port
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%w: %s", err, c.log())
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (c *Cluster) startOn(port int) error {
	args := []string{"-D", c.dataDir(), "-p", strconv.Itoa(port), "-k", c.dir,
		"-c", "listen_addresses=127.0.0.1", "-c", "max_connections=200",
		// The data need not survive the machine, only the server: a write that has reached the operating system is
		// safe from kill -9. That is why synchronous_commit stays on.
		"-c", "fsync=off", "-c", "full_page_writes=off"}
	for _, s := range c.settings {
		args = append(args, "-c", s) // the last one counts
	}
	server := c.command("postgres", args...)
	if err := c.run(server); err != nil {
		return err
	}
	// On the socket, because another program may be listening on the port.
	socket := fmt.Sprintf("postgres:///postgres?host=%s&port=%d&user=postgres&sslmode=disable", url.QueryEscape(c.dir),
		port)
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := execute(socket, "SELECT 1")
		if err == nil {
			return nil
		}
		select {
		case <-c.ended:
			return fmt.Errorf("postgres: %v", server.ProcessState)
		case <-time.After(10 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			c.end(syscall.SIGKILL)
			return fmt.Errorf("postgres does not answer: %w", err)
		}
	}
}

// command prepares one of PostgreSQL's programs.
func (c *Cluster) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(c.bin, name), args...)
	cmd.Dir = c.dir // the test's own directory may be closed to the user postgres
	// A group of its own: Ctrl-C is for the test process, and the server follows in good order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.runAs, Setpgid: true}
	return cmd
}

// run starts cmd as the cluster's process, in the reaper's care. c.ended is closed when it has ended.
func (c *Cluster) run(cmd *exec.Cmd) error {
	log, err := os.OpenFile(c.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	err = c.reaper.watch(cmd.Process.Pid)
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // who needs to know reads cmd.ProcessState
		_ = c.reaper.watch(0)
		close(ended)
	}()
	c.server, c.ended = cmd, ended
	return err
}

// end sends the running process a signal and waits until it has ended.
func (c *Cluster) end(signal syscall.Signal) {
	if c.server == nil {
		return
	}
	_ = c.server.Process.Signal(signal) // it may have ended by itself, which is as good
	<-c.ended
}

// close stops the server and removes its data.
func (c *Cluster) close() {
	c.end(syscall.SIGQUIT)
	c.reaper.close()
}

func (c *Cluster) dataDir() string { return filepath.Join(c.dir, "data") }
func (c *Cluster) logFile() string { return filepath.Join(c.dir, "log") }

// log returns the end of what PostgreSQL's programs have said, for the message of an error.
func (c *Cluster) log() string {
	text, err := os.ReadFile(c.logFile())
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-2000):])
}

// reaper is a shell process that outlives this one by a moment. It learns of this process's end, whichever way that
// comes, by the end of its input; then it stops the process it was told to watch and removes the directory.
//
// A process that is killed in the microseconds between starting a server and telling its reaper leaves the server
// without its directory, and PostgreSQL stops by itself within a minute when it finds its lock file gone.
type reaper struct {
	cmd   *exec.Cmd
	input io.WriteCloser // held for as long as this process lives
}

// A server has ended when its lock file is gone; asking for its process would not do, because a process that ended can
// be signaled for as long as nobody collects it, and in a container that may be forever.
const reaperScript = `
pid=0
while read -r line; do pid=$line; done
try() { tries=50; until "$@" || [ $tries -eq 0 ]; do sleep 0.1; tries=$((tries - 1)); done 2>/dev/null; }
if [ "$pid" -gt 0 ] && kill -QUIT "$pid" 2>/dev/null; then
	try [ ! -e "$1/data/postmaster.pid" ]
	kill -KILL "$pid" 2>/dev/null
fi
try rm -rf "$1"
`

func startReaper(dir string) (*reaper, error) {
	cmd := exec.Command("/bin/sh", "-c", reaperScript, "sh", dir)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C must not reach it
	input, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &reaper{cmd: cmd, input: input}, nil
}

// watch says which process to end, in place of the one before; 0 is none.
func (r *reaper) watch(pid int) error {
	_, err := fmt.Fprintln(r.input, pid)
	return err
}

// close lets the reaper do its work now, and waits for it.
func (r *reaper) close() {
	r.input.Close()
	_ = r.cmd.Wait() // at worst a temporary directory is left
}

// postgresPrograms finds the directory of initdb and postgres, which Debian keeps out of PATH.
func postgresPrograms() (string, error) {
	var dirs []string
	if path, err := exec.LookPath("initdb"); err == nil {
		// Behind a link, initdb looks for its files where the link points.
		if path, err = filepath.EvalSymlinks(path); err == nil {
			dirs = append(dirs, filepath.Dir(path))
		}
	}
	installed, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil {
		return "", err
	}
	version := func(dir string) float64 {
		v, _ := strconv.ParseFloat(filepath.Base(filepath.Dir(dir)), 64) // a name that is no version comes last
		return v
	}
	slices.SortFunc(installed, func(a, b string) int { return cmp.Compare(version(b), version(a)) })
	for _, dir := range append(dirs, installed...) {
		_, errInitdb := exec.LookPath(filepath.Join(dir, "initdb"))
		_, errPostgres := exec.LookPath(filepath.Join(dir, "postgres"))
		if errInitdb == nil && errPostgres == nil {
			return dir, nil
		}
	}
	return "", errors.New("PostgreSQL is not installed: apt-get install postgresql (or make setup), " +
		"or set " + PostgresURLVariable + " to the URL of a server where tests may create databases")
}

// postgresUser returns whom to run PostgreSQL as: nil for the user of this process, unless that is root, whom
// PostgreSQL refuses.
func postgresUser() (*syscall.Credential, error) {
	if os.Getuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, fmt.Errorf("PostgreSQL does not run as root, and there is no other user for it: %w", err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}
