package recorder

import (
	"bufio"
	"crypto/rand"
	_ "embed"
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"
)

//go:embed watch.js
var watchScript string

// watcher receives events from inside Cypress: which specs it is about to run, and the
// result of each. Cypress gets a configuration file outside the project. That file loads
// the project's own and adds handlers for Cypress' events.
type watcher struct {
	file     string // the configuration for Cypress
	dir      string
	listener net.Listener
	events   chan watched
	closed   chan struct{}
}

// watched is an event. Cypress waits until it is answered.
type watched struct {
	Event string `json:"event"` // config, run, begin, end

	// Of config: the settings after setupNodeEvents.
	patterns
	ProjectID string    `json:"projectId"`
	Browsers  []browser `json:"browsers"`
	// Whether the videos of specs that pass are wanted; nil if the project does not say.
	VideoUploadOnPasses *bool `json:"videoUploadOnPasses"`

	Specs  []string        `json:"specs"`  // of run: all specs that Cypress found
	Spec   string          `json:"spec"`   // of begin and end
	Result json.RawMessage `json:"result"` // of end: a runResult
	Began  int64           `json:"began"`  // of end: as place wants it

	conn net.Conn
}

type browser struct{ Name, Version string }

// answer lets Cypress continue. specs are the ones to run; nil leaves it to Cypress.
func (w watched) answer(specs []string) {
	line, _ := json.Marshal(map[string][]string{"specs": specs})
	_, _ = w.conn.Write(append(line, '\n')) // a Cypress that has ended is noticed elsewhere
}

// watch prepares to receive events from the Cypress of a project.
func watch(p project) (_ *watcher, err error) {
	w := &watcher{events: make(chan watched), closed: make(chan struct{})}
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	if w.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return nil, fmt.Errorf("listen for Cypress: %w", err)
	}
	if w.dir, err = os.MkdirTemp("", "runbell-cypress-*"); err != nil {
		return nil, fmt.Errorf("cannot write a configuration file for Cypress: %w; set TMPDIR to a writable directory", err)
	}
	token := rand.Text()
	options, err := json.Marshal(map[string]any{"port": w.listener.Addr().(*net.TCPAddr).Port, "token": token,
		"type": p.testingType()})
	if err != nil {
		return nil, err
	}
	// Cypress makes the directory of its configuration file the current one.
	chdir := fmt.Sprintf("process.chdir(%s)\n", quote(filepath.Dir(p.ConfigFile)))
	text := fmt.Sprintf("%smodule.exports = watch(require(%s), require('net'), %s)\n", chdir, quote(p.ConfigFile), options)
	w.file = filepath.Join(w.dir, "cypress.config.cjs")
	if p.ESModule {
		address := url.URL{Scheme: "file", Path: filepath.ToSlash(p.ConfigFile)}
		if address.Path[0] != '/' { // C:/…
			address.Path = "/" + address.Path
		}
		text = fmt.Sprintf("import './chdir.mjs'\nimport net from 'net'\nimport * as exported from %s\nexport default "+
			"watch(exported, net, %s)\n", quote(address.String()), options)
		if err := os.WriteFile(filepath.Join(w.dir, "chdir.mjs"), []byte(chdir), 0o600); err != nil {
			return nil, err
		}
		w.file = filepath.Join(w.dir, "cypress.config.mjs")
	}
	if err := os.WriteFile(w.file, []byte(text+watchScript), 0o600); err != nil {
		return nil, err
	}
	go w.accept(token)
	return w, nil
}

func quote(s string) string {
	text, _ := json.Marshal(s) // never fails for a string
	return string(text)
}

// accept reads the events of each Cypress, until close.
func (w *watcher) accept(token string) {
	for {
		conn, err := w.listener.Accept()
		if err != nil {
			return
		}
		go w.read(conn, token)
	}
}

// read passes on the events of one Cypress. Other programs on this machine could connect,
// too, but do not know the token.
func (w *watcher) read(conn net.Conn, token string) {
	defer conn.Close()
	r := bufio.NewReaderSize(conn, 64<<10)
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	line, err := r.ReadSlice('\n')
	var hello struct{ Token string }
	if err != nil || json.Unmarshal(line, &hello) != nil || hello.Token != token {
		return
	}
	_ = conn.SetReadDeadline(time.Time{})
	for {
		line, err := r.ReadBytes('\n') // results may be large
		event := watched{conn: conn}
		if err != nil || json.Unmarshal(line, &event) != nil {
			return
		}
		select {
		case w.events <- event:
		case <-w.closed:
			return
		}
	}
}

// close ends listening, and removes the file.
func (w *watcher) close() {
	close(w.closed)
	if w.listener != nil {
		_ = w.listener.Close()
	}
	if w.dir != "" {
		_ = os.RemoveAll(w.dir)
	}
}
