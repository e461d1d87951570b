package history

import (
	"encoding/binary"
	"errors"
	"slices"

	"runbell/internal/run"
)

// Summary is one execution of a spec without its results, with numbers for names.
type Summary struct {
	Position int // in its group
	Spec     int
	Duration int64 // milliseconds
	// Complete means that every announced test has a result.
	Complete bool
	// Crashed means that the spec crashed and none of its tests failed. Error is the reason, 0 if unknown.
	Crashed bool
	Error   int

	// These depend on the results.
	Tests  int
	Failed bool // a test failed, or the spec crashed
	Flaky  bool // a test was flaky
	Errors bool // a test has an error
}

// Execution is one execution of a spec.
type Execution struct {
	Summary
	Results []Result
}

// summarize sets the fields that depend on the results.
func (e *Execution) summarize() {
	e.Tests, e.Failed, e.Flaky, e.Errors = len(e.Results), e.Crashed, false, false
	for _, r := range e.Results {
		e.Failed = e.Failed || r.State == failed
		e.Flaky = e.Flaky || r.Flaky()
		e.Errors = e.Errors || r.Error > 0
	}
}

// Result is how a test ended in one execution of its spec.
type Result struct {
	Test     int
	State    state
	Attempts int   // 0 if the test did not run; more than maxAttempts count as that
	Duration int64 // milliseconds, of all attempts
	Error    int   // of a test that failed or was flaky; 0 if there is none
}

// Flaky says that the test passed, but not at the first attempt.
func (r Result) Flaky() bool { return r.State == passed && r.Attempts > 1 }

// Ran says that the test passed or failed.
func (r Result) Ran() bool { return r.State == passed || r.State == failed }

// state is a run.TestState in two bits.
type state uint8

const (
	passed state = iota
	failed
	pending
	skipped
)

var stateNames = [...]run.TestState{passed: run.Passed, failed: run.Failed, pending: run.Pending, skipped: run.Skipped}

func stateOf(s run.TestState) state { return state(max(0, slices.Index(stateNames[:], s))) } // Settle leaves no others

// Name is the state as a run.TestState.
func (s state) Name() run.TestState { return stateNames[s] }

// Packed results of a part are executions in the order of their positions, each
//
//	position, length of what follows, spec, duration, flags, [error], how many tests, tests…
//
// and a test is the difference of its number to that of the test before, a byte (two bits of state, one for an error,
// five of attempts), its duration, [error]. All numbers are varints. Tests of a spec mostly got their numbers at
// once, so that a result takes about five bytes. The flags say what the tests contain, so most questions unpack few
// of them.
const (
	flagComplete = 1 << iota
	flagCrashed
	flagError
	flagFailed
	flagFlaky
	flagErrors
)

const (
	bitError     = 1 << 2
	attemptShift = 3
	maxAttempts  = 1<<5 - 1
)

// flags has a bit for each true field of a summary, in the order of the constants.
func (s *Summary) flags() (flags byte) {
	for n, set := range [...]bool{s.Complete, s.Crashed, s.Error > 0, s.Failed, s.Flaky, s.Errors} {
		if set {
			flags |= 1 << n
		}
	}
	return flags
}

// pack appends an execution.
func pack(b []byte, e Execution) []byte {
	e.summarize()
	body := binary.AppendUvarint(nil, uint64(e.Spec))
	body = binary.AppendUvarint(body, uint64(max(0, e.Duration)))
	body = append(body, e.flags())
	if e.Error > 0 {
		body = binary.AppendUvarint(body, uint64(e.Error))
	}
	body = binary.AppendUvarint(body, uint64(e.Tests))
	last := 0
	for _, r := range e.Results {
		body = binary.AppendVarint(body, int64(r.Test-last))
		last = r.Test
		bits := byte(r.State) | byte(min(r.Attempts, maxAttempts))<<attemptShift
		if r.Error > 0 {
			bits |= bitError
		}
		body = append(body, bits)
		body = binary.AppendUvarint(body, uint64(max(0, r.Duration)))
		if r.Error > 0 {
			body = binary.AppendUvarint(body, uint64(r.Error))
		}
	}
	b = binary.AppendUvarint(b, uint64(e.Position))
	b = binary.AppendUvarint(b, uint64(len(body)))
	return append(b, body...)
}

var errPacked = errors.New("history: packed results are damaged")

// uvarint reads a number at a place and returns the place after it, which is beyond the
// end if something is damaged. Most numbers have one byte or two.
func uvarint(b []byte, at int) (uint64, int) {
	if at < len(b) && b[at] < 0x80 {
		return uint64(b[at]), at + 1
	}
	return longUvarint(b, at)
}

func longUvarint(b []byte, at int) (uint64, int) {
	if at+1 < len(b) && b[at+1] < 0x80 {
		return uint64(b[at]&0x7f) | uint64(b[at+1])<<7, at + 2
	}
	if at < len(b) {
		if v, n := binary.Uvarint(b[at:]); n > 0 {
			return v, at + n
		}
	}
	return 0, len(b) + 1
}

// next cuts the first execution off packed results.
func next(b []byte) (position int, body, rest []byte, err error) {
	p, at := uvarint(b, 0)
	n, at := uvarint(b, at)
	if at > len(b) || n > uint64(len(b)-at) {
		return 0, nil, nil, errPacked
	}
	end := at + int(n)
	return int(p), b[at:end], b[end:], nil
}

// contentsOf says where in packed results each spec is: for each execution its spec, as the difference to the one
// before, and how many bytes it has. So a few bytes describe thousands.
func contentsOf(packed []byte) (contents []byte, err error) {
	contents = []byte{} // also of a part without results: the column is NOT NULL
	last := 0
	for len(packed) > 0 {
		_, body, rest, err := next(packed)
		if err != nil {
			return nil, err
		}
		spec, at := uvarint(body, 0)
		if at > len(body) {
			return nil, errPacked
		}
		contents = binary.AppendVarint(contents, int64(spec)-int64(last))
		contents = binary.AppendUvarint(contents, uint64(len(packed)-len(rest)))
		last, packed = int(spec), rest
	}
	return contents, nil
}

// findSpec calls found with the place of each execution of a spec.
func findSpec(contents []byte, number int, found func(first, length int)) error {
	spec, first := 0, 0
	for at := 0; at < len(contents); {
		var v, length uint64
		v, at = uvarint(contents, at)
		spec += int(v>>1) ^ -int(v&1) // zigzag, as of binary.AppendVarint
		if length, at = uvarint(contents, at); at > len(contents) {
			return errPacked
		}
		if spec == number {
			found(first, int(length))
		}
		first += int(length)
	}
	return nil
}

// unpack calls f with executions. look gets the summary of each first, and decides whether f gets the results:
// skipping costs nothing. Neither may keep its argument, because the next one overwrites it.
func unpack(packed []byte, look func(*Summary) bool, f func(*Execution)) error {
	e := Execution{Results: make([]Result, 0, 64)} // specs with more tests are rare
	for len(packed) > 0 {
		position, body, rest, err := next(packed)
		if err != nil {
			return err
		}
		packed = rest
		e.Summary = Summary{Position: position}
		at := e.unpack(body)
		if at > len(body) {
			return errPacked
		}
		if !look(&e.Summary) {
			continue
		}
		var ok bool
		if e.Results, ok = unpackResults(e.Results[:0], body[at:]); !ok || len(e.Results) != e.Tests {
			return errPacked
		}
		f(&e)
	}
	return nil
}

// everything looks at all executions.
func everything(*Summary) bool { return true }

// ofSpec looks at the executions of a spec.
func ofSpec(number int) func(*Summary) bool { return func(s *Summary) bool { return s.Spec == number } }

// unpack reads everything but the position, and returns where the tests begin: beyond the
// end if something is damaged.
func (s *Summary) unpack(b []byte) int {
	spec, at := uvarint(b, 0)
	duration, at := uvarint(b, at)
	if at >= len(b) {
		return len(b) + 1
	}
	flags := b[at]
	at++
	s.Spec, s.Duration = int(spec), int64(duration)
	s.Complete, s.Crashed = flags&flagComplete != 0, flags&flagCrashed != 0
	s.Failed, s.Flaky, s.Errors = flags&flagFailed != 0, flags&flagFlaky != 0, flags&flagErrors != 0
	var v uint64
	if flags&flagError != 0 {
		v, at = uvarint(b, at)
		s.Error = int(v)
	}
	v, at = uvarint(b, at)
	s.Tests = int(v)
	return at
}

// unpackResults appends the tests of an execution. It reports false if something is damaged. Questions spend most of
// their time here.
func unpackResults(list []Result, b []byte) (_ []Result, ok bool) {
	test := 0
	var v uint64
	for at := 0; at < len(b); {
		v, at = uvarint(b, at)
		test += int(v>>1) ^ -int(v&1) // zigzag, as of binary.AppendVarint
		if at >= len(b) || test <= 0 {
			return list, false
		}
		bits := b[at]
		if at+2 < len(b) && b[at+1] >= 0x80 && b[at+2] < 0x80 { // a duration from 0.1 to 16 s
			v = uint64(b[at+1]&0x7f) | uint64(b[at+2])<<7
			at += 3
		} else {
			v, at = uvarint(b, at+1)
		}
		r := Result{Test: test, State: state(bits & 3), Attempts: int(bits >> attemptShift), Duration: int64(v)}
		if bits&bitError != 0 {
			v, at = uvarint(b, at)
			r.Error = int(v)
		}
		if at > len(b) {
			return list, false
		}
		list = append(list, r)
	}
	return list, true
}

// repack replaces executions in packed results by position. One that is nil is
// removed.
func repack(packed []byte, changes map[int]*Execution) ([]byte, error) {
	all := map[int][]byte{}
	for len(packed) > 0 {
		position, _, rest, err := next(packed)
		if err != nil {
			return nil, err
		}
		all[position] = packed[:len(packed)-len(rest)]
		packed = rest
	}
	for position, e := range changes {
		if e == nil {
			delete(all, position)
			continue
		}
		all[position] = pack(nil, *e)
	}
	positions := make([]int, 0, len(all))
	for p := range all {
		positions = append(positions, p)
	}
	slices.Sort(positions)
	out := []byte{} // a part may have no results any more, and its column is NOT NULL
	for _, p := range positions {
		out = append(out, all[p]...)
	}
	return out, nil
}
