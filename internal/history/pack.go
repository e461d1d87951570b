package history

import (
	"encoding/binary"
	"errors"
	"slices"

	"runbell/internal/run"
)

// Execution is one execution of a spec, with numbers for names.
type Execution struct {
	Position int // in its group
	Spec     int
	Duration int64 // milliseconds
	// Complete says that every test that was announced has a result.
	Complete bool
	// Crashed says that the spec could not run to its end and no test of it failed,
	// and Error why; it is 0 if nobody knows.
	Crashed bool
	Error   int
	Results []Result
}

// Failed says that something of the execution failed.
func (e *Execution) Failed() bool {
	return e.Crashed || slices.ContainsFunc(e.Results, func(r Result) bool { return r.State == failed })
}

// Flaky says that a test of the execution was flaky.
func (e *Execution) Flaky() bool { return slices.ContainsFunc(e.Results, Result.Flaky) }

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

func stateOf(s run.TestState) state { return state(max(0, slices.Index(stateNames[:], s))) } // Settle left no others

// Name is the state as the rest of the program has it.
func (s state) Name() run.TestState { return stateNames[s] }

// Packed results of a part are executions in the order of their positions, each
//
//	position, length of what follows, spec, duration, flags, [error], tests…
//
// and a test is the difference of its number to that of the test before, a byte
// (two bits of state, one for an error, five of attempts), its duration, [error].
// All numbers are varints. Tests of a spec mostly got their numbers at once, so
// that a result takes about five bytes.
const (
	flagComplete = 1
	flagCrashed  = 2
	flagError    = 4

	bitError     = 1 << 2
	attemptShift = 3
	maxAttempts  = 1<<5 - 1
)

// pack appends an execution.
func pack(b []byte, e Execution) []byte {
	flags := byte(0)
	if e.Complete {
		flags |= flagComplete
	}
	if e.Crashed {
		flags |= flagCrashed
	}
	if e.Error > 0 {
		flags |= flagError
	}
	body := binary.AppendUvarint(nil, uint64(e.Spec))
	body = binary.AppendUvarint(body, uint64(max(0, e.Duration)))
	body = append(body, flags)
	if e.Error > 0 {
		body = binary.AppendUvarint(body, uint64(e.Error))
	}
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

// unpacker reads packed results. Its methods answer 0 once something was damaged.
type unpacker struct {
	b       []byte
	damaged bool
}

func (u *unpacker) uvarint() uint64 {
	v, n := binary.Uvarint(u.b)
	if n <= 0 {
		u.b, u.damaged = nil, true
		return 0
	}
	u.b = u.b[n:]
	return v
}

func (u *unpacker) varint() int64 {
	v, n := binary.Varint(u.b)
	if n <= 0 {
		u.b, u.damaged = nil, true
		return 0
	}
	u.b = u.b[n:]
	return v
}

func (u *unpacker) byte() byte {
	if len(u.b) == 0 {
		u.damaged = true
		return 0
	}
	v := u.b[0]
	u.b = u.b[1:]
	return v
}

// take cuts off the next n bytes.
func (u *unpacker) take(n uint64) []byte {
	if n > uint64(len(u.b)) {
		u.b, u.damaged = nil, true
		return nil
	}
	v := u.b[:n]
	u.b = u.b[n:]
	return v
}

// unpack calls f with each execution, or with those of one spec unless that is 0. f
// must not keep it: the next one takes its place.
func unpack(packed []byte, spec int, f func(*Execution)) error {
	u := unpacker{b: packed}
	var e Execution
	for len(u.b) > 0 {
		e = Execution{Position: int(u.uvarint()), Results: e.Results[:0]}
		body := unpacker{b: u.take(u.uvarint())}
		if of := body; spec != 0 && int(of.uvarint()) != spec && !u.damaged {
			continue
		}
		if !body.execution(&e) || u.damaged {
			return errPacked
		}
		f(&e)
	}
	return nil
}

func (u *unpacker) execution(e *Execution) bool {
	e.Spec, e.Duration = int(u.uvarint()), int64(u.uvarint())
	flags := u.byte()
	e.Complete, e.Crashed = flags&flagComplete != 0, flags&flagCrashed != 0
	if flags&flagError != 0 {
		e.Error = int(u.uvarint())
	}
	last := 0
	for len(u.b) > 0 {
		last += int(u.varint())
		bits := u.byte()
		r := Result{Test: last, State: state(bits & 3), Attempts: int(bits >> attemptShift), Duration: int64(u.uvarint())}
		if bits&bitError != 0 {
			r.Error = int(u.uvarint())
		}
		if r.Test <= 0 {
			return false
		}
		e.Results = append(e.Results, r)
	}
	return !u.damaged
}

// repack replaces executions in packed results by position. One that is nil is
// removed.
func repack(packed []byte, changes map[int]*Execution) ([]byte, error) {
	all := map[int][]byte{}
	for u := (unpacker{b: packed}); len(u.b) > 0; {
		rest := u.b
		position := int(u.uvarint())
		u.take(u.uvarint())
		if u.damaged {
			return nil, errPacked
		}
		all[position] = rest[:len(rest)-len(u.b)]
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
	out := make([]byte, 0, len(packed))
	for _, p := range positions {
		out = append(out, all[p]...)
	}
	return out, nil
}
