package artifact

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/minio/minio-go/v7/pkg/s3utils"
)

// S3Settings say where object storage is and how to use it.
type S3Settings struct {
	Bucket string
	Prefix string // what all keys begin with; no slash at either end
	// Endpoint is the storage's URL, without a path; "" is AWS.
	Endpoint string
	// PublicEndpoint is the URL that reporters reach the same storage at; "" is
	// Endpoint.
	PublicEndpoint string
	Region         string // "" is the usual one of the endpoint
	// AccessKeyID and SecretAccessKey are empty if the usual AWS sources have them: its environment variables, its
	// shared files, the role of the machine or container.
	AccessKeyID, SecretAccessKey string
	// PathStyle is whether the bucket is in the path of addresses ("on") or in the
	// name of the host ("off"). "auto" takes the host's for AWS and Google.
	PathStyle string
	// Roots are the authorities that certificates are checked with; nil is those of
	// the system.
	Roots *x509.CertPool
	// Dial makes connections; nil is the network's.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

const (
	// MaxS3Size is the most bytes that object storage takes in one request. One request leaves nothing behind when it
	// ends early. An upload in several parts would leave parts that no listing shows and that cost money.
	MaxS3Size = 5 << 30
	// s3Patience is how long object storage may do nothing for a request. Reporters wait for 30 seconds, and should
	// get a response in that time.
	s3Patience = 20 * time.Second
	// s3Tries is how often a request without a file is made. One with a file is made
	// once: the file is not there to be read again.
	s3Tries = 3
)

// S3 is a Store in a bucket of object storage.
type S3 struct {
	settings  S3Settings
	where     string
	transport *http.Transport
	creds     *credentials.Credentials
	client    *minio.Client
	public    *minio.Client // signs addresses, and makes no requests
}

// OpenS3 prepares a store. It makes no request.
func OpenS3(settings S3Settings) (*S3, error) {
	if err := s3utils.CheckValidBucketNameStrict(settings.Bucket); err != nil {
		return nil, fmt.Errorf("bucket %q: %w", settings.Bucket, err)
	}
	if settings.Dial == nil {
		settings.Dial = (&net.Dialer{Timeout: 10 * time.Second}).DialContext
	}
	s := &S3{settings: settings, transport: &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           settings.Dial,
		TLSClientConfig:       &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: settings.Roots},
		TLSHandshakeTimeout:   10 * time.Second,
		MaxIdleConnsPerHost:   64,
		IdleConnTimeout:       15 * time.Second, // less than what servers allow
		ExpectContinueTimeout: time.Second,
		DisableCompression:    true, // a packed file comes as it is stored
	}}
	s.creds = credentials.NewStaticV4(settings.AccessKeyID, settings.SecretAccessKey, "")
	if settings.AccessKeyID == "" {
		s.creds = credentials.NewChainCredentials([]credentials.Provider{
			&credentials.EnvAWS{},
			&credentials.FileAWSCredentials{},
			&credentials.IAM{Client: &http.Client{Transport: s.transport, Timeout: 5 * time.Second}},
		})
	}
	var err error
	if s.client, err = s.dial(settings.Endpoint); err != nil {
		return nil, err
	}
	s.public = s.client
	if settings.PublicEndpoint != "" {
		if s.public, err = s.dial(settings.PublicEndpoint); err != nil {
			return nil, err
		}
	}
	s.where = "s3://" + settings.Bucket
	if settings.Prefix != "" {
		s.where += "/" + settings.Prefix
	}
	s.where += " at " + s.client.EndpointURL().Host
	return s, nil
}

// dial makes a client for an endpoint.
func (s *S3) dial(endpoint string) (*minio.Client, error) {
	if endpoint == "" {
		endpoint = "https://s3.amazonaws.com"
	}
	u, err := url.Parse(endpoint)
	if err != nil {
		return nil, err
	}
	options := &minio.Options{
		Creds:      s.creds,
		Secure:     u.Scheme == "https",
		Transport:  s.transport,
		Region:     s.settings.Region,
		MaxRetries: s3Tries,
		// Not TrailingHeaders: with it, checksums follow the body of a request, which
		// many stores other than AWS refuse. Without it, none are sent.
	}
	if options.Region == "" {
		options.Region = s3utils.GetRegionFromURL(*u)
	}
	if options.Region == "" && !s3utils.IsAmazonEndpoint(*u) {
		options.Region = "us-east-1" // what nearly all others are called; AWS is asked
	}
	switch s.settings.PathStyle {
	case "on":
		options.BucketLookup = minio.BucketLookupPath
	case "off":
		options.BucketLookup = minio.BucketLookupDNS
	}
	return minio.New(u.Host, options)
}

// Close closes idle connections.
func (s *S3) Close() error {
	s.transport.CloseIdleConnections()
	return nil
}

// Linger is longer than the storage works on an abandoned request.
func (s *S3) Linger() time.Duration { return 15 * time.Minute }

// String is the bucket, the prefix and the host.
func (s *S3) String() string { return s.where }

func (s *S3) name(key string) string {
	if s.settings.Prefix == "" {
		return key
	}
	return s.settings.Prefix + "/" + key
}

// Put sends the file in one request. After a success it asks for the size, because some storage reports success
// without having the file.
func (s *S3) Put(ctx context.Context, key string, r io.Reader, size int64, contentType string) error {
	if size < 0 {
		f, n, err := spool(r)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		r, size = f, n
	}
	if size > MaxS3Size {
		return fmt.Errorf("object storage takes files of up to %d bytes, not %d", int64(MaxS3Size), size)
	}
	watch := s.watch(ctx)
	defer watch.end()
	body := &sized{watch: watch, r: r, left: size}
	if size == 0 { // nobody reads it
		if err := body.atEnd(); !errors.Is(err, io.EOF) {
			return err
		}
	}
	_, err := s.client.PutObject(watch.ctx, s.settings.Bucket, s.name(key), body, size, minio.PutObjectOptions{
		ContentType:      contentType,
		DisableMultipart: true,
		// Else, without TLS, the body is sent in chunks with a signature each, in a
		// format that not every store knows.
		DisableContentSha256: true,
	})
	if err := body.finish(); err != nil {
		return err
	}
	if err != nil {
		return s.failed(watch, err)
	}
	watch.start()
	switch stored, err := s.stat(watch, key); {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s: it accepted the file but does not have it", s.where)
	case err != nil:
		return err
	case stored.Size != size:
		return fmt.Errorf("%s: it has %d bytes of a file of %d", s.where, stored.Size, size)
	}
	return nil
}

// spool writes a file of unknown size to a temporary one without a name: object storage needs the size first.
func spool(r io.Reader) (*os.File, int64, error) {
	f, err := os.CreateTemp("", "runbell-upload-")
	if err != nil {
		return nil, 0, err
	}
	unlinked := os.Remove(f.Name()) // where it cannot be removed while it is open, it is removed later
	n, err := io.Copy(f, io.LimitReader(r, MaxS3Size+1))
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		_ = f.Close()
		if unlinked != nil {
			_ = os.Remove(f.Name())
		}
		return nil, 0, err
	}
	return f, n, nil
}

// sized is the body of an upload. It fails if its size differs from the announced one, and remembers how. The last
// bytes of a body that is too long are not sent, because object storage would then have a complete file.
type sized struct {
	watch *watch
	mu    sync.Mutex // the HTTP client may read for longer than the request takes
	r     io.Reader  // nil once the upload is over
	left  int64
	err   error
}

// Read waits for the reporter as long as necessary: only the time of the object storage counts.
func (b *sized) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.r == nil {
		return 0, fs.ErrClosed
	}
	if b.err != nil {
		return 0, b.err
	}
	b.watch.pause()
	defer b.watch.start()
	n, err := b.r.Read(p)
	b.left -= int64(n)
	if b.left == 0 && err == nil {
		err = b.atEnd()
	}
	switch ended := errors.Is(err, io.EOF); {
	case b.left < 0, ended && b.left > 0:
		b.err = errSize
	case ended:
		b.err = io.EOF
		return n, io.EOF
	default:
		b.err = err
	}
	if b.err != nil {
		return 0, b.err
	}
	return n, nil
}

// atEnd is io.EOF if nothing is left to read.
func (b *sized) atEnd() error {
	for range 100 {
		switch n, err := b.r.Read(make([]byte, 1)); {
		case n > 0:
			return errSize
		case err != nil:
			return err
		}
	}
	return io.ErrNoProgress
}

// finish ends the reading, and returns what was wrong with the body.
func (b *sized) finish() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.r = nil
	if errors.Is(b.err, io.EOF) {
		return nil
	}
	return b.err
}

// Open asks for the size. Each read after a seek makes a request from there on. The file can be read until ctx ends.
func (s *S3) Open(ctx context.Context, key string) (io.ReadSeekCloser, error) {
	watch := s.watch(ctx)
	info, err := s.stat(watch, key)
	watch.pause()
	if err != nil {
		watch.end()
		return nil, err
	}
	return &object{store: s, watch: watch, key: key, size: info.Size, encoding: info.Metadata.Get("Content-Encoding")}, nil
}

// stat asks for the size and encoding of a file.
func (s *S3) stat(w *watch, key string) (minio.ObjectInfo, error) {
	info, err := s.client.StatObject(w.ctx, s.settings.Bucket, s.name(key), minio.StatObjectOptions{})
	return info, s.failed(w, err)
}

// object is a file in object storage that is being read.
type object struct {
	store    *S3
	watch    *watch
	key      string
	size     int64
	encoding string
	offset   int64
	body     io.ReadCloser // from offset on; nil before the first read and after a seek
}

// Encoding is "gzip" if the reporter that uploaded the file said so.
func (o *object) Encoding() string {
	if o.encoding == "gzip" {
		return o.encoding
	}
	return ""
}

// Read fails if object storage sends less than the rest of the file.
func (o *object) Read(p []byte) (int, error) {
	if o.offset >= o.size {
		return 0, io.EOF
	}
	o.watch.start()
	defer o.watch.pause()
	if o.body == nil {
		if err := o.request(); err != nil {
			return 0, err
		}
	}
	n, err := o.body.Read(p[:min(int64(len(p)), o.size-o.offset)])
	o.offset += int64(n)
	switch {
	case errors.Is(err, io.EOF) && o.offset < o.size:
		return n, o.store.failed(o.watch, fmt.Errorf("it sent %d bytes of %d: %w", o.offset, o.size, io.ErrUnexpectedEOF))
	case err != nil && !errors.Is(err, io.EOF):
		return n, o.store.failed(o.watch, err)
	}
	return n, err
}

// request asks for the file from offset on.
func (o *object) request() error {
	options := minio.GetObjectOptions{}
	if o.offset > 0 {
		if err := options.SetRange(o.offset, 0); err != nil {
			return err
		}
	}
	body, _, header, err := minio.Core{Client: o.store.client}.GetObject(o.watch.ctx, o.store.settings.Bucket,
		o.store.name(o.key), options)
	if err != nil {
		return o.store.failed(o.watch, err)
	}
	if o.offset > 0 && !strings.HasPrefix(header.Get("Content-Range"), fmt.Sprintf("bytes %d-", o.offset)) {
		_ = body.Close()
		return fmt.Errorf("%s: it does not support range requests", o.store.where)
	}
	o.body = body
	return nil
}

// Seek makes no request.
func (o *object) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += o.offset
	case io.SeekEnd:
		offset += o.size
	}
	if offset < 0 {
		return o.offset, fs.ErrInvalid
	}
	if offset != o.offset {
		o.close()
		o.offset = offset
	}
	return offset, nil
}

func (o *object) close() {
	if o.body != nil {
		_ = o.body.Close() // it was read, or is not wanted
		o.body = nil
	}
}

// Close ends the requests.
func (o *object) Close() error {
	o.watch.end()
	o.close()
	return nil
}

// Delete removes a file. A failed upload left no more than that.
func (s *S3) Delete(ctx context.Context, key string) error {
	watch := s.watch(ctx)
	defer watch.end()
	err := s.failed(watch, s.client.RemoveObject(watch.ctx, s.settings.Bucket, s.name(key), minio.RemoveObjectOptions{}))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Check stores a small file, asks for it and removes it.
func (s *S3) Check(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, s3Patience, s.silent())
	defer cancel()
	if v, err := s.creds.GetWithContext(&credentials.CredContext{Context: ctx}); err != nil || v.SignerType.IsAnonymous() {
		return errors.Join(fmt.Errorf("%s: there are no credentials: set RUNBELL_S3_ACCESS_KEY_ID and "+
			"RUNBELL_S3_SECRET_ACCESS_KEY, or give the machine a role", s.where), err)
	}
	key := "check-" + rand.Text()
	return errors.Join(s.Put(ctx, key, strings.NewReader("runbell"), 7, "text/plain"), s.Delete(ctx, key))
}

// PresignPut signs the host and the content type. Other headers differ between reporters.
func (s *S3) PresignPut(ctx context.Context, key, contentType string, expires time.Duration) (string, error) {
	watch := s.watch(ctx)
	defer watch.end()
	u, err := s.public.PresignHeader(watch.ctx, http.MethodPut, s.settings.Bucket, s.name(key), expires, nil,
		http.Header{"Content-Type": {contentType}})
	if err != nil {
		return "", s.failed(watch, err)
	}
	return u.String(), nil
}

// failed turns the error of a request into one of this package.
func (s *S3) failed(w *watch, err error) error {
	if err == nil {
		return nil
	}
	if cause := context.Cause(w.ctx); cause != nil {
		return cause
	}
	response := minio.ToErrorResponse(err)
	kind := error(nil)
	switch {
	case response.Code == minio.NoSuchKey:
		kind = fs.ErrNotExist
	case response.StatusCode == http.StatusInsufficientStorage, strings.Contains(response.Code, "Quota"),
		strings.Contains(response.Code, "StorageFull"):
		kind = ErrFull
	}
	if response.Code != "" {
		err = fmt.Errorf("%s: %s (%s)", s.where, strings.TrimSuffix(response.Message, "."), response.Code)
	} else {
		err = fmt.Errorf("%s: %w", s.where, err)
	}
	if kind != nil {
		return fmt.Errorf("%w: %w", kind, err)
	}
	return err
}

func (s *S3) silent() error {
	return fmt.Errorf("%s: no progress for %s", s.where, s3Patience)
}

// watch ends a request without progress of the object storage.
type watch struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
}

func (s *S3) watch(parent context.Context) *watch {
	ctx, cancel := context.WithCancelCause(parent)
	return &watch{ctx, cancel, time.AfterFunc(s3Patience, func() { cancel(s.silent()) })}
}

// start begins to count.
func (w *watch) start() { w.timer.Reset(s3Patience) }

// pause does not count until the next start.
func (w *watch) pause() { w.timer.Stop() }

// end ends the request.
func (w *watch) end() {
	w.timer.Stop()
	w.cancel(context.Canceled)
}
