package config

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// S3 says how to reach the object storage of a bucket that RUNBELL_ARTIFACTS names.
type S3 struct {
	Endpoint        string `help:"URL of the object storage, such as https://minio.example.com:9000. Default: AWS." var:"RUNBELL_S3_ENDPOINT" placeholder:"URL"`
	PublicEndpoint  string `help:"URL of the object storage for reporters, if it differs; for --s3-presign." var:"RUNBELL_S3_PUBLIC_ENDPOINT" placeholder:"URL"`
	Region          string `help:"Region of the bucket. Default: the one that AWS reports; us-east-1 elsewhere." var:"RUNBELL_S3_REGION" placeholder:"REGION"`
	AccessKeyID     string `help:"Access key. Default: the usual AWS sources." var:"RUNBELL_S3_ACCESS_KEY_ID" secret:"" placeholder:"ID"`
	SecretAccessKey string `help:"Secret of the access key." var:"RUNBELL_S3_SECRET_ACCESS_KEY" secret:"" placeholder:"SECRET"`
	PathStyle       string `help:"Where URLs have the bucket: 'on' in the path, 'off' in the host name, 'auto' in the host name for AWS and Google only." var:"RUNBELL_S3_PATH_STYLE" default:"auto" placeholder:"WHERE"`
	CAFile          string `help:"PEM file with additional certificate authorities, for object storage with a private one." var:"RUNBELL_S3_CA_FILE" placeholder:"FILE"`
	Presign         string `help:"'on': reporters upload to the object storage themselves, not through Runbell." var:"RUNBELL_S3_PRESIGN" default:"off" placeholder:"on|off"`
}

// mostS3 is what object storage takes in one request.
const mostS3 = 5 << 30

var bucketName = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)

// Bucket is where in object storage artifacts are kept; the bucket is "" if they are
// not kept there.
func (s Storage) Bucket() (bucket, prefix string) {
	place, ok := strings.CutPrefix(s.Artifacts, "s3://")
	if !ok {
		return "", ""
	}
	bucket, prefix, _ = strings.Cut(place, "/")
	return bucket, strings.TrimSuffix(prefix, "/")
}

// checkS3 says what is wrong with the settings of object storage.
func (s Storage) checkS3() error {
	if !slices.Contains([]string{"", "auto", "on", "off"}, s.S3.PathStyle) {
		return errors.New("RUNBELL_S3_PATH_STYLE must be auto, on or off")
	}
	if !slices.Contains([]string{"", "on", "off"}, s.S3.Presign) {
		return errors.New("RUNBELL_S3_PRESIGN must be on or off")
	}
	if !strings.HasPrefix(s.Artifacts, "s3://") {
		for _, set := range [][2]string{{"ENDPOINT", s.S3.Endpoint}, {"PUBLIC_ENDPOINT", s.S3.PublicEndpoint},
			{"ACCESS_KEY_ID", s.S3.AccessKeyID}} {
			if set[1] != "" {
				return fmt.Errorf("RUNBELL_S3_%s is set, but RUNBELL_ARTIFACTS names no bucket: set it to s3://BUCKET", set[0])
			}
		}
		if s.S3.Presign == "on" {
			return errors.New("RUNBELL_S3_PRESIGN is on, but RUNBELL_ARTIFACTS names no bucket: set it to s3://BUCKET")
		}
		return nil
	}
	bucket, prefix := s.Bucket()
	switch {
	case !bucketName.MatchString(bucket):
		return errors.New("RUNBELL_ARTIFACTS must be s3://BUCKET or s3://BUCKET/PREFIX, where BUCKET has 3 to 63 lower " +
			"case letters, digits, dots and hyphens")
	case prefix != "" && slices.ContainsFunc(strings.Split(prefix, "/"),
		func(part string) bool { return part == "" || part == "." || part == ".." }):
		return errors.New("RUNBELL_ARTIFACTS: the prefix after the bucket must be names with one slash between them, such " +
			"as runbell/artifacts")
	case (s.S3.AccessKeyID == "") != (s.S3.SecretAccessKey == ""):
		return errors.New("RUNBELL_S3_ACCESS_KEY_ID and RUNBELL_S3_SECRET_ACCESS_KEY go together: set both or neither")
	case s.ArtifactMax > mostS3:
		return errors.New("RUNBELL_ARTIFACT_MAX must be 5GiB or less: object storage takes no more at once")
	}
	_, err := s.S3.Roots()
	return errors.Join(checkEndpoint("RUNBELL_S3_ENDPOINT", s.S3.Endpoint),
		checkEndpoint("RUNBELL_S3_PUBLIC_ENDPOINT", s.S3.PublicEndpoint), err)
}

func checkEndpoint(variable, endpoint string) error {
	if endpoint == "" {
		return nil
	}
	u, err := url.Parse(endpoint)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" || u.User != nil ||
		strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return fmt.Errorf("%s must be a URL such as https://minio.example.com:9000, without the bucket, user, path and query",
			variable)
	}
	return nil
}

// Roots are the authorities of certificates that object storage may have, nil for
// those of the system alone.
func (s S3) Roots() (*x509.CertPool, error) { return roots("RUNBELL_S3_CA_FILE", s.CAFile) }
