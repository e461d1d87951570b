package server

import (
	"context"

	"runbell/internal/artifact"
	"runbell/internal/config"
)

// OpenStore is where artifacts are kept; it is nil if they are not.
func OpenStore(dataDir string, cfg config.Storage) (artifact.Store, error) {
	dir, err := cfg.Dir(dataDir)
	if err != nil {
		return nil, err
	}
	if dir != "" {
		return artifact.NewDisk(dir), nil
	}
	bucket, prefix := cfg.Bucket()
	if bucket == "" {
		return nil, nil
	}
	roots, err := cfg.S3.Roots()
	if err != nil {
		return nil, err
	}
	return artifact.OpenS3(artifact.S3Settings{Bucket: bucket, Prefix: prefix, Endpoint: cfg.S3.Endpoint,
		PublicEndpoint: cfg.S3.PublicEndpoint, Region: cfg.S3.Region, AccessKeyID: cfg.S3.AccessKeyID,
		SecretAccessKey: cfg.S3.SecretAccessKey, PathStyle: cfg.S3.PathStyle, Roots: roots})
}

// keepArtifacts makes the service of artifacts, unless they are off.
func (s *Server) keepArtifacts(ctx context.Context) error {
	files, err := OpenStore(s.cfg.DataDir, s.cfg.Storage)
	if err != nil || files == nil {
		return err
	}
	secret, err := s.cfg.Key()
	if err != nil {
		return err
	}
	s.artifacts = artifact.New(artifact.Options{DB: s.db, Store: files, Secret: secret, PublicURL: s.PublicURL,
		Max: int64(s.cfg.ArtifactMax), Presign: s.cfg.S3.Presign == "on", Log: s.log, Metrics: s.registry})
	if s.db.Shared() {
		return nil
	}
	return s.artifacts.Recover(ctx)
}

// checkArtifacts warns if the store cannot be used. The server starts before that is
// known, and stays up: runs are worth more than their pictures.
func (s *Server) checkArtifacts(ctx context.Context) {
	if err := s.artifacts.Store.Check(ctx); err != nil && ctx.Err() == nil {
		s.log.Warn("screenshots and videos cannot be kept: uploads will fail until this is fixed", "store",
			s.artifacts.Store.String(), "error", err)
	}
}
