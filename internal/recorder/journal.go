package recorder

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
)

// journal is the file to which results are written before they are sent. Results that
// cannot be sent stay there for 'runbell cypress upload', even if this process is
// killed. Lines are only added. Memory has their positions, not their content.
type journal struct {
	path string

	mu      sync.Mutex
	file    *os.File
	full    bool // the file cannot grow: further lines are in memory only
	size    int64
	header  header
	joined  joined
	entries []place
}

// line is one line of the file: one of its fields is set.
type line struct {
	Header *header `json:"header,omitempty"`
	Joined *joined `json:"joined,omitempty"`
	Entry  *entry  `json:"entry,omitempty"`
	Sent   *int    `json:"sent,omitempty"` // the number of an entry that is no longer needed
}

// header is the first line of the file.
type header struct {
	Version int         `json:"version"`
	Server  string      `json:"server"`
	Cypress string      `json:"cypress"`
	Join    joinRequest `json:"join"`
}

// entry is the results of a spec.
type entry struct {
	Spec       string `json:"spec"`
	InstanceID string `json:"instanceId,omitempty"` // "" if the server does not know the spec
	// Report is the body for the server.
	Report      json.RawMessage   `json:"report"`
	Output      string            `json:"output"`
	Video       string            `json:"video,omitempty"`
	Screenshots map[string]string `json:"screenshots,omitempty"`
}

type place struct {
	spec       string
	at, length int64
	held       *entry // nil if it is in the file
	sent       bool
}

const journalVersion = 1

func createJournal(path string, h header) (*journal, error) {
	var f *os.File
	var err error
	if path == "" {
		f, err = os.CreateTemp("", "runbell-results-*.jsonl")
	} else {
		// A file from an earlier run may still be needed.
		name := path
		for n := 1; n < 100; n++ {
			if f, err = os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600); !errors.Is(err, fs.ErrExist) {
				break
			}
			name = fmt.Sprintf("%s.%d", path, n)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("no file for results that cannot be sent: %w; set --results-file or TMPDIR to a "+
			"place where files can be written", err)
	}
	h.Version = journalVersion
	h.Join.RecordKey = ""
	j := &journal{path: f.Name(), file: f, header: h}
	if _, err := j.append(line{Header: &h}); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return j, nil
}

// openJournal reads a file from an earlier run.
func openJournal(path string) (*journal, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	j := &journal{path: path, file: f}
	r := bufio.NewReaderSize(f, 64<<10)
	for {
		text, err := r.ReadBytes('\n')
		if err == io.EOF {
			break // the text after the last line feed is incomplete
		}
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		var l line
		if err := json.Unmarshal(text, &l); err != nil ||
			j.size == 0 && (l.Header == nil || l.Header.Version != journalVersion) {
			_ = f.Close()
			return nil, fmt.Errorf("%s is not a file that 'runbell cypress run' has left", path)
		}
		j.note(l, int64(len(text)))
	}
	if j.size == 0 {
		_ = f.Close()
		return nil, fmt.Errorf("%s is empty", path)
	}
	return j, nil
}

// note takes a line into memory.
func (j *journal) note(l line, length int64) {
	switch {
	case l.Header != nil:
		j.header = *l.Header
	case l.Joined != nil:
		j.joined = *l.Joined
	case l.Entry != nil:
		j.entries = append(j.entries, place{spec: l.Entry.Spec, at: j.size, length: length})
	case l.Sent != nil && *l.Sent >= 0 && *l.Sent < len(j.entries):
		j.entries[*l.Sent].sent = true
	}
	j.size += length
}

// append adds a line; number is the entry's. A full disk is reported once. From then on
// lines are only in memory, which is enough to send them.
func (j *journal) append(l line) (number int, err error) {
	text, err := json.Marshal(l)
	if err != nil {
		return -1, err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.full {
		if _, err = j.file.WriteAt(append(text, '\n'), j.size); err != nil {
			j.full = true
			err = fmt.Errorf("results can no longer be kept in a file: %w", err)
		}
	}
	j.note(l, int64(len(text)+1))
	if l.Entry != nil && j.full {
		j.entries[len(j.entries)-1].held = l.Entry
	}
	return len(j.entries) - 1, err
}

// entry reads an entry again.
func (j *journal) entry(number int) (entry, error) {
	j.mu.Lock()
	p := j.entries[number]
	j.mu.Unlock()
	if p.held != nil {
		return *p.held, nil
	}
	text := make([]byte, p.length)
	if _, err := j.file.ReadAt(text, p.at); err != nil {
		return entry{}, err
	}
	var l line
	err := json.Unmarshal(text, &l)
	if err == nil && l.Entry == nil {
		err = errors.New("the journal does not contain what was written")
	}
	if err != nil {
		return entry{}, err
	}
	return *l.Entry, nil
}

// lost counts the entries that neither the server nor the file has.
func (j *journal) lost() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	n := 0
	for _, p := range j.entries {
		if p.held != nil && !p.sent {
			n++
		}
	}
	return n
}

// unsent lists the numbers of the entries that the server does not have.
func (j *journal) unsent() []int {
	j.mu.Lock()
	defer j.mu.Unlock()
	var list []int
	for n, p := range j.entries {
		if !p.sent {
			list = append(list, n)
		}
	}
	return list
}

// close closes the file, and removes it if there is nothing left to send.
func (j *journal) close() error {
	err := j.file.Close()
	if len(j.unsent()) == 0 {
		err = errors.Join(err, os.Remove(j.path))
	}
	return err
}
