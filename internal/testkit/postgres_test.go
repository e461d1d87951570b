package testkit

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// childVariable makes the test binary a program that starts the shared cluster, prints its URL, and then, by the value,
// does nothing ("wait") or ends ("exit").
const childVariable = "RUNBELL_TESTKIT_CHILD"

func TestMain(m *testing.M) {
	if then := os.Getenv(childVariable); then != "" {
		child(then)
	}
	os.Exit(m.Run())
}

func child(then string) {
	c, err := sharedCluster()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(c.URL())
	if then == "exit" {
		os.Exit(0)
	}
	select {}
}

func TestPostgresDatabasesAreSeparate(t *testing.T) {
	a, b := connect(t, Postgres(t)), connect(t, Postgres(t))
	exec1(t, a, "CREATE TABLE only_in_a (n BIGINT)")
	exec1(t, a, "INSERT INTO only_in_a VALUES (42)")
	if got := queryInt(t, a, "SELECT n FROM only_in_a"); got != 42 {
		t.Errorf("read %d, want 42", got)
	}
	if got := tables(t, b); got != 0 {
		t.Errorf("the other database has %d tables, want none", got)
	}
}

func TestPostgresDropsDatabaseAfterTest(t *testing.T) {
	var databaseURL string
	t.Run("uses it", func(t *testing.T) {
		databaseURL = Postgres(t)
		connect(t, databaseURL) // left open on purpose
	})
	ctx := t.Context()
	if conn, err := pgx.Connect(ctx, databaseURL); err == nil {
		conn.Close(ctx)
		t.Errorf("%s is still there", databaseURL)
	}
}

func TestPostgresOnServerOfEnvironment(t *testing.T) {
	c := PostgresCluster(t)
	t.Setenv(PostgresURLVariable, c.URL()+"&application_name=ours")
	databaseURL := Postgres(t)
	u, err := url.Parse(databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("127.0.0.1:%d", c.port); u.Host != want {
		t.Errorf("the database is on %s, want %s", u.Host, want)
	}
	if u.Query().Get("application_name") != "ours" {
		t.Errorf("%s has lost the server URL's parameters", databaseURL)
	}
	connect(t, databaseURL)
}

// What has been committed survives both an orderly stop and kill -9, at the same URL.
func TestClusterRestart(t *testing.T) {
	c := PostgresCluster(t)
	databaseURL := c.Database(t)
	conn := connect(t, databaseURL)
	exec1(t, conn, "CREATE TABLE kept (n BIGINT)")

	for i, end := range []func(testing.TB){c.Stop, c.Kill} {
		exec1(t, conn, "INSERT INTO kept VALUES (1)")
		end(t)
		// The processes of connections outlive a killed server by a moment.
		for deadline := time.Now().Add(10 * time.Second); conn.Ping(t.Context()) == nil; {
			if time.Now().After(deadline) {
				t.Fatal("the connection has survived its server")
			}
		}
		c.Start(t)
		conn = connect(t, databaseURL)
		if got := queryInt(t, conn, "SELECT count(*) FROM kept"); got != i+1 {
			t.Fatalf("after restart %d there are %d rows, want %d", i+1, got, i+1)
		}
	}
}

// A port that another program holds is an error to try again after, not a server to talk to.
func TestClusterPortTaken(t *testing.T) {
	c := PostgresCluster(t)
	c.Stop(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := c.startOn(l.Addr().(*net.TCPAddr).Port); err == nil {
		t.Error("the server has started on a taken port")
	}
	c.Start(t)
	connect(t, c.URL())
}

// However a test process ends, no server and no file of it is left.
func TestNothingIsLeft(t *testing.T) {
	t.Run("after an exit", func(t *testing.T) {
		t.Parallel()
		cmd, dir, clusterURL := startChild(t, "exit")
		serverURL := clusterURL()
		if err := cmd.Wait(); err != nil {
			t.Fatal(err)
		}
		waitUntilNothingIsLeft(t, dir, serverURL)
	})
	t.Run("after kill -9", func(t *testing.T) {
		t.Parallel()
		cmd, dir, clusterURL := startChild(t, "wait")
		serverURL := clusterURL()
		connect(t, serverURL) // a server at work, not one that has nothing to do but end
		if len(processesIn(t, dir)) == 0 {
			t.Fatal("no server process is seen even while the server runs")
		}
		kill(t, cmd)
		waitUntilNothingIsLeft(t, dir, serverURL)
	})
	t.Run("after kill -9 during initdb", func(t *testing.T) {
		t.Parallel()
		cmd, dir, _ := startChild(t, "wait")
		eventually(t, "initdb has begun", func() bool {
			found, err := filepath.Glob(filepath.Join(dir, "*", "data", "PG_VERSION"))
			return err == nil && len(found) == 1
		})
		kill(t, cmd)
		waitUntilNothingIsLeft(t, dir, "")
	})
}

// startChild starts this test binary as a child, with a temporary directory of its own. The function it returns waits
// for the URL of the child's cluster.
func startChild(t *testing.T, then string) (cmd *exec.Cmd, dir string, clusterURL func() string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// Not t.TempDir: the test's name in its path can make the server's socket name too long.
	if dir, err = os.MkdirTemp("", "child-"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil { // for the user postgres
		t.Fatal(err)
	}
	cmd = exec.Command(self)
	cmd.Env = append(os.Environ(), childVariable+"="+then, "TMPDIR="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	return cmd, dir, func() string {
		line, err := bufio.NewReader(out).ReadString('\n')
		if err != nil {
			t.Fatalf("the child has not started a cluster: %v", err)
		}
		return strings.TrimSpace(line)
	}
}

func kill(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // says that it was killed
}

func waitUntilNothingIsLeft(t *testing.T, dir, serverURL string) {
	t.Helper()
	eventually(t, "no process is left", func() bool { return len(processesIn(t, dir)) == 0 })
	eventually(t, "no file is left", func() bool {
		entries, err := os.ReadDir(dir)
		return err == nil && len(entries) == 0
	})
	if serverURL == "" {
		return
	}
	u, err := url.Parse(serverURL)
	if err != nil {
		t.Fatal(err)
	}
	if conn, err := net.Dial("tcp", u.Host); err == nil {
		conn.Close()
		t.Errorf("something still listens on %s", u.Host)
	}
}

// processesIn lists the processes whose working directory is below dir, as that of every PostgreSQL process is.
func processesIn(t *testing.T, dir string) []string {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/cwd")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, link := range links {
		// An error is a process that has ended or is not ours.
		if cwd, err := os.Readlink(link); err == nil && strings.HasPrefix(cwd, dir) {
			found = append(found, link)
		}
	}
	return found
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited 20 s until %s", what)
		}
	}
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func exec1(t *testing.T, conn *pgx.Conn, sql string) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func queryInt(t *testing.T, conn *pgx.Conn, sql string) int {
	t.Helper()
	var n int
	if err := conn.QueryRow(t.Context(), sql).Scan(&n); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return n
}

func tables(t *testing.T, conn *pgx.Conn) int {
	t.Helper()
	return queryInt(t, conn, "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'")
}
