package run

// Counts is what webhooks and pages say about tests. Announced are the tests
// of specs whose results are not in yet; the others come from results.
type Counts struct {
	Announced int
	Passes    int // the last attempt passed
	Failures  int
	Pending   int // it.skip
	Skipped   int // not run because a hook failed
	Retries   int // attempts after the first, of all tests
	Flaky     int // passed, but not at the first attempt
}

// Overall is the number of tests known so far.
func (c Counts) Overall() int {
	return c.Announced + c.Passes + c.Failures + c.Pending + c.Skipped
}

// Green says that nothing failed and nothing was left out because of a failure.
func (c Counts) Green() bool { return c.Failures == 0 && c.Skipped == 0 }

// Ran says that a test ran to an end. Where none did, nothing failed, but nothing
// passed either.
func (c Counts) Ran() bool { return c.Passes+c.Failures > 0 }

// Plus adds field by field.
func (c Counts) Plus(o Counts) Counts {
	return Counts{
		Announced: c.Announced + o.Announced,
		Passes:    c.Passes + o.Passes,
		Failures:  c.Failures + o.Failures,
		Pending:   c.Pending + o.Pending,
		Skipped:   c.Skipped + o.Skipped,
		Retries:   c.Retries + o.Retries,
		Flaky:     c.Flaky + o.Flaky,
	}
}

// Minus takes away field by field.
func (c Counts) Minus(o Counts) Counts {
	return Counts{
		Announced: c.Announced - o.Announced,
		Passes:    c.Passes - o.Passes,
		Failures:  c.Failures - o.Failures,
		Pending:   c.Pending - o.Pending,
		Skipped:   c.Skipped - o.Skipped,
		Retries:   c.Retries - o.Retries,
		Flaky:     c.Flaky - o.Flaky,
	}
}

// Count counts the tests of one spec. An exception (a compile error, a crash) is
// a failure: that of a test that failed, or else one more beside the tests.
func Count(results []Result, exception string) Counts {
	var c Counts
	for _, t := range results {
		switch t.State {
		case Passed:
			c.Passes++
			if len(t.Attempts) > 1 {
				c.Flaky++
			}
		case Failed:
			c.Failures++
		case Pending:
			c.Pending++
		case Skipped:
			c.Skipped++
		}
		c.Retries += max(0, len(t.Attempts)-1)
	}
	if exception != "" && c.Failures == 0 {
		c.Failures = 1
	}
	return c
}
