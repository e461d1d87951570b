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
	// LinkLife is how long, at least, a link is valid for people and programs without a session or a key.
	LinkLife = 7 * 24 * time.Hour
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
	Max int64
	// Presign has reporters upload to the store themselves, if it is a Presigner.
	Presign bool
	Log     *slog.Logger
	Metrics prometheus.Registerer
}

// Service says where reporters upload, receives their uploads, and reads them. Its methods may be called from any
// goroutine. A nil Service stores nothing.
type Service struct {
	Options
	signer  signer
	slots   chan struct{} // one for each file that is received
	shown   chan string   // runs whose files are to be looked at
	metrics metrics
}

// New makes a Service, which registers its metrics.
func New(o Options) *Service {
	return &Service{Options: o, signer: newSigner(o.Secret), slots: make(chan struct{}, mostUploads),
		shown: make(chan string, mostWaiting), metrics: newMetrics(o.Metrics)}
}

// Recover forgets the uploads that the last process left incomplete. Call it at the start of the only process that
// uses the database.
func (s *Service) Recover(ctx context.Context) error {
	return s.DB.Write(ctx, func(tx *store.Tx) error { return tx.AbandonUploads(ctx, tx.Now.Add(s.Store.Linger())) })
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

// expected is an artifact that a reporter may upload.
type expected struct {
	kind run.ArtifactKind
	name string // see run.ArtifactID
}

// Expect returns where the files of an outcome are to be uploaded. The same outcome gets the addresses of the same
// artifacts again.
func (s *Service) Expect(ctx context.Context, instanceID string, o run.Outcome) (Uploads, error) {
	if s == nil {
		return Uploads{}, nil
	}
	wanted, err := s.wanted(ctx, instanceID, o)
	if err != nil {
		return Uploads{}, err
	}
	addresses := s.addresses(ctx, instanceID, wanted)
	var u Uploads
	for n, w := range wanted {
		switch w.kind {
		case run.ScreenshotArtifact:
			u.Screenshots = append(u.Screenshots,
				ScreenshotUpload{w.name, addresses[n], s.URL(run.ArtifactID(instanceID, w.kind, w.name))})
		case run.VideoArtifact:
			u.Video = addresses[n]
		case run.CoverageArtifact:
			u.Coverage = addresses[n]
		}
	}
	return u, nil
}

// wanted lists the files of an outcome that are to be uploaded.
func (s *Service) wanted(ctx context.Context, instanceID string, o run.Outcome) (list []expected, err error) {
	for _, shot := range o.Screenshots {
		list = append(list, expected{run.ScreenshotArtifact, shot.ID})
	}
	if o.Coverage {
		list = append(list, expected{kind: run.CoverageArtifact})
	}
	if !o.Video {
		return list, nil
	}
	var announced run.Announcement
	err = s.DB.Read(ctx, func(tx *store.Tx) (err error) {
		announced, err = tx.Announcement(ctx, instanceID)
		return err
	})
	counts := o.Counts()
	if err == nil && announced.Settings.WantsVideo(counts.Failures+counts.Skipped > 0) {
		list = append(list, expected{kind: run.VideoArtifact})
	}
	return list, err
}

// addresses are where artifacts go: to the server, or to the storage if reporters
// upload there and it can say where.
func (s *Service) addresses(ctx context.Context, instanceID string, wanted []expected) []string {
	if presigner, ok := s.Store.(Presigner); ok && s.Presign && len(wanted) > 0 {
		list, err := s.await(ctx, presigner, instanceID, wanted)
		if err == nil {
			return list
		}
		s.Log.Warn("cannot create an upload address in the storage: reporters upload to this server",
			"store", s.Store.String(), "error", err)
	}
	list := make([]string, len(wanted))
	for n, w := range wanted {
		list[n] = s.uploadURL(instanceID, w.kind, w.name)
	}
	return list
}

// uploadURL is where one PUT goes, or the same again. Node before 20 tries IPv6 for
// localhost and stops there, and the server listens on IPv4.
func (s *Service) uploadURL(instanceID string, kind run.ArtifactKind, name string) string {
	id := run.ArtifactID(instanceID, kind, name)
	query := url.Values{"instance": {instanceID}, "kind": {string(kind)}, "type": {kind.ContentType()},
		"max": {strconv.FormatInt(s.Max, 10)}}
	return strings.Replace(s.URL(id), "//localhost:", "//127.0.0.1:", 1) + "?" +
		s.signer.sign(uploads, id, query, s.DB.Now().Add(uploadLife)).Encode()
}

// URL is where people who may see its run read an artifact.
func (s *Service) URL(id string) string { return s.PublicURL + "/files/" + id }

// Link is an address that shows an artifact to anyone who has it, until it expires.
func (s *Service) Link(id string, expires time.Time) string {
	return s.URL(id) + "?" + s.signer.sign(reads, id, url.Values{}, expires).Encode()
}

// CheckLink returns an error of kind Forbidden unless Link has made the query of an
// address and it has not expired.
func (s *Service) CheckLink(id string, query url.Values) error {
	if err := s.signer.check(reads, id, query); err != nil {
		return err
	}
	return expired(query, s.DB.Now())
}

// Open opens the file of an artifact. The error is of kind NotFound if there is
// none, and says why.
func (s *Service) Open(ctx context.Context, a run.Artifact) (io.ReadSeekCloser, error) {
	if !a.AwaitedUntil.IsZero() {
		var err error
		if a, err = s.look(ctx, a); err != nil {
			return nil, s.unreadable(a, err)
		}
	}
	switch {
	case a.Problem != "":
		return nil, run.Errorf(run.NotFound, "There is no file: %s", a.Problem)
	case !a.Stored():
		return nil, run.Errorf(run.NotFound, "This file has not been uploaded yet.")
	}
	f, err := s.Store.Open(ctx, a.FileKey)
	if err != nil {
		return nil, s.unreadable(a, err)
	}
	// A file of another size is not the one that was uploaded.
	size, err := f.Seek(0, io.SeekEnd)
	if err == nil && (size == a.Size || a.SHA256 == "") { // otherwise only the reporter has seen it
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
	s.Log.Error("cannot read a file", "artifact", a.ID, "run", a.RunID, "key", a.FileKey, "store", s.Store.String(),
		"error", err)
	return run.Errorf(run.Unavailable,
		"The server cannot read the file: its log says why.")
}
