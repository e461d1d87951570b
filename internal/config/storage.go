package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
)

// Storage says where artifacts are kept.
type Storage struct {
	Artifacts   string `help:"Where screenshots, videos and coverage are kept: disk:PATH, s3://BUCKET/PREFIX, or off; empty is the directory artifacts in the data directory." var:"RUNBELL_ARTIFACTS" placeholder:"PLACE"`
	ArtifactMax Bytes  `help:"Size of one artifact at most." var:"RUNBELL_ARTIFACT_MAX" default:"2GiB" placeholder:"SIZE"`
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

// Bytes is a size, written as a number with B, KiB, MiB, GiB or TiB behind it.
type Bytes int64

// UnmarshalText reads a size.
func (b *Bytes) UnmarshalText(text []byte) error {
	for shift, unit := range map[int]string{40: "TiB", 30: "GiB", 20: "MiB", 10: "KiB"} {
		if number, ok := strings.CutSuffix(string(text), unit); ok {
			n, err := strconv.ParseUint(strings.TrimSpace(number), 10, 20)
			*b = Bytes(n << shift)
			return sizeError(err, text)
		}
	}
	n, err := strconv.ParseUint(strings.TrimSpace(strings.TrimSuffix(string(text), "B")), 10, 62)
	*b = Bytes(n)
	return sizeError(err, text)
}

func sizeError(err error, text []byte) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%q is not a size such as 500MiB or 2GiB", text)
}
