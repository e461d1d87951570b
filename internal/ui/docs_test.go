package ui

import (
	"regexp"
	"strings"
	"testing"
)

// TestDocuments follows every link from the index of the documents to others, to their headings.
func TestDocuments(t *testing.T) {
	w := newWorld(t)
	link := regexp.MustCompile(`<a href="([^"]+)"`)
	read := map[string]string{}
	var follow func(from, path string)
	follow = func(from, path string) {
		path, fragment, _ := strings.Cut(path, "#")
		page, known := read[path]
		if !known {
			page = w.page(path)
			wellFormed(t, page)
			read[path] = page
			body := page[strings.Index(page, "<article"):strings.Index(page, "</article>")]
			for _, m := range link.FindAllStringSubmatch(body, -1) {
				switch to := m[1]; {
				case strings.Contains(to, "://") || strings.HasSuffix(to, ".json"):
				case strings.HasPrefix(to, "#"):
					follow(path, path+to)
				default:
					follow(path, "/docs/"+to)
				}
			}
		}
		if fragment != "" && !strings.Contains(page, `id="`+fragment+`"`) {
			t.Errorf("%s has a link to %s#%s, which has no such heading", from, path, fragment)
		}
	}
	follow("", "/docs/")
	if strings.Contains(read["/docs/webhooks"], "&lt;span") {
		t.Error("a document shows HTML as text")
	}
	for path, page := range read {
		rows, heads := strings.Count(page, "<tr>"), strings.Count(page, "<thead>")
		if named := strings.Count(page, `<th scope="row">`); named != rows-heads {
			t.Errorf("%s: of %d rows of tables %d have a heading", path, rows-heads, named)
		}
	}
	wants(t, read["/docs/"], "Documentation", "Troubleshooting", "Changelog")
	for _, name := range []string{"webhooks", "recording", "troubleshooting", "upgrading", "migrating", "changelog"} {
		if read["/docs/"+name] == "" {
			t.Errorf("no link leads to %s", name)
		}
	}
}
