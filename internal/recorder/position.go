package recorder

import (
	"context"
	"regexp"
	"strconv"
	"strings"
)

// wireFrame is where an error was thrown. Cypress until 12 sends more of it with each attempt.
type wireFrame struct {
	Line         int    `json:"line"`
	Column       int    `json:"column"`
	RelativeFile string `json:"relativeFile"` // from the root of the repository
}

// stackLine is a line of a stack about a file of the project, as Cypress writes it.
var stackLine = regexp.MustCompile(`(?m)^\s+at .*webpack://[^/\s]*/\./(.+?):(\d+):(\d+)\)?$`)

// locate finds the position of the errors that have none. Cypress 13 and newer give only the
// text of an error. below is the path of the project in its repository.
func (r *report) locate(below string) {
	for n := range r.Results.Tests {
		t := &r.Results.Tests[n]
		if t.DisplayError != nil {
			t.CodeFrame = frameOf(*t.DisplayError, below)
		}
		for _, a := range t.Attempts {
			if a.Error != nil {
				t.CodeFrame = nil // attempts have their own
			}
		}
	}
}

// frameOf is the first position in a stack that is in a file of the project; nil if there is none.
func frameOf(text, below string) *wireFrame {
	for _, m := range stackLine.FindAllStringSubmatch(text, -1) {
		line, err := strconv.Atoi(m[2])
		column, err2 := strconv.Atoi(m[3])
		if err != nil || err2 != nil || strings.HasPrefix(m[1], "node_modules/") || strings.HasPrefix(m[1], "../") {
			continue
		}
		// Columns of a stack count from 0, and those of Cypress' own frames from 1.
		return &wireFrame{Line: line, Column: column + 1, RelativeFile: below + m[1]}
	}
	return nil
}

// belowRoot is the path from the root of the repository to a directory in it, such as
// packages/web/; "" at the root, or without a repository.
func belowRoot(ctx context.Context, dir string) string {
	return strings.TrimSpace(git(ctx, dir, "rev-parse", "--show-prefix"))
}
