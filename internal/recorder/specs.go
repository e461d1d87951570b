package recorder

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
)

// patterns are the patterns for the specs of a project, which Cypress has resolved from
// its configuration, variables and options.
type patterns struct {
	Find    []string `json:"specPattern"`
	Exclude []string `json:"excludeSpecPattern"`
	Ignored []string `json:"ignoredPattern"` // specs of the other testing type
}

// findSpecs finds the specs of a project as Cypress does: the files that match
// specPattern and not excludeSpecPattern. only narrows them, as --spec does. The paths
// are relative to the project, with slashes, sorted.
func findSpecs(root string, p patterns, dir string, only []string) ([]string, error) {
	exclude := slices.Concat(p.Exclude, p.Ignored)
	specs, err := find(root, p.Find, exclude)
	if err != nil {
		return nil, err
	}
	if specs, err = narrow(root, specs, dir, only); err != nil {
		return nil, err
	}
	if len(specs) > 0 {
		return specs, nil
	}
	message := fmt.Sprintf("no specs were found in %s: specPattern is %s", root, quoted(p.Find))
	if len(exclude) > 0 {
		message += ", excludeSpecPattern is " + quoted(exclude)
	}
	if len(only) > 0 {
		message += ", --spec is " + quoted(only) + " (it chooses among those that specPattern finds)"
	}
	return nil, errors.New(message)
}

func quoted(patterns []string) string {
	q := make([]string, len(patterns))
	for i, p := range patterns {
		q[i] = fmt.Sprintf("%q", p)
	}
	return strings.Join(q, ", ")
}

// globs is a list of patterns. A pattern with a leading ! excludes.
type globs struct{ find, drop []string }

// cutNot cuts off the ! that excludes. !(a) is an extended glob.
func cutNot(pattern string) (string, bool) {
	if strings.HasPrefix(pattern, "!(") {
		return pattern, false
	}
	return strings.CutPrefix(pattern, "!")
}

func parseGlobs(root string, list []string) (globs, error) {
	var g globs
	for _, given := range list {
		pattern, negative := cutNot(filepath.ToSlash(given))
		if path.IsAbs(pattern) || filepath.IsAbs(given) {
			inside, err := filepath.Rel(root, filepath.FromSlash(pattern))
			if err != nil {
				return g, fmt.Errorf("%q cannot be reached from the project %s", given, root)
			}
			pattern = filepath.ToSlash(inside)
		}
		pattern = path.Clean(pattern)
		if info, err := os.Stat(filepath.Join(root, filepath.FromSlash(pattern))); err == nil && info.IsDir() {
			pattern = path.Join(pattern, "**") // as Cypress does
		}
		pattern = plainGlob(pattern)
		if !doublestar.ValidatePattern(pattern) {
			return g, fmt.Errorf("%q is not a valid pattern", given)
		}
		if negative {
			g.drop = append(g.drop, pattern)
		} else {
			g.find = append(g.find, pattern)
		}
	}
	return g, nil
}

// In Cypress, its glob library decides what extended globs, ranges and named classes
// match.
var onlyCypressKnows = regexp.MustCompile(`[!+*]\(|\{[^{}]*\.\.[^{}]*\}|\[\[:`)

// understood reports whether all patterns match the same files here as in Cypress.
func understood(lists ...[]string) bool {
	for _, pattern := range slices.Concat(lists...) {
		if onlyCypressKnows.MatchString(pattern) || !doublestar.ValidatePattern(plainGlob(filepath.ToSlash(pattern))) {
			return false
		}
	}
	return true
}

// plainGlob rewrites the two extended forms that have a simple equivalent, @(a|b) and
// ?(a|b).
func plainGlob(pattern string) string {
	for {
		at := max(strings.LastIndex(pattern, "@("), strings.LastIndex(pattern, "?("))
		if at < 0 {
			return pattern
		}
		length := strings.IndexByte(pattern[at:], ')')
		if length < 0 {
			return pattern
		}
		inner := strings.ReplaceAll(pattern[at+2:at+length], "|", ",")
		if pattern[at] == '?' {
			inner = "," + inner
		}
		pattern = pattern[:at] + "{" + inner + "}" + pattern[at+length+1:]
	}
}

// matches reports whether any pattern matches the file.
func matches(list []string, file string) bool {
	return slices.ContainsFunc(list, func(pattern string) bool {
		ok, _ := doublestar.Match(pattern, file)
		return ok
	})
}

// find lists the files that match patterns and not exclude.
func find(root string, list, exclude []string) ([]string, error) {
	want, err := parseGlobs(root, list)
	if err != nil {
		return nil, err
	}
	not, err := parseGlobs(root, exclude)
	if err != nil {
		return nil, err
	}
	found := map[string]bool{}
	for _, pattern := range want.find {
		base, _ := doublestar.SplitPattern(pattern)
		start := filepath.Join(root, filepath.FromSlash(base))
		if _, err := os.Stat(start); err != nil {
			continue // it does not exist
		}
		// Only patterns that name packages and hidden files match them.
		skip := func(name string) bool {
			return name == ".git" || name == "node_modules" && !strings.Contains(pattern, name) ||
				strings.HasPrefix(name, ".") && !strings.HasPrefix(pattern, ".") && !strings.Contains(pattern, "/.")
		}
		err := walk(start, base, skip, func(file string) {
			if !matches([]string{pattern}, file) {
				return
			}
			if inside, err := filepath.Rel(root, filepath.Join(root, filepath.FromSlash(file))); err == nil {
				file = filepath.ToSlash(inside) // ../shop/a.cy.js of the project shop
			}
			found[file] = true
		})
		if err != nil {
			return nil, err
		}
	}
	var specs []string
	for file := range found {
		if !matches(want.drop, file) && !matches(not.find, file) {
			specs = append(specs, file)
		}
	}
	slices.Sort(specs)
	return specs, nil
}

// walk calls f with the path of every file, relative to the project, except below a name
// to skip. It follows links to directories, as Cypress does, but not in circles.
func walk(dir, name string, skip func(name string) bool, f func(string)) error {
	seen := map[string]bool{}
	var visit func(dir, name string) error
	visit = func(dir, name string) error {
		if real, err := filepath.EvalSymlinks(dir); err != nil || seen[real] {
			return nil
		} else {
			seen[real] = true
		}
		entries, err := os.ReadDir(dir)
		if errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, e := range entries {
			full, below := filepath.Join(dir, e.Name()), path.Join(name, e.Name())
			isDir := e.IsDir()
			if e.Type()&fs.ModeSymlink != 0 {
				info, err := os.Stat(full)
				if err != nil {
					continue
				}
				isDir = info.IsDir()
			}
			switch {
			case skip(e.Name()):
			case !isDir:
				f(below)
			default:
				if err := visit(full, below); err != nil {
					return err
				}
			}
		}
		return nil
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if !info.IsDir() { // the pattern was a path
		f(name)
		return nil
	}
	return visit(dir, name)
}

// narrow keeps the specs that match any of the patterns, or all if there are none. A
// pattern may also be the exact name of a spec with special characters. It is relative
// to the directory in which the command was started, or to the project.
func narrow(root string, specs []string, dir string, only []string) ([]string, error) {
	if len(only) == 0 {
		return specs, nil
	}
	for _, pattern := range slices.Clone(only) {
		name, negative := cutNot(pattern)
		inside, err := filepath.Rel(root, filepath.Join(dir, filepath.FromSlash(name)))
		if err != nil || dir == root || filepath.IsAbs(name) {
			continue
		}
		if inside = filepath.ToSlash(inside); negative {
			inside = "!" + inside
		}
		only = append(only[:len(only):len(only)], inside)
	}
	named := map[string]bool{}
	var rest []string
	for _, o := range only {
		name := path.Clean(filepath.ToSlash(o))
		if inside, err := filepath.Rel(root, o); filepath.IsAbs(o) && err == nil {
			name = filepath.ToSlash(inside)
		}
		if slices.Contains(specs, name) {
			named[name] = true
		} else {
			rest = append(rest, o)
		}
	}
	want, err := parseGlobs(root, rest)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(slices.Clone(specs), func(spec string) bool {
		return !named[spec] && (!matches(want.find, spec) || matches(want.drop, spec))
	}), nil
}

// splitGlobs splits the value of --spec at its commas. A comma in braces or
// brackets, or in the name of a file in one of the directories, does not count.
func splitGlobs(given []string, dirs ...string) []string {
	var out []string
	for _, text := range given {
		if isFile(text, dirs...) {
			out = append(out, text)
			continue
		}
		depth, start := 0, 0
		for i, r := range text {
			switch r {
			case '{', '[', '(':
				depth++
			case '}', ']', ')':
				depth--
			case ',':
				if depth <= 0 {
					out = append(out, strings.TrimSpace(text[start:i]))
					start = i + 1
				}
			}
		}
		out = append(out, strings.TrimSpace(text[start:]))
	}
	return slices.DeleteFunc(out, func(s string) bool { return s == "" })
}

// isFile reports whether one of the directories has a file of this name.
func isFile(name string, dirs ...string) bool {
	return slices.ContainsFunc(dirs, func(dir string) bool {
		file := filepath.FromSlash(name)
		if !filepath.IsAbs(file) {
			file = filepath.Join(dir, file)
		}
		info, err := os.Stat(file)
		return err == nil && !info.IsDir()
	})
}
