package artifact_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"runbell/internal/artifact"
	"runbell/internal/artifact/storetest"
	"runbell/internal/testkit"
)

// s3Settings are those of an empty bucket on the real server.
func s3Settings(t *testing.T) (*testkit.S3, artifact.S3Settings) {
	t.Helper()
	server, bucket := testkit.S3Bucket(t)
	return server, artifact.S3Settings{
		Bucket: bucket, Endpoint: server.URL, PathStyle: "auto",
		AccessKeyID: testkit.S3AccessKeyID, SecretAccessKey: testkit.S3SecretAccessKey,
	}
}

func openS3(t *testing.T, settings artifact.S3Settings) *artifact.S3 {
	t.Helper()
	s, err := artifact.OpenS3(settings)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return server.URL
}

// putAndRead puts a file, and reads it from the middle on.
func putAndRead(t *testing.T, s artifact.Store) {
	t.Helper()
	key := "ab/" + strconv.FormatInt(time.Now().UnixNano(), 36)
	if err := s.Put(t.Context(), key, strings.NewReader("0123456789"), 10, "image/png"); err != nil {
		t.Fatal(err)
	}
	f, err := s.Open(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if _, err := f.Seek(-5, io.SeekEnd); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(f); err != nil || string(got) != "56789" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestS3(t *testing.T) {
	_, settings := s3Settings(t)
	storetest.Run(t, openS3(t, settings))
}

// TestS3Requests: what is sent is what every store understands.
func TestS3Requests(t *testing.T) {
	server, settings := s3Settings(t)
	pass := testkit.PassTo(t, server.URL)
	var mu sync.Mutex
	var requests []*http.Request
	settings.Endpoint = serve(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		requests = append(requests, r.Clone(context.Background()))
		mu.Unlock()
		pass.ServeHTTP(w, r)
	})
	settings.Prefix = "some/where"
	s := openS3(t, settings)
	for _, size := range []int64{10, -1} {
		if err := s.Put(t.Context(), "ab/cd", strings.NewReader("0123456789"), size, "image/png"); err != nil {
			t.Fatal(err)
		}
	}
	if got := server.Objects(t, settings.Bucket); len(got) != 1 || got[0] != "some/where/ab/cd" {
		t.Errorf("the bucket has %q", got)
	}
	putAndRead(t, s)
	if err := s.Delete(t.Context(), "ab/cd"); err != nil {
		t.Fatal(err)
	}
	for _, r := range requests {
		if r.URL.RawQuery != "" || !strings.HasPrefix(r.URL.Path, "/"+settings.Bucket+"/some/where/ab/") {
			t.Errorf("%s %s", r.Method, r.URL)
		}
		for name, values := range r.Header {
			switch name {
			case "Authorization", "X-Amz-Date", "User-Agent", "Content-Length", "Content-Type", "Range":
			case "Accept-Encoding":
				t.Errorf("%s asks for %q: a packed file would be unpacked", r.Method, values)
			case "X-Amz-Content-Sha256":
				if r.Method == http.MethodPut && values[0] != "UNSIGNED-PAYLOAD" {
					t.Errorf("%s has %s: %q", r.Method, name, values)
				}
			default:
				t.Errorf("%s has %s: %q, which not every store takes", r.Method, name, values)
			}
		}
		if r.Method == http.MethodPut && (r.ContentLength != 10 || r.Header.Get("Content-Type") != "image/png" || r.TransferEncoding != nil) {
			t.Errorf("the body has %d bytes, %q, encoded as %q", r.ContentLength, r.Header.Get("Content-Type"), r.TransferEncoding)
		}
	}
	if len(requests) < 7 {
		t.Errorf("only %d requests were seen", len(requests))
	}
}

// TestS3VirtualHost has the bucket in the name of the host.
func TestS3VirtualHost(t *testing.T) {
	server, settings := s3Settings(t)
	var dialed []string
	settings.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		dialed = append(dialed, address)
		return new(net.Dialer).DialContext(ctx, network, strings.TrimPrefix(server.URL, "http://"))
	}
	settings.Endpoint, settings.PathStyle = "http://"+testkit.S3Domain, "off"
	s := openS3(t, settings)
	putAndRead(t, s)
	if want := settings.Bucket + "." + testkit.S3Domain + ":80"; dialed[0] != want {
		t.Errorf("connected to %s, want %s", dialed[0], want)
	}
	address, err := s.PresignPut(t.Context(), "ab/cd", "image/png", time.Hour)
	if u, _ := url.Parse(address); err != nil || u.Host != settings.Bucket+"."+testkit.S3Domain || u.Path != "/ab/cd" {
		t.Errorf("%s, %v", address, err)
	}
}

// TestS3OfAWS: without an endpoint it is AWS, where the region and the bucket are in the name of the host.
func TestS3OfAWS(t *testing.T) {
	s := openS3(t, artifact.S3Settings{Bucket: "shots", Region: "eu-central-1", PathStyle: "auto", AccessKeyID: "AKIA", SecretAccessKey: "secret"})
	address, err := s.PresignPut(t.Context(), "ab/cd", "image/png", time.Hour)
	if u, _ := url.Parse(address); err != nil || u.Scheme != "https" || u.Host != "shots.s3.dualstack.eu-central-1.amazonaws.com" || u.Path != "/ab/cd" {
		t.Errorf("%s, %v", address, err)
	}
}

func TestS3OwnAuthority(t *testing.T) {
	server, settings := s3Settings(t)
	secure := httptest.NewUnstartedServer(testkit.PassTo(t, server.URL))
	secure.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	secure.StartTLS()
	t.Cleanup(secure.Close)
	settings.Endpoint = secure.URL
	var unknown x509.UnknownAuthorityError
	if err := openS3(t, settings).Check(t.Context()); !errors.As(err, &unknown) {
		t.Errorf("without the authority: %v", err)
	}
	settings.Roots = x509.NewCertPool()
	settings.Roots.AddCert(secure.Certificate())
	putAndRead(t, openS3(t, settings))
}

func TestS3Presign(t *testing.T) {
	server, settings := s3Settings(t)
	public := httptest.NewServer(testkit.PassTo(t, server.URL))
	t.Cleanup(public.Close)
	settings.PublicEndpoint, settings.Prefix = public.URL, "p"
	s := openS3(t, settings)
	address, err := s.PresignPut(t.Context(), "ab/cd", "image/png", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	if "http://"+u.Host != public.URL || u.Path != "/"+settings.Bucket+"/p/ab/cd" {
		t.Errorf("the address is %s", address)
	}
	if got := u.Query().Get("X-Amz-SignedHeaders"); got != "content-type;host" {
		t.Errorf("signed are %s", got)
	}
	for name := range u.Query() {
		switch name {
		case "X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", "X-Amz-Signature", "X-Amz-SignedHeaders":
		default:
			t.Errorf("the address has %s", name)
		}
	}
	upload := func(address, contentType string) int {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, address, strings.NewReader("0123456789"))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", contentType)
		r.Header.Set("Content-Disposition", "inline") // reporters send this, and others of their own
		r.Header.Set("X-Cypress-Version", "15")
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = answer.Body.Close()
		return answer.StatusCode
	}
	for _, c := range []struct {
		address, contentType string
		want                 int
	}{
		{address, "text/html", 403},
		{strings.Replace(address, "/ab/cd", "/ab/ce", 1), "image/png", 403},
		{strings.Replace(address, public.URL, server.URL, 1), "image/png", 403},
		{address, "image/png", 200},
	} {
		if got := upload(c.address, c.contentType); got != c.want {
			t.Errorf("a PUT of %s to %s is answered with %d, want %d", c.contentType, c.address, got, c.want)
		}
	}
	if f, err := s.Open(t.Context(), "ab/cd"); err != nil {
		t.Error(err)
	} else if b, err := io.ReadAll(f); err != nil || string(b) != "0123456789" {
		t.Errorf("%q, %v", b, err)
	}
}

// noCredentials removes the credentials of the machine.
func noCredentials(t *testing.T) {
	t.Helper()
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_ACCESS_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_SECRET_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"} {
		t.Setenv(name, "")
	}
	none := filepath.Join(t.TempDir(), "none")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", none)
	t.Setenv("AWS_CONFIG_FILE", none)
	t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:1/") // nobody there; else the machine's network is asked
}

// TestS3Credentials finds them where AWS' own programs do.
func TestS3Credentials(t *testing.T) {
	_, settings := s3Settings(t)
	settings.AccessKeyID, settings.SecretAccessKey = "", ""
	t.Run("environment", func(t *testing.T) {
		noCredentials(t)
		t.Setenv("AWS_ACCESS_KEY_ID", testkit.S3AccessKeyID)
		t.Setenv("AWS_SECRET_ACCESS_KEY", testkit.S3SecretAccessKey)
		putAndRead(t, openS3(t, settings))
	})
	t.Run("shared file", func(t *testing.T) {
		noCredentials(t)
		file := filepath.Join(t.TempDir(), "credentials")
		text := fmt.Sprintf("[ci]\naws_access_key_id = %s\naws_secret_access_key = %s\n", testkit.S3AccessKeyID, testkit.S3SecretAccessKey)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		t.Setenv("AWS_SHARED_CREDENTIALS_FILE", file)
		t.Setenv("AWS_PROFILE", "ci")
		putAndRead(t, openS3(t, settings))
	})
	t.Run("role", func(t *testing.T) {
		noCredentials(t)
		t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", serve(t, func(w http.ResponseWriter, _ *http.Request) {
			_, _ = fmt.Fprintf(w, `{"AccessKeyId": %q, "SecretAccessKey": %q, "Expiration": %q}`,
				testkit.S3AccessKeyID, testkit.S3SecretAccessKey, time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
		}))
		putAndRead(t, openS3(t, settings))
	})
	t.Run("none", func(t *testing.T) {
		noCredentials(t)
		if err := openS3(t, settings).Check(t.Context()); err == nil || !strings.Contains(err.Error(), "RUNBELL_S3_ACCESS_KEY_ID") {
			t.Errorf("the check says %v", err)
		}
	})
}

// TestS3Check says what is wrong with settings that only the server knows.
func TestS3Check(t *testing.T) {
	server, settings := s3Settings(t)
	if err := openS3(t, settings).Check(t.Context()); err != nil {
		t.Error(err)
	}
	if left := server.Objects(t, settings.Bucket); len(left) > 0 {
		t.Errorf("it left %q", left)
	}
	wrong := settings
	wrong.SecretAccessKey = "another secret"
	if err := openS3(t, wrong).Check(t.Context()); err == nil || strings.Contains(err.Error(), wrong.SecretAccessKey) {
		t.Errorf("with the wrong secret: %v", err)
	}
	wrong = settings
	wrong.Bucket = "none-of-that-name"
	if err := openS3(t, wrong).Check(t.Context()); err == nil || !strings.Contains(err.Error(), "NoSuchBucket") {
		t.Errorf("without the bucket: %v", err)
	}
	if err := openS3(t, wrong).Delete(t.Context(), "ab/cd"); err == nil {
		t.Error("a file in a bucket that is not there was deleted")
	}
	wrong.Bucket = "Not/A/Name"
	if _, err := artifact.OpenS3(wrong); err == nil {
		t.Error("the bucket may have any name")
	}
}

// object sets the headers of an answer about an object.
func object(w http.ResponseWriter, size int) {
	w.Header().Set("Content-Length", strconv.Itoa(size))
	w.Header().Set("Last-Modified", time.Now().UTC().Format(http.TimeFormat))
}

// TestS3Fails: a store that fails or reports a false success is noticed, and each error names its place.
func TestS3Fails(t *testing.T) {
	server, settings := s3Settings(t)
	pass := testkit.PassTo(t, server.URL)
	var puts int
	put := func(s *artifact.S3) error {
		puts++
		return s.Put(t.Context(), fmt.Sprint("ab/", puts), strings.NewReader("0123456789"), 10, "image/png")
	}
	read := func(s *artifact.S3) error {
		f, err := s.Open(t.Context(), "ab/cd")
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		_, seeks := f.Seek(100, io.SeekStart)
		_, err = io.Copy(io.Discard, f)
		return errors.Join(seeks, err)
	}
	remove := func(s *artifact.S3) error { return s.Delete(t.Context(), "ab/cd") }
	if err := openS3(t, settings).Put(t.Context(), "ab/cd", bytes.NewReader(make([]byte, 1<<20)), 1<<20, "video/mp4"); err != nil {
		t.Fatal(err)
	}
	full := func(code string, status int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = fmt.Fprintf(w, "<Error><Code>%s</Code><Message>There is no room.</Message></Error>", code)
		}
	}
	for _, c := range []struct {
		name   string
		server http.HandlerFunc
		do     func(*artifact.S3) error
		want   string // in the error
		is     error
	}{
		{"an error after the file was taken", func(w http.ResponseWriter, r *http.Request) {
			pass.ServeHTTP(httptest.NewRecorder(), r)
			w.WriteHeader(http.StatusInternalServerError)
		}, put, "500", nil},
		{"success without a file", func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPut {
				_, _ = io.Copy(io.Discard, r.Body)
				return
			}
			pass.ServeHTTP(w, r)
		}, put, "does not have it", nil},
		{"success with another length", func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodHead {
				object(w, 7)
				return
			}
			pass.ServeHTTP(w, r)
		}, put, "7 bytes of a file of 10", nil},
		{"a line that is cut while the file is sent", func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.ReadFull(r.Body, make([]byte, 5))
			panic(http.ErrAbortHandler)
		}, put, "at 127.0.0.1", nil},
		{"a quota", full("QuotaExceeded", http.StatusForbidden), put, "no room (QuotaExceeded)", artifact.ErrFull},
		{"a full disk", full("XMinioStorageFull", http.StatusInsufficientStorage), put, "no room", artifact.ErrFull},
		{"no permission", full("AccessDenied", http.StatusForbidden), put, "AccessDenied", nil},
		{"no permission to remove", full("AccessDenied", http.StatusForbidden), remove, "AccessDenied", nil},
		{"a file that ends early", func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet {
				object(w, 1000)
				w.Header().Set("Content-Range", "bytes 100-1048575/1048576")
				w.WriteHeader(http.StatusPartialContent)
				_, _ = w.Write(make([]byte, 1000))
				return
			}
			pass.ServeHTTP(w, r)
		}, read, "1100 bytes of 1048576", io.ErrUnexpectedEOF},
		{"a line that is cut while the file is read", func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet {
				object(w, 1<<20-100)
				w.Header().Set("Content-Range", "bytes 100-1048575/1048576")
				w.WriteHeader(http.StatusPartialContent)
				_, _ = w.Write(make([]byte, 1000))
				_ = http.NewResponseController(w).Flush()
				panic(http.ErrAbortHandler)
			}
			pass.ServeHTTP(w, r)
		}, read, "unexpected EOF", io.ErrUnexpectedEOF},
		{"another part than was asked for", func(w http.ResponseWriter, r *http.Request) {
			object(w, 1<<20)
			if r.Method == http.MethodGet {
				_, _ = w.Write(make([]byte, 1<<20))
			}
		}, read, "does not support range requests", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			faulty := settings
			faulty.Endpoint = serve(t, c.server)
			err := c.do(openS3(t, faulty))
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), settings.Bucket) {
				t.Errorf("%v, want an error with %q", err, c.want)
			}
			if c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("%v is not %v", err, c.is)
			}
		})
	}
}

// TestS3Down: errors come soon, and none says that a file is not there.
func TestS3Down(t *testing.T) {
	_, settings := s3Settings(t)
	settings.Endpoint = "http://127.0.0.1:1"
	s := openS3(t, settings)
	_, opening := s.Open(t.Context(), "ab/cd")
	for _, err := range []error{opening, s.Put(t.Context(), "ab/cd", strings.NewReader("x"), 1, ""), s.Delete(t.Context(), "ab/cd"), s.Check(t.Context())} {
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%v", err)
		}
	}
}

// slowly yields a byte a minute.
type slowly struct{ left int }

func (s *slowly) Read(p []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	time.Sleep(time.Minute) // virtual
	s.left--
	return copy(p, "x"), nil
}

// TestS3Slow: a request to storage without progress ends after 20 seconds, wherever it stops. Reporters may be
// slower.
func TestS3Slow(t *testing.T) {
	const size = 1 << 20
	// The server notices that the client is gone only once it has read the body.
	var over chan struct{}
	hang := func() { <-over }
	for _, c := range []struct {
		name   string
		server http.HandlerFunc
		do     func(context.Context, *artifact.S3) error
		takes  time.Duration
	}{
		{"before it answers", func(http.ResponseWriter, *http.Request) { hang() }, func(ctx context.Context, s *artifact.S3) error {
			_, err := s.Open(ctx, "ab/cd")
			return err
		}, 20 * time.Second},
		{"while a file is removed", func(http.ResponseWriter, *http.Request) { hang() }, func(ctx context.Context, s *artifact.S3) error {
			return s.Delete(ctx, "ab/cd")
		}, 20 * time.Second},
		{"at the start", func(http.ResponseWriter, *http.Request) { hang() }, func(ctx context.Context, s *artifact.S3) error {
			return s.Check(ctx)
		}, 20 * time.Second},
		{"while a file is sent", func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.ReadFull(r.Body, make([]byte, 1000))
			hang()
		}, func(ctx context.Context, s *artifact.S3) error {
			return s.Put(ctx, "ab/cd", bytes.NewReader(make([]byte, size)), size, "video/mp4")
		}, 20 * time.Second},
		{"while a file is read", func(w http.ResponseWriter, r *http.Request) {
			object(w, size)
			if r.Method == http.MethodGet {
				_, _ = w.Write(make([]byte, 1000))
				_ = http.NewResponseController(w).Flush()
				hang()
			}
		}, func(ctx context.Context, s *artifact.S3) error {
			f, err := s.Open(ctx, "ab/cd")
			if err != nil {
				return err
			}
			time.Sleep(time.Hour) // virtual: the reader may be slow
			_, err = io.Copy(io.Discard, f)
			return errors.Join(err, f.Close())
		}, time.Hour + 20*time.Second},
		{"after a slow reporter", func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			hang()
		}, func(ctx context.Context, s *artifact.S3) error {
			return s.Put(ctx, "ab/cd", &slowly{10}, 10, "video/mp4")
		}, 10*time.Minute + 20*time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				over = make(chan struct{})
				defer func() {
					close(over)
					time.Sleep(time.Minute) // virtual: the server's connections end
				}()
				network := testkit.NewNetwork()
				network.Serve(t, "s3:80", c.server)
				s := openS3(t, artifact.S3Settings{Bucket: "shots", Endpoint: "http://s3", AccessKeyID: "key", SecretAccessKey: "secret", Dial: network.Dial})
				began := time.Now()
				err := c.do(t.Context(), s)
				if took := time.Since(began); err == nil || !strings.Contains(err.Error(), "no progress for 20s") || took != c.takes {
					t.Errorf("%v after %s, want it after %s", err, took, c.takes)
				}
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}
