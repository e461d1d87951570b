package recorder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"sync"
	"time"
)

// artifact is a file that the server wants, and the address for its upload.
type artifact struct{ file, url, contentType string }

// video is the content type of videos.
const video = "video/mp4"

// artifactsOf pairs the files of a spec with their addresses from the server, the video
// first.
func artifactsOf(e entry, a resultsAnswer) []artifact {
	var list []artifact
	if a.VideoUploadURL != nil && *a.VideoUploadURL != "" && e.Video != "" {
		list = append(list, artifact{e.Video, *a.VideoUploadURL, video})
	}
	for _, s := range a.Screenshots {
		if file, ok := e.Screenshots[s.ScreenshotID]; ok && s.UploadURL != "" {
			list = append(list, artifact{file, s.UploadURL, "image/png"})
		}
	}
	return list
}

// uploads is how many run at once; more would only share the same bandwidth.
const uploads = 4

// upload sends files, and returns an error or nil for each. None of them makes a run fail.
func (s *server) upload(ctx context.Context, list []artifact) []error {
	var wg sync.WaitGroup
	turn := make(chan struct{}, uploads)
	errs := make([]error, len(list))
	for i, a := range list {
		turn <- struct{}{}
		wg.Go(func() {
			defer func() { <-turn }()
			errs[i] = s.put(ctx, a)
		})
	}
	wg.Wait()
	return errs
}

// uploadReport is the outcome of an upload, in the form of Cypress 13 and newer.
type uploadReport struct {
	URL     string `json:"url"`
	Success bool   `json:"success"`
	Error   string `json:"error,omitempty"`
}

// reportUploads tells the server the outcome of uploads, so that the page of the run says why a file is missing. errs
// has an error or nil for each.
func (s *server) reportUploads(ctx context.Context, instanceID string, list []artifact, errs []error) error {
	var body struct {
		Screenshots []uploadReport `json:"screenshots"`
		Video       *uploadReport  `json:"video"`
	}
	for i, a := range list {
		r := uploadReport{URL: a.url, Success: errs[i] == nil}
		if failed, ok := errors.AsType[*url.Error](errs[i]); ok {
			r.Error = failed.Err.Error() // without the address
		} else if !r.Success {
			r.Error = errs[i].Error()
		}
		if a.contentType == video {
			body.Video = &r
		} else {
			body.Screenshots = append(body.Screenshots, r)
		}
	}
	err := s.call(ctx, http.MethodPut, "/instances/"+url.PathEscape(instanceID)+"/artifacts", body, nil)
	if _, ok := refused(err); ok {
		return nil // it knows what arrived, and the rest was printed
	}
	return err
}

// put uploads one file. It does not retry for long, because the address may belong to
// another host than the server.
func (s *server) put(ctx context.Context, a artifact) error {
	var err error
	for attempt := range 4 {
		if attempt > 0 {
			select {
			case <-time.After(backoff(attempt)):
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		var again bool
		if again, err = s.putOnce(ctx, a); err == nil || !again {
			return err
		}
	}
	return err
}

func (s *server) putOnce(ctx context.Context, a artifact) (again bool, err error) {
	f, err := os.Open(a.file)
	if err != nil {
		return false, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return false, err
	}
	// A minute, and more for large files: half a megabyte per second.
	ctx, cancel := context.WithTimeout(ctx, time.Minute+time.Duration(info.Size()/(512<<10))*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, a.url, f)
	if err != nil {
		return false, err
	}
	req.ContentLength = info.Size()
	if info.Size() == 0 {
		req.Body = http.NoBody // otherwise it would be sent in chunks
	}
	req.Header.Set("Content-Type", a.contentType)
	req.Header.Set("Content-Disposition", "inline")
	req.Header.Set("User-Agent", "runbell/"+s.version)
	client := *s.http
	client.Timeout = 0
	resp, err := client.Do(req)
	if err != nil {
		return true, err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
	if resp.StatusCode/100 != 2 {
		return resp.StatusCode >= 500, fmt.Errorf("the response was %s", resp.Status)
	}
	return false, nil
}
