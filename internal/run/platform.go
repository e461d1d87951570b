package run

import (
	"fmt"
	"regexp"
)

// Platform is where a machine runs its browser.
type Platform struct {
	OSName         string `json:"osName,omitempty"`
	OSVersion      string `json:"osVersion,omitempty"`
	BrowserName    string `json:"browserName,omitempty"`
	BrowserVersion string `json:"browserVersion,omitempty"`
}

// Mismatch says why two machines cannot share a group: different browsers or
// operating systems, or other major versions of them. It is "" if they can.
func (p Platform) Mismatch(group Platform) string {
	for _, f := range p.compared(group) {
		if f.mine != "" && f.theirs != "" && (f.exact && f.mine != f.theirs || major(f.mine) != major(f.theirs)) {
			return f.text()
		}
	}
	return ""
}

// Differs says in which version two machines of a group differ, "" if in none.
func (p Platform) Differs(group Platform) string {
	for _, f := range p.compared(group) {
		if f.mine != "" && f.theirs != "" && f.mine != f.theirs {
			return f.text()
		}
	}
	return ""
}

type comparedField struct {
	what, mine, theirs string
	exact              bool // a name, not a version
}

func (f comparedField) text() string {
	return fmt.Sprintf("its %s is %q, that of the group is %q", f.what, Clip(f.mine, 60), Clip(f.theirs, 60))
}

func (p Platform) compared(group Platform) []comparedField {
	return []comparedField{
		{"browser", p.BrowserName, group.BrowserName, true},
		{"operating system", p.OSName, group.OSName, true},
		{"browser version", p.BrowserVersion, group.BrowserVersion, false},
		{"version of the operating system", p.OSVersion, group.OSVersion, false},
	}
}

var untilMajor = regexp.MustCompile(`^[^0-9]*[0-9]*`)

// major is a version up to its first number: "Debian - 12" of "Debian - 12.4".
func major(version string) string { return untilMajor.FindString(version) }
