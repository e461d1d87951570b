package server

import (
	"context"

	"runbell/internal/artifact"
	"runbell/internal/config"
)

// OpenStore is where artifacts are kept; it is nil if they are not.
func OpenStore(dataDir string, cfg config.Storage) (artifact.Store, error) {
	dir, err := cfg.Dir(dataDir)
	if err != nil || dir == "" {
		return nil, err
	}
	return artifact.NewDisk(dir), nil
}

// keepArtifacts makes the service of artifacts, unless they are off. A server whose
// store cannot be used starts all the same: runs are worth more than their pictures.
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
		Max: int64(s.cfg.ArtifactMax), Log: s.log, Metrics: s.registry})
	if err := files.Check(ctx); err != nil {
		s.log.Warn("screenshots and videos cannot be kept: uploads will fail until this is mended", "store", files.String(), "error", err)
	}
	if s.db.Shared() {
		return nil
	}
	return s.artifacts.Recover(ctx)
}
