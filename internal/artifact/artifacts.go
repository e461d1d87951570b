package artifact

import (
	"context"
	"io"
	"log/slog"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"runbell/internal/run"
	"runbell/internal/store"
)

const (
	// uploadLife is how long the addresses that a reporter gets for uploads are valid.
	uploadLife = 6 * time.Hour
	// mostUploads is how many files are received at once.
	mostUploads = 256
)

// Options are what a Service works with.
type Options struct {
	DB    *store.DB
	Store Store
	// Secret is the server's secret key, from which the key for signatures is made.
	Secret []byte
	// PublicURL is the base of the addresses, without a trailing slash.
	PublicURL string
	// Max is how many bytes one file may have.
	Max     int64
	Log     *slog.Logger
	Metrics prometheus.Registerer
}

// Service says where reporters upload, receives what they upload, and reads it.
// Its methods may be called from any goroutine. A nil Service keeps nothing.
type Service struct {
	Options
	signer  signer
	slots   chan struct{} // one for each file that is received
	metrics metrics
}

// New makes a Service, which registers its metrics.
func New(o Options) *Service {
	return &Service{Options: o, signer: newSigner(o.Secret), slots: make(chan struct{}, mostUploads), metrics: newMetrics(o.Metrics)}
}

// Recover forgets what was uploaded when the last process ended. It is for the
// start of the only process that uses the database.
func (s *Service) Recover(ctx context.Context) error {
	return s.DB.Write(ctx, func(tx *store.Tx) error { return tx.AbandonUploads(ctx) })
}

// Uploads are the addresses where a reporter may upload what belongs to a spec.
type Uploads struct {
	Screenshots []ScreenshotUpload
	Video       string // "" if there is none, or nobody wants it
	Coverage    string
}

// ScreenshotUpload is where one screenshot goes.
type ScreenshotUpload struct {
	ScreenshotID string // the reporter's
	UploadURL    string
	ReadURL      string // for those who may see the run
}

// Expect says where what an outcome speaks of is to be uploaded. The same outcome
// gets addresses of the same artifacts again.
func (s *Service) Expect(ctx context.Context, instanceID string, o run.Outcome) (Uploads, error) {
	var u Uploads
	if s == nil {
		return u, nil
	}
	for _, shot := range o.Screenshots {
		address := s.uploadURL(instanceID, run.ScreenshotArtifact, shot.ID)
		u.Screenshots = append(u.Screenshots, ScreenshotUpload{shot.ID, address, s.URL(run.ArtifactID(instanceID, run.ScreenshotArtifact, shot.ID))})
	}
	if o.Coverage {
		u.Coverage = s.uploadURL(instanceID, run.CoverageArtifact, "")
	}
	if !o.Video {
		return u, nil
	}
	var announced run.Announcement
	err := s.DB.Read(ctx, func(tx *store.Tx) (err error) {
		announced, err = tx.Announcement(ctx, instanceID)
		return err
	})
	counts := run.Count(o.Results, o.Exception)
	if err == nil && announced.Settings.WantsVideo(counts.Failures+counts.Skipped > 0) {
		u.Video = s.uploadURL(instanceID, run.VideoArtifact, "")
	}
	return u, err
}

// uploadURL is where one PUT goes, or the same again. Node before 20 tries IPv6 for
// localhost and stops there, and the server listens on IPv4.
func (s *Service) uploadURL(instanceID string, kind run.ArtifactKind, name string) string {
	id := run.ArtifactID(instanceID, kind, name)
	query := url.Values{"instance": {instanceID}, "kind": {string(kind)}, "type": {kind.ContentType()}, "max": {strconv.FormatInt(s.Max, 10)}}
	return strings.Replace(s.URL(id), "//localhost:", "//127.0.0.1:", 1) + "?" + s.signer.sign(uploads, id, query, s.DB.Now().Add(uploadLife)).Encode()
}

// URL is where those who may see its run read an artifact.
func (s *Service) URL(id string) string { return s.PublicURL + "/files/" + id }

// Link is an address that shows an artifact to anyone who has it, for some time.
func (s *Service) Link(id string, life time.Duration) string {
	return s.URL(id) + "?" + s.signer.sign(reads, id, url.Values{}, s.DB.Now().Add(life)).Encode()
}

// CheckLink returns an error of kind Forbidden unless Link has made the query of an
// address and it has not expired.
func (s *Service) CheckLink(id string, query url.Values) error {
	return s.signer.check(reads, id, query, s.DB.Now())
}

// Open opens the file of an artifact. The error is of kind NotFound if there is
// none, and says why.
func (s *Service) Open(ctx context.Context, a run.Artifact) (io.ReadSeekCloser, error) {
	switch {
	case !a.AwaitedUntil.IsZero():
		return nil, run.Errorf(run.NotFound, "This file was not uploaded yet.")
	case a.Problem != "":
		return nil, run.Errorf(run.NotFound, "There is no file: %s", a.Problem)
	}
	f, err := s.Store.Open(ctx, a.FileKey)
	if err != nil {
		return nil, s.unreadable(a, err)
	}
	// What is shorter or longer than it was is not what was uploaded.
	size, err := f.Seek(0, io.SeekEnd)
	if err == nil && size == a.Size {
		_, err = f.Seek(0, io.SeekStart)
	} else if err == nil {
		err = errSize
	}
	if err != nil {
		_ = f.Close()
		return nil, s.unreadable(a, err)
	}
	return f, nil
}

// unreadable is the error of a file that should be there.
func (s *Service) unreadable(a run.Artifact, err error) error {
	s.Log.Error("cannot read a file", "artifact", a.ID, "run", a.RunID, "key", a.FileKey, "store", s.Store.String(), "error", err)
	return run.Errorf(run.Unavailable, "The file cannot be read from where the server keeps files: the server's log says why.")
}
