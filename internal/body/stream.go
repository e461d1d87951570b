package body

import (
	"errors"
	"io"
	"net/http"
	"os"
	"time"

	"runbell/internal/run"
)

// quiet is how long nothing of a stream may arrive: one that was fast for long does
// not earn a long pause.
const quiet = time.Minute

// Longest is how long a body of size bytes may take.
func Longest(size int64) time.Duration {
	return grace + time.Duration(float64(size)/minRate*float64(time.Second))
}

// Stream is the body of a request that is read as it comes, of any size. It must
// come at the pace of other bodies; the error says so. The limits of the server on
// how long a request may take do not hold for it.
func Stream(w http.ResponseWriter, r *http.Request) io.Reader {
	conn := http.NewResponseController(w)
	_ = conn.SetWriteDeadline(time.Time{})
	return &stream{from: r.Body, conn: conn, began: time.Now()}
}

type stream struct {
	from  io.Reader
	conn  *http.ResponseController
	began time.Time
	size  int64
}

func (s *stream) Read(p []byte) (int, error) {
	latest := s.began.Add(Longest(s.size))
	if soon := time.Now().Add(quiet); soon.Before(latest) {
		latest = soon
	}
	_ = s.conn.SetReadDeadline(latest)
	n, err := s.from.Read(p)
	s.size += int64(n)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = run.Errorf(run.Unavailable, "The file arrived too slowly: send at least %s a second, without long pauses.",
			size(minRate))
	}
	if err != nil {
		_ = s.conn.SetReadDeadline(time.Time{}) // at the end the server waits for the next request
	}
	return n, err
}

// Answer gives the sender of a stream some time to read the answer.
func Answer(w http.ResponseWriter) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(quiet))
}
