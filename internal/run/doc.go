// Package run is the domain of test runs: what a project, run, group, machine,
// instance, test and attempt are, and which states they pass through.
//
// It is pure: no database, no HTTP, no clock. Every transition of a run or a
// group is decided by [Step]; everything else is arithmetic on values.
package run
