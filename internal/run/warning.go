package run

import "time"

// MaxWarnings limits the warnings that are kept about one run.
const MaxWarnings = 50

// Warning tells people about something odd in what a run's reporters sent. It
// stops nothing.
type Warning struct {
	Code    string // for programs: one of the codes below
	Message string // for people
	At      time.Time
}

// The codes of warnings.
const (
	WarnMended      = "REPORT_MENDED"        // an impossible value in a report was corrected
	WarnDisagree    = "MACHINES_DISAGREE"    // the machines of a run test different commits, branches or repositories
	WarnPlatform    = "PLATFORMS_DIFFER"     // the machines of a group have different versions of a browser or system
	WarnStartedOver = "MACHINE_STARTED_OVER" // a machine joined again while it had specs, which can be claimed once more
	WarnNothingToDo = "NOTHING_LEFT_TO_DO"   // a machine joined a group that had passed already
)
