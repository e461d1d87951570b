package ui

import (
	"bytes"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"path"
	"regexp"
	"strings"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	tables "github.com/yuin/goldmark/extension/ast"
	"github.com/yuin/goldmark/parser"
	markdowntext "github.com/yuin/goldmark/text"

	"runbell"
	"runbell/internal/endpoint"
	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/webhook"
)

// docsPage is a document.
type docsPage struct {
	layout
	Index bool          // the list of documents by task
	Body  template.HTML // of our own documents, which are part of the binary
}

// documentOf finds a document by its name in addresses, with .md behind it or not.
func documentOf(name string) ([]byte, bool) {
	name = strings.TrimSuffix(name, ".md")
	file := "docs/" + name + ".md"
	if name == "changelog" {
		file = "CHANGELOG.md"
	}
	b, err := fs.ReadFile(runbell.Documents, file)
	return b, err == nil
}

func (u *ui) docsIndex(r *request) error {
	return u.showDocument(r, "README", true)
}

func (u *ui) document(r *request) error {
	name := r.PathValue("name")
	if name == "webhook.schema.json" {
		b, err := fs.ReadFile(runbell.Documents, "docs/"+name)
		if err != nil {
			return err
		}
		r.w.Header().Set("Content-Type", "application/schema+json")
		_, _ = r.w.Write(b) // the reader may have disconnected
		return nil
	}
	return u.showDocument(r, name, false)
}

func (u *ui) showDocument(r *request, name string, index bool) error {
	source, found := documentOf(name)
	if !found {
		return run.Errorf(run.NotFound, "There is no document %q.", run.Clip(name, 80))
	}
	title, _, _ := strings.Cut(string(source), "\n")
	p := docsPage{layout: u.layout(r, strings.TrimPrefix(title, "# "), toneIdle), Index: index}
	name = strings.TrimSuffix(name, ".md")
	kept, found := u.documents.Load(name)
	if !found {
		body, err := markdown(source)
		if err != nil {
			return err
		}
		kept = body
		u.documents.Store(name, body)
	}
	p.Body = kept.(template.HTML)
	return r.show(u.views.docs.render(p))
}

// firstCell is the first cell of a row, which names it.
var firstCell = regexp.MustCompile(`<tr>(\s*)<td>(.*)</td>`)

// markdown renders a document as HTML. Links to other documents lead to their pages here. Pictures, and links to
// files that are only in the repository, are left out.
func markdown(source []byte) (template.HTML, error) {
	m := goldmark.New(goldmark.WithExtensions(extension.Table), goldmark.WithParserOptions(parser.WithAutoHeadingID()))
	root := m.Parser().Parse(markdowntext.NewReader(source))
	var gone []ast.Node
	err := ast.Walk(root, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		if !entering {
			return ast.WalkContinue, nil
		}
		switch n := n.(type) {
		case *ast.Image:
			gone = append(gone, n)
		case *tables.TableCell:
			if _, head := n.Parent().(*tables.TableHeader); head && !n.HasChildren() {
				name := ast.NewString([]byte(`<span class="hidden">Name</span>`)) // for screen readers
				name.SetCode(true)                                                // else it is escaped
				n.AppendChild(n, name)
			}
		case *ast.Link:
			to, fragment, _ := strings.Cut(string(n.Destination), "#")
			if to == "" || strings.Contains(to, "://") {
				break
			}
			name := strings.ToLower(strings.TrimSuffix(path.Base(to), ".md"))
			if _, found := documentOf(name); !found && path.Base(to) != "webhook.schema.json" {
				gone = append(gone, n)
				break
			}
			if n.Destination = []byte(name); fragment != "" {
				n.Destination = []byte(name + "#" + fragment)
			}
		}
		return ast.WalkContinue, nil
	})
	if err != nil {
		return "", err
	}
	for _, n := range gone {
		parent := n.Parent()
		if _, link := n.(*ast.Link); link {
			for c := n.FirstChild(); c != nil; c = n.FirstChild() { // the text of the link stays
				parent.InsertBefore(parent, n, c)
			}
		}
		parent.RemoveChild(parent, n)
	}
	var b bytes.Buffer
	if err := m.Renderer().Render(&b, source, root); err != nil {
		return "", fmt.Errorf("document: %w", err)
	}
	// Content that is wider than the window can be scrolled with the keyboard, too.
	text := strings.NewReplacer("<pre>", `<pre tabindex="0">`, "<table>", `<div class="wide" tabindex="0"><table>`,
		"</table>", "</table></div>", "<th>", `<th scope="col">`).Replace(b.String())
	text = firstCell.ReplaceAllString(text, `<tr>${1}<th scope="row">$2</th>`)
	return template.HTML(text), nil //nolint:gosec // our own documents
}

// eventsPage is the catalog of events.
type eventsPage struct {
	layout
	HooksURL  string
	Kinds     []eventKind
	Schema    string
	SchemaURL string
	DocsURL   string
}

// eventKind is an event: when it is sent, a sample of its default body, and the facts of an extended one.
type eventKind struct{ Name, When, Sample, Extended string }

var whenSent = map[webhook.Kind]string{
	webhook.RunStart:    "The first machine has joined. The counts are 0.",
	webhook.RunFinish:   "All specs have results. A run with named groups first waits for its completion delay.",
	webhook.RunTimeout:  "There was no report during the inactivity timeout of the project.",
	webhook.RunCanceled: "Someone canceled the run, or fail fast did.",
	webhook.TestStatus:  "Tests became flaky, broken or healthy on the default branch. Only for webhooks that ask for it.",
}

func (u *ui) eventCatalog(r *request) error {
	var p eventsPage
	err := u.db.Read(r.Context(), func(tx *store.Tx) error {
		project, err := tx.Project(r.Context(), r.PathValue("projectId"))
		if err != nil {
			return err
		}
		p = eventsPage{layout: u.layout(r, "Event catalog · "+project.Name, toneIdle),
			HooksURL: u.projectURL(project.ID, "/webhooks"), SchemaURL: u.base + "/docs/webhook.schema.json",
			DocsURL: u.base + "/docs/webhooks"}
		p.Project = u.nav(project, "webhooks")
		for _, kind := range webhook.AllKinds() {
			sample := endpoint.Sample(kind, project, u.public, tx.Now)
			short, err := indented(sample, webhook.DefaultForm)
			if err != nil {
				return err
			}
			long, err := indented(sample, webhook.ExtendedForm)
			if err != nil {
				return err
			}
			p.Kinds = append(p.Kinds, eventKind{string(kind), whenSent[kind], short, long})
		}
		return nil
	})
	if err != nil {
		return err
	}
	schema, err := fs.ReadFile(runbell.Documents, "docs/webhook.schema.json")
	if err != nil {
		return err
	}
	p.Schema = string(schema)
	body, err := u.views.events.render(p)
	if err != nil {
		return err
	}
	return r.showOnce(http.StatusOK, body, nil)
}
