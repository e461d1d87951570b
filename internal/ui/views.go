package ui

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"net/url"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"runbell/internal/auth"
	"runbell/internal/run"
)

// file is a file that pages need. Its name changes with its content, so that browsers may keep it forever.
type file struct {
	name, contentType string
	content           []byte
}

func fileOf(stem, extension, contentType string) file {
	content, err := fs.ReadFile(assets, "static/"+stem+extension)
	if err != nil {
		panic("ui: " + err.Error())
	}
	sum := sha256.Sum256(content)
	return file{stem + "." + hex.EncodeToString(sum[:6]) + extension, contentType, content}
}

var (
	styleFile  = made(func() file { return fileOf("style", ".css", "text/css; charset=utf-8") })
	scriptFile = made(func() file { return fileOf("runbell", ".js", "text/javascript; charset=utf-8") })
)

func (u *ui) static(r *request) error {
	for _, f := range []file{styleFile(), scriptFile()} {
		if r.PathValue("name") == f.name {
			h := r.w.Header()
			h.Set("Content-Type", f.contentType)
			h.Set("Cache-Control", "public, max-age=31536000, immutable")
			_, _ = r.w.Write(f.content) // the reader may have disconnected
			return nil
		}
	}
	return run.Errorf(run.NotFound, "No such file. Reload the page.")
}

// tone is the color and mark of a state. Its word is always beside it.
type tone string

const (
	tonePass    tone = "pass"
	toneFail    tone = "fail"
	toneFlaky   tone = "flaky"
	toneRun     tone = "run"
	toneSkip    tone = "skip"
	toneWarn    tone = "warn"
	toneIdle    tone = "idle"
	toneStopped tone = "stopped" // of a webhook that Runbell disabled
)

// layout is what every page has.
type layout struct {
	Title      string
	Icon       tone   // in the browser's tab
	Theme      string // "light", "dark", or "" for that of the browser
	Posted     bool   // the page is the response to a form: its address cannot be loaded again
	Version    string
	Base       string
	Stylesheet string
	Script     string
	Live       int  // seconds between two updates; 0 never
	Reload     bool // also update without scripts: not on pages with fields to fill in
	Who        *whoView
	Section    string      // of the navigation, "" if none
	Project    *projectNav // that the page belongs to
}

// whoView is the reader of a page, and what they may do.
type whoView struct {
	Name          string
	Admin, Member bool
}

// projectNav leads to the pages of a project.
type projectNav struct {
	ID, Name, URL string
	Tab           string
	History       []tabLink
}

// tabLink leads to a page about the history of a project.
type tabLink struct {
	Name, URL, Tab string
	Keep           bool // the filter that the page had last
}

// theme is what the reader has chosen, "" for that of the browser.
func (r *request) theme() string {
	if c, err := r.Cookie(themeCookie); err == nil && (c.Value == "light" || c.Value == "dark") {
		return c.Value
	}
	return ""
}

const themeCookie = "runbell-theme"

// setTheme stores the theme that the reader has chosen, and leads back to the page.
func (u *ui) setTheme(r *request) error {
	c := &http.Cookie{Name: themeCookie, Value: r.PostFormValue("theme"), Path: "/", HttpOnly: true, Secure: u.secure,
		SameSite: http.SameSiteLaxMode, MaxAge: 365 * 24 * 3600}
	if c.Value != "light" && c.Value != "dark" {
		c.Value, c.MaxAge = "", -1
	}
	http.SetCookie(r.w, c)
	from, err := url.Parse(r.Referer())
	if err != nil || r.PostFormValue("posted") != "" {
		return r.to(u.base + "/")
	}
	return r.to(u.base + next(strings.TrimPrefix(from.RequestURI(), u.base)))
}

func (u *ui) layout(r *request, title string, t tone) layout {
	l := layout{Title: run.Clip(title, 200) + " · Runbell", Icon: t, Theme: r.theme(), Posted: r.Method == http.MethodPost,
		Version: u.version, Base: u.base, Stylesheet: u.base + "/static/" + styleFile().name,
		Script: u.base + "/static/" + scriptFile().name}
	if r.signedIn() {
		l.Who = &whoView{Name: r.who.Name, Admin: r.may(auth.ManageServer), Member: r.may(auth.ManageWebhooks)}
	}
	return l
}

// projectURL is the address of a project's pages; below is empty or starts
// with a slash.
func (u *ui) projectURL(id, below string) string {
	return u.base + "/projects/" + url.PathEscape(id) + below
}

func (u *ui) nav(p run.Project, tab string) *projectNav {
	n := &projectNav{ID: p.ID, Name: p.Name, URL: u.projectURL(p.ID, ""), Tab: tab}
	for _, t := range historyTabs {
		n.History = append(n.History, tabLink{t.name, u.projectURL(p.ID, t.below), t.below[1:], true})
	}
	return n
}

// problemPage says what went wrong with a request.
type problemPage struct {
	layout
	Heading string
	Status  int
	Message string
	Details []string
	Missing bool
}

// views binds each template to the struct of its page.
type views struct {
	home       view[homePage]
	newProject view[newProjectPage]
	start      view[startPage]
	settings   view[settingsPage]
	feed       view[feedPage]
	problem    view[problemPage]
	signIn     view[signInPage]
	invite     view[invitePage]
	account    view[accountPage]
	people     view[peoplePage]
	keys       view[keysPage]
	hooks      view[hooksPage]
	hook       view[hookPage]
	hookForm   view[hookFormPage]
	delivery   view[deliveryPage]
	replay     view[replayPage]
	overview   view[overviewPage]
	run        view[runPage]
	specs      view[specsPage]
	spec       view[specPage]
	docs       view[docsPage]
	events     view[eventsPage]
	insights   view[insightsPage]
	tests      view[testsPage]
	test       view[testPage]
	specFiles  view[specFilesPage]
	errors     view[errorsPage]
	error      view[errorPage]
}

// newViews parses every template, so that an invalid one is noticed at the start.
func newViews() views {
	funcs := template.FuncMap{"span": span, "add": add, "capital": capital, "count": count, "removal": removal,
		"number": number, "bytes": run.FormatSize, "number64": func(n int64) string { return number(int(n)) }}
	shared := made(func() *template.Template {
		return template.Must(template.New("layout.html").Funcs(funcs).ParseFS(assets, "templates/layout.html",
			"templates/parts.html", "templates/history.html"))
	})
	return views{
		home:       newView[homePage](shared, "home"),
		newProject: newView[newProjectPage](shared, "newproject"),
		start:      newView[startPage](shared, "start"),
		settings:   newView[settingsPage](shared, "settings"),
		feed:       newView[feedPage](shared, "feed"),
		problem:    newView[problemPage](shared, "problem"),
		signIn:     newView[signInPage](shared, "signin"),
		invite:     newView[invitePage](shared, "invite"),
		account:    newView[accountPage](shared, "account"),
		people:     newView[peoplePage](shared, "people"),
		keys:       newView[keysPage](shared, "keys"),
		hooks:      newView[hooksPage](shared, "hooks"),
		hook:       newView[hookPage](shared, "hook"),
		hookForm:   newView[hookFormPage](shared, "hookform"),
		delivery:   newView[deliveryPage](shared, "delivery"),
		replay:     newView[replayPage](shared, "replay"),
		overview:   newView[overviewPage](shared, "overview"),
		run:        newView[runPage](shared, "run"),
		specs:      newView[specsPage](shared, "specs"),
		spec:       newView[specPage](shared, "spec"),
		docs:       newView[docsPage](shared, "docs"),
		events:     newView[eventsPage](shared, "events"),
		insights:   newView[insightsPage](shared, "insights"),
		tests:      newView[testsPage](shared, "tests"),
		test:       newView[testPage](shared, "test"),
		specFiles:  newView[specFilesPage](shared, "specfiles"),
		errors:     newView[errorsPage](shared, "errors"),
		error:      newView[errorPage](shared, "error"),
	}
}

// view is the template of one page.
type view[P any] struct{ template func() *template.Template }

// newView adds the template of a page to a copy of what all pages share.
func newView[P any](shared func() *template.Template, name string) view[P] {
	return view[P]{made(func() *template.Template {
		return template.Must(template.Must(shared().Clone()).ParseFS(assets, "templates/"+name+".html"))
	})}
}

// render makes the page in memory, so that a page that fails halfway is never sent.
func (v view[P]) render(p P) ([]byte, error) {
	var b bytes.Buffer
	b.Grow(64 << 10)
	if err := v.template().Execute(&b, p); err != nil {
		return nil, fmt.Errorf("page: %w", err)
	}
	return b.Bytes(), nil
}

// build identifies the code that makes the pages: the commit, or the start of this process if the commit is not
// enough.
var build = made(func() string {
	var revision, modified string
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				revision = s.Value
			case "vcs.modified":
				modified = s.Value
			}
		}
	}
	if len(revision) >= 12 && modified == "false" {
		return revision[:12]
	}
	return strconv.FormatInt(time.Now().UnixNano(), 36)
})
