package app

import (
	"bytes"
	"context"
	"embed"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"runbell/internal/artifact"
	"runbell/internal/config"
	"runbell/internal/run"
	"runbell/internal/server"
	"runbell/internal/store"
)

// demoFiles are the screenshots of the recorded run by their ids, a video of each of its
// specs, and those of the made-up month.
//
//go:embed demodata/*.png demodata/*.mp4
var demoFiles embed.FS

// demoFile is what a spec of the recorded run uploads, see [replay.Player.Files].
func demoFile(spec, screenshotID string) []byte {
	name := screenshotID + ".png"
	if screenshotID == "" {
		name = spec[strings.LastIndexByte(spec, '/')+1:] + ".mp4"
	}
	return demoData(name)
}

// demoData is a file of the demo, nil if there is none of the name.
func demoData(name string) []byte {
	file, err := demoFiles.ReadFile("demodata/" + name)
	if err != nil {
		return nil
	}
	return file
}

// pastFileDays is how many days of the month have screenshots and videos.
const pastFileDays = 7

// pastFile is the file that a reporter of the month uploads to an address.
func pastFile(screenshotID string) []byte {
	if screenshotID == "" {
		return demoData("past.mp4")
	}
	return demoData(screenshotID[strings.LastIndex(screenshotID, "past-"):] + ".png")
}

// writeFiles uploads the files that the specs of the last days of the month name.
func writeFiles(ctx context.Context, db *store.DB, cfg config.Serve, since time.Time) error {
	files, err := server.OpenStore(cfg.DataDir, cfg.Storage)
	if err != nil || files == nil {
		return err
	}
	secret, err := cfg.Key()
	if err != nil {
		return err
	}
	artifacts := artifact.New(artifact.Options{DB: db, Store: files, Secret: secret, PublicURL: cfg.PublicURL,
		Max: int64(cfg.ArtifactMax), Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry()})
	outcomes, err := outcomesWithFiles(ctx, db, since)
	for id, outcome := range outcomes {
		var to artifact.Uploads
		if to, err = artifacts.Expect(ctx, id, outcome); err != nil {
			return err
		}
		if err = upload(ctx, artifacts, to.Video, pastFile("")); err != nil {
			return err
		}
		for _, shot := range to.Screenshots {
			if err = upload(ctx, artifacts, shot.UploadURL, pastFile(shot.ScreenshotID)); err != nil {
				return err
			}
		}
	}
	return err
}

func upload(ctx context.Context, artifacts *artifact.Service, to string, file []byte) error {
	address, err := url.Parse(to)
	if err != nil || to == "" {
		return err
	}
	return artifacts.Receive(ctx, artifact.Upload{ID: address.Path[strings.LastIndexByte(address.Path, '/')+1:],
		Query: address.Query(), Size: int64(len(file)), Body: bytes.NewReader(file)})
}

// outcomesWithFiles are the results, by instance, that name files to upload.
func outcomesWithFiles(ctx context.Context, db *store.DB, since time.Time) (map[string]run.Outcome, error) {
	outcomes := map[string]run.Outcome{}
	err := db.Read(ctx, func(tx *store.Tx) error {
		for _, p := range pastProjects {
			runs, _, err := tx.Runs(ctx, p.id, store.RunFilter{Since: since}, store.Page{Limit: 500})
			if err != nil {
				return err
			}
			for _, r := range runs {
				shots, err := tx.Screenshots(ctx, r.ID)
				if err != nil {
					return err
				}
				for id, list := range shots {
					outcomes[id] = run.Outcome{Screenshots: list, Video: true}
				}
			}
		}
		return nil
	})
	return outcomes, err
}
