package recorder

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
)

// Cypress' defaults, of specPattern and excludeSpecPattern.
var (
	defaultE2E              = []string{"cypress/e2e/**/*.cy.{js,jsx,ts,tsx}"}
	defaultComponent        = []string{"**/*.cy.{js,jsx,ts,tsx}"}
	defaultExcludeE2E       = []string{"*.hot-update.js"}
	defaultExcludeComponent = []string{"**/__snapshots__/*", "**/__image_snapshots__/*"}
)

// specPattern is the project's, or Cypress' default.
func (p project) specPattern() []string {
	switch {
	case p.SpecPattern != nil:
		return p.SpecPattern
	case p.Component:
		return defaultComponent
	default:
		return defaultE2E
	}
}

func (p project) excludePattern() []string {
	exclude := defaultExcludeE2E
	if p.Component {
		exclude = defaultExcludeComponent
	}
	if p.ExcludeSpecPattern != nil {
		exclude = p.ExcludeSpecPattern
	}
	if p.Component {
		ignored := p.IgnoredPattern
		if ignored == nil {
			ignored = defaultE2E
		}
		exclude = append(slices.Clone(exclude), ignored...)
	}
	return exclude
}

// findSpecs finds the specs of a project as Cypress does: what specPattern
// finds and excludeSpecPattern does not; only narrows it, as --spec does.
// The paths are relative to the project, with slashes, sorted.
func findSpecs(p project, dir string, only []string) ([]string, error) {
	specs, err := glob(p.Root, p.specPattern(), p.excludePattern())
	if err != nil {
		return nil, err
	}
	if len(only) > 0 {
		// --spec is relative to where the command is started, or to the project.
		for _, pattern := range only {
			name, negative := cutNot(pattern)
			inside, err := filepath.Rel(p.Root, filepath.Join(dir, filepath.FromSlash(name)))
			if err != nil || dir == p.Root || filepath.IsAbs(name) || strings.HasPrefix(inside, "..") {
				continue
			}
			if inside = filepath.ToSlash(inside); negative {
				inside = "!" + inside
			}
			only = append(only, inside)
		}
		if specs, err = narrow(p.Root, specs, only); err != nil {
			return nil, err
		}
	}
	if len(specs) > 0 {
		return specs, nil
	}
	message := fmt.Sprintf("no specs were found in %s: specPattern is %s", p.Root, quoted(p.specPattern()))
	if exclude := p.excludePattern(); len(exclude) > 0 {
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

// patterns is a list of globs, of which those with a ! in front take away.
type patterns struct{ find, drop []string }

// cutNot cuts the ! off that takes away; !(a) is an extended glob.
func cutNot(pattern string) (string, bool) {
	if strings.HasPrefix(pattern, "!(") {
		return pattern, false
	}
	return strings.CutPrefix(pattern, "!")
}

func parsePatterns(root string, list []string) (patterns, error) {
	var p patterns
	for _, given := range list {
		pattern, negative := cutNot(filepath.ToSlash(given))
		if path.IsAbs(pattern) || filepath.IsAbs(given) {
			inside, err := filepath.Rel(root, filepath.FromSlash(pattern))
			if err != nil || strings.HasPrefix(inside, "..") {
				return p, fmt.Errorf("%q is outside of the project %s", given, root)
			}
			pattern = filepath.ToSlash(inside)
		}
		pattern = path.Clean(pattern)
		if info, err := os.Stat(filepath.Join(root, filepath.FromSlash(pattern))); err == nil && info.IsDir() {
			pattern = path.Join(pattern, "**") // as Cypress does
		}
		pattern, err := plainGlob(pattern)
		if err != nil {
			return p, fmt.Errorf("%q cannot be used: %w", given, err)
		}
		if negative {
			p.drop = append(p.drop, pattern)
		} else {
			p.find = append(p.find, pattern)
		}
	}
	return p, nil
}

// plainGlob rewrites the two extended forms that have a plain one, @(a|b) and
// ?(a|b), and refuses the others.
func plainGlob(pattern string) (string, error) {
	for _, bad := range []string{"!(", "+(", "*("} {
		if strings.Contains(pattern, bad) {
			return "", fmt.Errorf("%s…) is not understood here; name the specs with --spec, or write the pattern with * and {a,b}", bad)
		}
	}
	for {
		at := max(strings.LastIndex(pattern, "@("), strings.LastIndex(pattern, "?("))
		if at < 0 {
			break
		}
		length := strings.IndexByte(pattern[at:], ')')
		if length < 0 {
			return "", errors.New("a ) is missing")
		}
		inner := strings.ReplaceAll(pattern[at+2:at+length], "|", ",")
		if pattern[at] == '?' {
			inner = "," + inner
		}
		pattern = pattern[:at] + "{" + inner + "}" + pattern[at+length+1:]
	}
	if !doublestar.ValidatePattern(pattern) {
		return "", errors.New("it is not a valid pattern")
	}
	return pattern, nil
}

// matches says whether any pattern finds the file. A pattern without a slash
// finds it in any directory, as excludeSpecPattern does.
func matches(list []string, file string, anywhere bool) bool {
	return slices.ContainsFunc(list, func(pattern string) bool {
		if ok, _ := doublestar.Match(pattern, file); ok {
			return true
		}
		ok, _ := doublestar.Match(pattern, path.Base(file))
		return ok && anywhere && !strings.Contains(pattern, "/")
	})
}

// glob lists the files below root that patterns find and exclude does not.
func glob(root string, list, exclude []string) ([]string, error) {
	want, err := parsePatterns(root, list)
	if err != nil {
		return nil, err
	}
	not, err := parsePatterns(root, exclude)
	if err != nil {
		return nil, err
	}
	found := map[string]bool{}
	for _, pattern := range want.find {
		base, _ := doublestar.SplitPattern(pattern)
		if strings.HasPrefix(base, "..") {
			return nil, fmt.Errorf("%q is outside of the project %s", pattern, root)
		}
		start := filepath.Join(root, filepath.FromSlash(base))
		if _, err := os.Stat(start); err != nil {
			continue // nothing is there
		}
		// Packages and hidden files are for patterns that name them.
		skip := func(name string) bool {
			return name == ".git" || name == "node_modules" && !strings.Contains(pattern, name) ||
				strings.HasPrefix(name, ".") && !strings.HasPrefix(pattern, ".") && !strings.Contains(pattern, "/.")
		}
		err := walk(start, base, skip, func(file string) {
			if matches([]string{pattern}, file, false) {
				found[file] = true
			}
		})
		if err != nil {
			return nil, err
		}
	}
	var specs []string
	for file := range found {
		if !matches(want.drop, file, false) && !matches(not.find, file, true) {
			specs = append(specs, file)
		}
	}
	slices.Sort(specs)
	return specs, nil
}

// walk calls f with every file, by its path from the project, but not with
// what is below a name to skip. Links to directories are followed, as Cypress
// does, but not in circles.
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

// narrow keeps the specs that any of the patterns finds. A pattern may be the
// very name of a spec, whatever signs are in it.
func narrow(root string, specs, only []string) ([]string, error) {
	named := map[string]bool{}
	var globs []string
	for _, o := range only {
		name := path.Clean(filepath.ToSlash(o))
		if inside, err := filepath.Rel(root, o); filepath.IsAbs(o) && err == nil {
			name = filepath.ToSlash(inside)
		}
		if slices.Contains(specs, name) {
			named[name] = true
		} else {
			globs = append(globs, o)
		}
	}
	want, err := parsePatterns(root, globs)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(slices.Clone(specs), func(spec string) bool {
		return !named[spec] && (!matches(want.find, spec, false) || matches(want.drop, spec, false))
	}), nil
}

// splitGlobs splits what --spec was given at its commas, but not those in
// braces or brackets, nor in the name of a file that is there.
func splitGlobs(root string, given []string) []string {
	var out []string
	for _, text := range given {
		if _, err := os.Stat(filepath.Join(root, filepath.FromSlash(text))); err == nil {
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
