package config

import (
	"errors"
	"path/filepath"
	"strings"

	"runbell/internal/run"
)

// Storage says where artifacts are kept.
type Storage struct {
	Artifacts   string `help:"Where screenshots, videos and coverage are kept: disk:PATH, s3://BUCKET/PREFIX, or off. Default: the directory artifacts in the data directory." var:"RUNBELL_ARTIFACTS" placeholder:"PLACE"`
	ArtifactMax Bytes  `help:"Maximum size of one artifact." var:"RUNBELL_ARTIFACT_MAX" default:"2GiB" placeholder:"SIZE"`
	S3          S3     `embed:"" prefix:"s3-"`
}

// The limits of RUNBELL_ARTIFACT_MAX.
const (
	leastArtifact = 1 << 20
	mostArtifact  = 1 << 40
)

// Dir is the directory of artifacts, "" if they are not kept in one. It checks all
// settings of artifacts.
func (s Storage) Dir(dataDir string) (string, error) {
	if s.ArtifactMax < leastArtifact || s.ArtifactMax > mostArtifact {
		return "", errors.New("RUNBELL_ARTIFACT_MAX must be between 1MiB and 1TiB")
	}
	if err := s.checkS3(); err != nil {
		return "", err
	}
	switch path, disk := strings.CutPrefix(s.Artifacts, "disk:"); {
	case s.Artifacts == "":
		return filepath.Join(dataDir, "artifacts"), nil
	case disk && path != "":
		return path, nil
	case s.Artifacts == "off", strings.HasPrefix(s.Artifacts, "s3://"):
		return "", nil
	}
	return "", errors.New("RUNBELL_ARTIFACTS must be disk:PATH, such as disk:/var/lib/runbell/artifacts, " +
		"s3://BUCKET/PREFIX, or off")
}

// Bytes is a size, written as [run.ParseSize] reads it.
type Bytes int64

// UnmarshalText reads a size.
func (b *Bytes) UnmarshalText(text []byte) error {
	n, err := run.ParseSize(string(text))
	*b = Bytes(n)
	return err
}
