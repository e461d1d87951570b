package importer

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net/url"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"

	"runbell/internal/artifact"
	"runbell/internal/intake"
	"runbell/internal/run"
	"runbell/internal/store"
)

// sorryFiles are the addresses of what was uploaded for an instance.
type sorryFiles struct {
	Results intake.Object[struct {
		Screenshots intake.List[struct {
			ID  intake.Text `json:"screenshotId"`
			URL intake.Text `json:"screenshotURL"`
		}] `json:"screenshots"`
		VideoURL intake.Text `json:"videoUrl"`
	}] `json:"results"`
}

// copyFiles copies the screenshots and videos of all imported runs. Those that were
// copied before stay.
func (im *sorryImport) copyFiles(ctx context.Context, runs string) error {
	return eachDocument(runs, func(_ int64, doc bson.Raw) error {
		var r sorryRun
		if err := decode(doc, &r); err != nil {
			return nil //nolint:nilerr // it was a problem before
		}
		for _, s := range r.Specs {
			if err := im.copySpec(ctx, r, s); err != nil {
				return err
			}
		}
		return ctx.Err()
	})
}

// copySpec copies what was uploaded for one spec.
func (im *sorryImport) copySpec(ctx context.Context, r sorryRun, s sorrySpec) error {
	doc, ok, err := im.instances.get(string(s.InstanceID))
	if err != nil || !ok {
		return err
	}
	var files sorryFiles
	if err := decode(doc, &files); err != nil {
		return nil //nolint:nilerr // its results are a problem already
	}
	from := map[string]string{} // addresses at sorry-cypress, by the artifact's id
	var instance run.Instance
	var outcome run.Outcome
	var there []run.Artifact
	err = im.DB.Read(ctx, func(tx *store.Tx) (err error) {
		if instance, err = tx.SpecInstance(ctx, string(r.RunID), string(s.GroupID), string(s.Spec)); err != nil {
			return err
		}
		if _, outcome, err = tx.Tests(ctx, instance.ID); err != nil {
			return err
		}
		there, err = tx.Artifacts(ctx, string(r.RunID), instance.ID)
		return err
	})
	if run.KindOf(err) == run.NotFound {
		return nil // the run was not imported
	}
	if err != nil {
		return err
	}
	for _, shot := range files.Results.Value.Screenshots {
		from[run.ArtifactID(instance.ID, run.ScreenshotArtifact, string(shot.ID))] = string(shot.URL)
	}
	from[run.ArtifactID(instance.ID, run.VideoArtifact, "")] = string(files.Results.Value.VideoURL)
	for _, a := range there {
		if a.FileKey != "" {
			delete(from, a.ID)
		}
	}
	uploads, err := im.Artifacts.Expect(ctx, instance.ID, outcome)
	if err != nil {
		return err
	}
	addresses := []string{uploads.Video}
	for _, shot := range uploads.Screenshots {
		addresses = append(addresses, shot.UploadURL)
	}
	for _, to := range addresses {
		if err := im.copyFile(ctx, from, to); err != nil {
			return err
		}
	}
	return nil
}

// copyFile uploads one file to an address of an artifact, if it is still wanted.
func (im *sorryImport) copyFile(ctx context.Context, from map[string]string, to string) error {
	address, err := url.Parse(to)
	if err != nil {
		return err
	}
	id := address.Path[strings.LastIndexByte(address.Path, '/')+1:]
	if from[id] == "" {
		return nil
	}
	f, err := openFile(ctx, im.Files, from[id])
	if errors.Is(err, fs.ErrNotExist) {
		im.problem("There is no file for %s in %s.", from[id], im.Files)
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return err
	}
	err = im.Artifacts.Receive(ctx, artifact.Upload{ID: id, Query: address.Query(), Size: size, Body: f})
	if kind := run.KindOf(err); kind == run.TooLarge || kind == run.Invalid {
		im.problem("%s is not imported: %v", from[id], err)
		return nil
	}
	if err == nil {
		im.count(func(r *Report) { r.Files++ })
	}
	return err
}

// openFile finds a file by the end of its address: what is before the key, such as a
// bucket or a prefix, may be in the address and not in the copy.
func openFile(ctx context.Context, files artifact.Store, address string) (io.ReadSeekCloser, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, fs.ErrNotExist
	}
	for key := strings.Trim(u.Path, "/"); key != ""; {
		f, err := files.Open(ctx, key)
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return f, err
		}
		_, key, _ = strings.Cut(key, "/")
	}
	return nil, fs.ErrNotExist
}
