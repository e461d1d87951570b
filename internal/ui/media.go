package ui

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"runbell/internal/run"
)

// A page shows pictures of maxPictures bytes in all, and of maxPicture each. Links
// lead to the others, which the browser loads when the reader wants to see them.
const (
	maxPicture  = 2 << 20
	maxPictures = 16 << 20
	// maxSide is more pixels than a screenshot can have.
	maxSide = 1 << 16
)

// uploading is how long after the results a file of a spec may still arrive.
const uploading = 10 * time.Minute

// picture is a screenshot, or why it cannot be shown.
type picture struct {
	URL           string // "" if there is no file
	Caption       string // for a large view: of which test and attempt
	Label         string // below the picture
	Width, Height int    // in pixels; 0 if not known
	Size          string // of one that is too large to be shown at once, else ""
	Missing       string // why there is no file
}

// clip is a place in the video of a spec, or why there is no video.
type clip struct {
	URL     string
	Caption string
	Label   string
	Missing string
}

// uploads are the files of a spec, by the ids of their artifacts. They are read once, and only if the results name
// any.
func (x *specReader) uploads(s specRef, t specTests) (map[string]run.Artifact, error) {
	if known, ok := x.files[s.ID]; ok || !t.video && !t.coverage && len(t.screenshots) == 0 {
		return known, nil
	}
	list, err := x.tx.Artifacts(x.ctx, x.run.ID, s.ID)
	if err != nil {
		return nil, err
	}
	files := make(map[string]run.Artifact, len(list))
	for _, a := range list {
		files[a.ID] = a
	}
	x.files[s.ID] = files
	return files, nil
}

// missing says why a file of a spec cannot be shown; "" if it can.
func (x *specReader) missing(s specRef, a run.Artifact) string {
	now := x.tx.Now
	switch {
	case x.u.artifacts == nil:
		return "This server does not store artifacts."
	case a.Stored():
		return ""
	case a.Problem != "":
		return run.Clip(run.Plain(a.Problem), 600)
	case a.ID == "" && !x.run.ArtifactsRemovedAt.IsZero():
		return "Removed on " + x.run.ArtifactsRemovedAt.UTC().Format("2 Jan 2006") + " by the project’s retention settings."
	case a.AwaitedUntil.After(now), a.ID == "" && now.Sub(s.CompletedAt) < uploading:
		return "Not uploaded yet."
	}
	return "The reporter did not upload it."
}

// pictures shows screenshots of a spec, up to the limit of the page. name is what they
// are of; tried says that there are attempts to tell apart.
func (x *specReader) pictures(s specRef, t specTests, shots []run.Screenshot, name string,
	tried bool) ([]picture, error) {
	if len(shots) == 0 {
		return nil, nil
	}
	files, err := x.uploads(s, t)
	if err != nil {
		return nil, err
	}
	var out []picture
	for _, shot := range shots[:min(len(shots), x.limits.pictures)] {
		a := files[run.ArtifactID(s.ID, run.ScreenshotArtifact, shot.ID)]
		p := picture{Caption: name, Label: run.Clip(run.Plain(shot.Name), 100), Missing: x.missing(s, a)}
		if p.Label == "screenshot" { // what cypress-cloud calls those of failures
			p.Label = ""
		}
		if tried {
			number := strconv.Itoa(shot.Attempt + 1)
			p.Caption += ", attempt " + number
			p.Label = joined("Attempt "+number, p.Label)
		}
		if p.Missing == "" {
			p.URL = x.u.fileURL(a.ID)
			if min(shot.Width, shot.Height) > 0 && max(shot.Width, shot.Height) <= maxSide {
				p.Width, p.Height = shot.Width, shot.Height
			}
			if x.pictured += a.Size; a.Size > maxPicture || x.pictured > maxPictures {
				x.pictured -= a.Size
				p.Size = size(int(a.Size))
			}
		}
		out = append(out, p)
	}
	return together(out), nil
}

// together makes one note of pictures that are all missing for the same reason.
func together(list []picture) []picture {
	if len(list) < 2 || list[0].Missing == "" ||
		slices.ContainsFunc(list, func(p picture) bool { return p.Missing != list[0].Missing }) {
		return list
	}
	return []picture{{Missing: list[0].Missing, Label: count(len(list), "screenshot")}}
}

func joined(a, b string) string {
	if b == "" {
		return a
	}
	return a + ": " + b
}

// clips leads to attempts of a test in the video of its spec. Without attempts that
// say where they begin, it is the beginning of the video.
func (x *specReader) clips(s specRef, t specTests, attempts []numbered, name string) ([]clip, error) {
	if !t.video {
		return nil, nil
	}
	files, err := x.uploads(s, t)
	if err != nil {
		return nil, err
	}
	a := files[run.ArtifactID(s.ID, run.VideoArtifact, "")]
	if why := x.missing(s, a); why != "" {
		return []clip{{Missing: why}}, nil
	}
	var out []clip
	for _, n := range attempts {
		if n.VideoAt <= 0 || n.VideoAt > maxVideo.Milliseconds() {
			continue
		}
		c := clip{URL: x.u.fileURL(a.ID) + fmt.Sprintf("#t=%.3f", float64(n.VideoAt)/1000), Caption: name,
			Label: "Video at " + minutes(n.VideoAt)}
		if n.of > 1 {
			c.Caption += ", attempt " + strconv.Itoa(n.number)
			c.Label = fmt.Sprintf("Attempt %d at %s", n.number, minutes(n.VideoAt))
		}
		out = append(out, c)
	}
	if len(out) == 0 {
		out = append(out, clip{URL: x.u.fileURL(a.ID), Caption: name, Label: "Video"})
	}
	return out, nil
}

// coverage links to the code coverage; nil if the reporter named none.
func (x *specReader) coverage(s specRef, t specTests) (*clip, error) {
	if !t.coverage {
		return nil, nil
	}
	files, err := x.uploads(s, t)
	if err != nil {
		return nil, err
	}
	a := files[run.ArtifactID(s.ID, run.CoverageArtifact, "")]
	return &clip{URL: x.u.fileURL(a.ID), Missing: x.missing(s, a)}, nil
}

// numbered is an attempt of a test with its number, from 1.
type numbered struct {
	run.Attempt
	number, of int
}

// maxVideo is longer than a spec can take.
const maxVideo = 24 * time.Hour

// minutes writes a place in a video, in milliseconds, as players do.
func minutes(ms int64) string {
	s := ms / 1000
	if s >= 3600 {
		return fmt.Sprintf("%d:%02d:%02d", s/3600, s/60%60, s%60)
	}
	return fmt.Sprintf("%d:%02d", s/60, s%60)
}

// fileURL is where a file is read by those who may see its run.
func (u *ui) fileURL(id string) string { return u.base + "/files/" + id }
