package ui

import (
	"slices"
	"strconv"
	"strings"

	"runbell/internal/run"
)

// maxAlike is how many tests with the same error are shown with their details. The others are links, because their
// details would be the same.
const maxAlike = 5

// failureGroup is the tests that failed with the same error.
type failureGroup struct {
	ID    string // anchor
	Error string
	Tests []*failedTest
}

// Shown is the tests that are shown with their details.
func (g failureGroup) Shown() []*failedTest { return g.Tests[:min(len(g.Tests), maxAlike)] }

// Folded is the tests after them.
func (g failureGroup) Folded() []*failedTest { return g.Tests[len(g.Shown()):] }

// Names means that each test has its own line below the shared error.
func (g failureGroup) Names() bool { return len(g.Tests) > 1 }

// failedTest is a failed test or a crashed spec: one line for all groups in which it failed.
type failedTest struct {
	ID        string // anchor
	Signature string // see run.Signature
	Spec      string
	SpecURL   string // of the first group in which it failed
	Path      []string
	Title     string
	Groups    []string // "" where there is only one
	Failures  []failureView
	Open      bool
	Known     *knownFailure // nil if nothing is known
	folded    bool
	// said are the fingerprints of its failures.
	said []string
}

// failures collects what failed in a run, up to a number of tests.
type failures struct {
	list  []*failureGroup
	byID  map[string]*failedTest
	kinds map[string]*failureGroup
	most  int
	shown int // failures, not tests: one test may fail in several groups
	// prints caches fingerprints by text, because a run often repeats an error.
	prints map[string]string
}

func collect(most int) *failures {
	return &failures{byID: map[string]*failedTest{}, kinds: map[string]*failureGroup{}, most: most,
		prints: map[string]string{}}
}

// add notes that a test failed in a group. details are made only where they are shown.
func (f *failures) add(t failedTest, text, group string, details func(id string) ([]failureView, error)) error {
	print, printed := f.prints[text]
	if !printed {
		print = run.Fingerprint(text)
		f.prints[text] = print
	}
	known := f.byID[t.Signature]
	if known == nil && len(f.byID) == f.most {
		return nil
	}
	f.shown++
	if known == nil {
		known = &t
		known.ID = "failure-" + t.Signature[:12]
		f.byID[t.Signature] = known
		kind := f.kinds[print]
		if kind == nil || print == "" {
			kind = &failureGroup{ID: "error-" + t.Signature[:12], Error: run.Headline(text)}
			f.kinds[print] = kind
			f.list = append(f.list, kind)
		}
		kind.Tests = append(kind.Tests, known)
		known.folded = len(kind.Tests) > maxAlike
	}
	if group != "" && !slices.Contains(known.Groups, group) {
		known.Groups = append(known.Groups, group)
	}
	if known.folded || slices.Contains(known.said, print) {
		return nil
	}
	views, err := details(known.ID + "-" + strconv.Itoa(len(known.said)+1))
	if err != nil {
		return err
	}
	if len(known.said) > 0 {
		for n := range views {
			views[n].Group = group // it failed with another error there
		}
	}
	known.said, known.Failures = append(known.said, print), append(known.Failures, views...)
	return nil
}

// text is what failed as lines of plain text (and of Markdown).
func (f *failures) text() string {
	var b strings.Builder
	for _, kind := range f.list {
		for _, t := range kind.Tests {
			b.WriteString("\n- " + t.Spec + ": " + strings.Join(append(slices.Clone(t.Path), t.Title), " › "))
			if len(t.Groups) > 0 {
				b.WriteString(" (" + strings.Join(t.Groups, ", ") + ")")
			}
			if kind.Error != "" {
				b.WriteString("\n  " + kind.Error)
			}
		}
	}
	return b.String()
}

// crashed is the title of a crashed spec.
const crashed = "Spec crashed"

// failuresIn adds what failed in a spec.
func (x *specReader) failuresIn(f *failures, s specRef, reported specTests) error {
	v := x.u.specLine(x.run, s, x.named)
	if s.Exception != "" {
		err := f.add(failedTest{Signature: run.Signature(x.run.ProjectID, s.Spec, nil), Spec: s.Spec, SpecURL: v.URL,
			Title: crashed}, s.Exception, v.Group, func(id string) ([]failureView, error) { return x.crash(s, reported, id) })
		if err != nil {
			return err
		}
	}
	for _, t := range reported.tests {
		if t.Result.State != run.Failed || t.Repeats(s.Exception) {
			continue
		}
		failure, _ := t.Failure()
		line := summary(t, "", x.limits)
		err := f.add(failedTest{Signature: run.Signature(x.run.ProjectID, s.Spec, t.Title), Spec: s.Spec, SpecURL: v.URL,
			Path: line.Path, Title: line.Title}, failure.Text(), v.Group,
			func(id string) ([]failureView, error) { return x.failuresOf(s, reported, t, id) })
		if err != nil {
			return err
		}
	}
	return nil
}

// crash shows why a spec crashed, with the screenshots that belong to no test.
func (x *specReader) crash(s specRef, reported specTests, id string) ([]failureView, error) {
	v := failureView{ID: id, Message: x.head(s.Exception, x.limits.exception)}
	var err error
	if v.Pictures, err = x.pictures(s, reported, reported.shots(""), crashed, false); err != nil {
		return nil, err
	}
	v.Clips, err = x.clips(s, reported, nil, crashed)
	return []failureView{v}, err
}
