package testkit

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// The keys of the S3 server, and the name that a bucket can be put before as the host of an address.
const (
	S3AccessKeyID     = "runbell"
	S3SecretAccessKey = "a secret of the tests"
	S3Domain          = "s3.test"
)

// S3 is object storage: Versity's S3 gateway, in a process of its own, with its files in a temporary directory.
type S3 struct {
	URL    string
	reaper *reaper // held for as long as this process lives
}

// sharedS3 is the server of all tests of a process, and ends with the process.
var sharedS3 = sync.OnceValues(startS3)

// S3Bucket makes a bucket on the S3 server of this process, which is started by the first call.
func S3Bucket(t testing.TB) (server *S3, bucket string) {
	t.Helper()
	server, err := sharedS3()
	if err != nil {
		t.Fatalf("start the S3 server: %v", err)
	}
	bucket = "test-" + strings.ToLower(rand.Text())
	if err := server.client().MakeBucket(t.Context(), bucket, minio.MakeBucketOptions{}); err != nil {
		t.Fatalf("make a bucket: %v", err)
	}
	return server, bucket
}

// Objects are the names of what is in a bucket, and of uploads that were not completed.
func (s *S3) Objects(t testing.TB, bucket string) (names []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second) // it may be called in a cleanup
	defer cancel()
	for o := range s.client().ListObjects(ctx, bucket, minio.ListObjectsOptions{Recursive: true}) {
		if o.Err != nil {
			t.Fatal(o.Err)
		}
		names = append(names, o.Key)
	}
	for u := range s.client().ListIncompleteUploads(ctx, bucket, "", true) {
		if u.Err != nil {
			t.Fatal(u.Err)
		}
		names = append(names, u.Key)
	}
	return names
}

// client is the administrator's.
func (s *S3) client() *minio.Client {
	u, err := url.Parse(s.URL)
	if err != nil {
		panic(err)
	}
	c, err := minio.New(u.Host, &minio.Options{Creds: credentials.NewStaticV4(S3AccessKeyID, S3SecretAccessKey, ""),
		Region: "us-east-1"})
	if err != nil {
		panic(err)
	}
	return c
}

// startS3 builds the server, which takes minutes the first time, and starts it.
func startS3() (*S3, error) {
	program, err := s3Program()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "runbell-s3-")
	if err != nil {
		return nil, err
	}
	reaper, err := startReaper(dir)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	for _, name := range []string{"data", "meta"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			reaper.close()
			return nil, err
		}
	}
	port, err := FreePort()
	if err != nil {
		reaper.close()
		return nil, err
	}
	address := fmt.Sprint("127.0.0.1:", port)
	// Its own files for what other file systems have attributes for: not every one has them.
	cmd := exec.Command(program, "--quiet", "--keep-alive", "--port", address, "--virtual-domain", S3Domain,
		"posix", "--sidecar", filepath.Join(dir, "meta"), filepath.Join(dir, "data"))
	cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY_ID="+S3AccessKeyID, "ROOT_SECRET_ACCESS_KEY="+S3SecretAccessKey)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for the test process
	log := &lockedBuffer{}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		reaper.close()
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	if err := errors.Join(reaper.watch(cmd.Process.Pid), answers(address, ended)); err != nil {
		reaper.close()
		return nil, fmt.Errorf("%w: %s", err, log.String())
	}
	return &S3{URL: "http://" + address, reaper: reaper}, nil
}

// s3Program is the path of the program, from a module of its own: it needs more than
// all of Runbell.
func s3Program() (string, error) {
	root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "runbell").Output()
	if err != nil {
		return "", fmt.Errorf("find the repository: %w", err)
	}
	build := exec.Command("go", "tool", "-n", "versitygw")
	build.Dir = filepath.Join(strings.TrimSpace(string(root)), "tools", "s3")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	var said strings.Builder
	build.Stderr = &said
	path, err := build.Output()
	if err != nil {
		return "", fmt.Errorf("go tool -n versitygw: %w: %s", err, said.String())
	}
	return strings.TrimSpace(string(path)), nil
}

// answers waits until a server takes connections.
func answers(address string, ended <-chan error) error {
	deadline := time.After(30 * time.Second)
	for {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			return conn.Close()
		}
		select {
		case err := <-ended:
			return fmt.Errorf("it ended: %w", err)
		case <-deadline:
			return err
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// lockedBuffer keeps what a process said.
type lockedBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// PassTo is a handler that passes requests on to another server, as they are: the host stays, since it is signed.
func PassTo(t testing.TB, target string) http.Handler {
	t.Helper()
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = u.Scheme, u.Host, r.In.Host
		},
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
}
