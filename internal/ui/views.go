package ui

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"html/template"
	"net/http"

	"runbell/internal/run"
)

//go:embed templates
var templates embed.FS

//go:embed static/style.css
var stylesheet []byte

// The stylesheet's name changes with its content, so that browsers may keep it
// for ever.
var stylesheetName = func() string {
	sum := sha256.Sum256(stylesheet)
	return "style." + hex.EncodeToString(sum[:6]) + ".css"
}()

func (u *ui) static(w http.ResponseWriter, r *http.Request) error {
	if r.PathValue("name") != stylesheetName {
		return run.Errorf(run.NotFound, "There is no such file; reload the page that wanted it.")
	}
	h := w.Header()
	h.Set("Content-Type", "text/css; charset=utf-8")
	h.Set("Cache-Control", "public, max-age=31536000, immutable")
	_, _ = w.Write(stylesheet) // a reader that went away gets none
	return nil
}

// tone is the colour and mark of a state. The word for it stands beside it
// always.
type tone string

const (
	tonePass  tone = "pass"
	toneFail  tone = "fail"
	toneFlaky tone = "flaky"
	toneRun   tone = "run"
	toneSkip  tone = "skip"
	toneWarn  tone = "warn"
	toneIdle  tone = "idle"
)

// layout is what every page has, whatever it is about.
type layout struct {
	Title      string
	Tone       tone // of the icon in the browser's tab
	Base       string
	Stylesheet string
	Refresh    int // seconds until the page loads again; 0 never
}

func (u *ui) layout(title string, t tone) layout {
	return layout{Title: title + " · Runbell", Tone: t, Base: u.base, Stylesheet: u.base + "/static/" + stylesheetName}
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

// homePage says what this server is to somebody who came without a link.
type homePage struct {
	layout
	PublicURL string
}

func (u *ui) home(w http.ResponseWriter, _ *http.Request) error {
	body, err := u.views.home.render(homePage{layout: u.layout("Cypress tests and webhooks", toneIdle), PublicURL: u.public})
	if err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "no-cache")
	write(w, http.StatusOK, body)
	return nil
}

// views binds each template to the struct of its page.
type views struct {
	home    view[homePage]
	problem view[problemPage]
	run     view[runPage]
	specs   view[specsPage]
	spec    view[specPage]
}

func parseViews() views {
	return views{
		home:    parseView[homePage]("home"),
		problem: parseView[problemPage]("problem"),
		run:     parseView[runPage]("run"),
		specs:   parseView[specsPage]("specs"),
		spec:    parseView[specPage]("spec"),
	}
}

type view[P any] struct{ t *template.Template }

func parseView[P any](name string) view[P] {
	funcs := template.FuncMap{"span": span, "count": count, "number": number}
	return view[P]{template.Must(template.New("layout.html").Funcs(funcs).ParseFS(templates,
		"templates/layout.html", "templates/parts.html", "templates/"+name+".html"))}
}

// render makes the page in memory, so that one that fails half-way is never sent.
func (v view[P]) render(p P) ([]byte, error) {
	var b bytes.Buffer
	if err := v.t.Execute(&b, p); err != nil {
		return nil, fmt.Errorf("page: %w", err)
	}
	return b.Bytes(), nil
}
