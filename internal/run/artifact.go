package run

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"
)

// ArtifactKind says what an artifact is.
type ArtifactKind string

// The kinds of artifacts.
const (
	ScreenshotArtifact ArtifactKind = "screenshot"
	VideoArtifact      ArtifactKind = "video"
	CoverageArtifact   ArtifactKind = "coverage"
)

// ContentType is what files of a kind are.
func (k ArtifactKind) ContentType() string {
	switch k {
	case ScreenshotArtifact:
		return "image/png"
	case VideoArtifact:
		return "video/mp4"
	case CoverageArtifact:
		return "application/json"
	}
	return ""
}

// ArtifactID is the id of an artifact of an instance. name is the reporter's id of
// a screenshot; a video and coverage have none. The id is no secret.
func ArtifactID(instanceID string, kind ArtifactKind, name string) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d:%s%s:%s", len(instanceID), instanceID, kind, name))
	return hex.EncodeToString(sum[:16])
}

// Artifact is a file that a reporter uploaded for a spec, or why there is none.
// What was never uploaded has no artifact.
type Artifact struct {
	ID          string // see ArtifactID
	ProjectID   string
	RunID       string
	InstanceID  string
	Kind        ArtifactKind
	ContentType string
	Encoding    string // "gzip", or "" if the file is not packed
	Size        int64  // bytes of the file, as it is stored
	SHA256      string // of the file, in hexadecimal; "" if the server has not seen it
	FileKey     string // of the file in the store; "" if there is none
	// AwaitedUntil is until when the reporter may upload the file to the object
	// storage itself, any number of times; zero once that is over. Until then, Size is
	// what was last seen there: 0 if nobody has seen a file.
	AwaitedUntil time.Time
	Problem      string // why there is no file, for people; "" if there is one
	StoredAt     time.Time
}

// Stored says that the file is in the store.
func (a Artifact) Stored() bool { return a.FileKey != "" && (a.AwaitedUntil.IsZero() || a.Size > 0) }

// UploadReport is what a reporter says of an upload when it is over.
type UploadReport struct {
	Address  string // where it uploaded to
	Uploaded bool
	Why      string // it could not upload
}
