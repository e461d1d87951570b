package app

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"runbell/internal/client"
	"runbell/internal/run"
)

// failure is a test that failed, in the groups where it failed in the same way.
type failure struct {
	Spec   string   `json:"spec"`
	Title  string   `json:"title"`
	Groups []string `json:"groups"`
	Error  string   `json:"error"` // in one line
	At     string   `json:"at"`    // file:line:column, "" if not known
	// Screenshot and Video show files to anyone, for some days; "" if there are none.
	// The screenshot is of the last attempt that has one.
	Screenshot string `json:"screenshot"`
	Video      string `json:"video"`
}

// failedSpecs is how many specs of one run are read for their failures.
const failedSpecs = 100

// failuresOf reads what failed in a run, and says how many failed specs it left out.
func (s *session) failuresOf(ctx context.Context, r client.Run) (list []failure, left int, err error) {
	list = []failure{}
	at := map[[3]string]int{}
	read := 0
	for _, spec := range r.Specs {
		if !hasFailed(spec) || spec.InstanceID == nil {
			continue
		}
		if read == failedSpecs {
			left++
			continue
		}
		read++
		instance, err := s.Instance(ctx, *spec.InstanceID)
		if err != nil {
			return nil, 0, err
		}
		for _, f := range failuresIn(instance.Value) {
			key := [3]string{f.Spec, f.Title, f.Error}
			if n, seen := at[key]; seen {
				list[n].Groups = append(list[n].Groups, f.Groups...)
				continue
			}
			at[key] = len(list)
			list = append(list, f)
		}
	}
	return list, left, nil
}

// notListed says what a list of failures leaves out, "" if that is nothing.
func notListed(left int, r client.Run) string {
	if left == 0 {
		return ""
	}
	return fmt.Sprintf("%d more failed specs are not listed: see %s", left, r.RunURL)
}

// failuresIn lists what failed in a spec: its tests, or why it did not run to its end.
func failuresIn(i client.Instance) []failure {
	var list []failure
	exception := ""
	if i.Results != nil {
		exception = orEmpty(i.Results.Exception)
	}
	for _, t := range i.Tests {
		test := testOf(t)
		if test.Result.State != run.Failed || test.Repeats(exception) {
			continue
		}
		f := failure{Spec: i.Spec, Title: strings.Join(t.Title, " › "), Groups: []string{i.GroupID}}
		if err, ok := test.Failure(); ok {
			f.Error = run.Headline(err.Text())
			if err.Frame != nil {
				f.At = err.Frame.Position()
			}
		}
		if i.Results != nil {
			f.Screenshot, f.Video = screenshotOf(*i.Results, t.TestID), orEmpty(i.Results.VideoURL)
		}
		list = append(list, f)
	}
	if exception != "" {
		list = append(list, failure{Spec: i.Spec, Title: "Spec crashed", Groups: []string{i.GroupID},
			Error: run.Headline(exception)})
	}
	return list
}

// screenshotOf is the address of the last screenshot of a test.
func screenshotOf(r client.SpecResults, testID string) string {
	address, attempt := "", -1
	for _, s := range r.Screenshots {
		if orEmpty(s.TestID) == testID && s.URL != nil && s.Attempt >= attempt {
			address, attempt = *s.URL, s.Attempt
		}
	}
	return address
}

// testOf is a test of the API as the domain knows it.
func testOf(t client.Test) run.Test {
	out := run.Test{Result: run.Result{State: run.TestState(orEmpty(t.State)), Error: orEmpty(t.DisplayError)}}
	for _, a := range t.Attempts {
		attempt := run.Attempt{State: run.TestState(a.State)}
		if e := a.Error; e != nil {
			attempt.Error = &run.Failure{Name: e.Name, Message: e.Message}
			if f := e.CodeFrame; f != nil {
				attempt.Error.Frame = &run.Frame{File: f.File, Line: f.Line, Column: f.Column}
			}
		}
		out.Result.Attempts = append(out.Result.Attempts, attempt)
	}
	return out
}

// printFailures prints what failed as text to paste.
func printFailures(w io.Writer, r client.Run, list []failure, left int) {
	count := "1 failure"
	if len(list) != 1 {
		count = fmt.Sprintf("%d failures", len(list))
	}
	in := r.Meta.CIBuildID
	if branch := orEmpty(r.Meta.Commit.Branch); branch != "" {
		in += " (" + branch + ")"
	}
	fmt.Fprintf(w, "%s in %s\n%s\n", count, printable(in), r.RunURL)
	if ci := orEmpty(r.Meta.CI.URL); ci != "" {
		fmt.Fprintln(w, printable(ci))
	}
	fmt.Fprintln(w)
	for _, f := range list {
		groups := ""
		if len(r.Groups) > 1 {
			groups = " [" + strings.Join(f.Groups, ", ") + "]"
		}
		fmt.Fprintf(w, "- %s\n", printable(f.Spec+": "+f.Title+groups))
		if f.Error != "" {
			fmt.Fprintf(w, "  %s\n", printable(f.Error))
		}
		if f.At != "" {
			fmt.Fprintf(w, "  at %s\n", printable(f.At))
		}
		// Text to paste must not open files to anyone who reads it.
		if address, _, _ := strings.Cut(f.Screenshot, "?"); address != "" {
			fmt.Fprintf(w, "  screenshot: %s\n", printable(address))
		}
	}
	if rest := notListed(left, r); rest != "" {
		fmt.Fprintf(w, "\n%s\n", rest)
	}
}

type runFailuresCmd struct {
	whichRun
}

func (runFailuresCmd) Help() string {
	return `Examples:

    runbell run failures 6d4d09d9
    runbell run failures --latest --project my-shop --branch main`
}

// Run prints what failed.
func (c *runFailuresCmd) Run(ctx context.Context, s *session) error {
	r, err := c.read(ctx, s)
	if err != nil {
		return err
	}
	failed, left, err := s.failuresOf(ctx, r.Value)
	if err != nil {
		return err
	}
	if s.json {
		data, err := json.Marshal(failed)
		if err != nil {
			return err
		}
		if rest := notListed(left, r.Value); rest != "" {
			fmt.Fprintln(s.Err, "runbell:", rest)
		}
		return s.printJSON(data)
	}
	if len(failed) == 0 {
		_, err := fmt.Fprintf(s.Out, "Nothing failed in %s: %s\n", printable(r.Value.Meta.CIBuildID), r.Value.RunURL)
		return err
	}
	printFailures(s.Out, r.Value, failed, left)
	return nil
}
