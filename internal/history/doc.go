// Package history says what tests have done over time: which fail, which are
// flaky, which errors are the same, what a run changed.
//
// A [Worker] packs the results of reporters (pack.go) after the commit that stored them. Explorers unpack and count
// the results that a question needs (tally.go, tests.go, specs.go, errors.go). [Compare] and [HealthOf] are rules,
// which are pure. A result belongs to the time at which its run was created.
package history
