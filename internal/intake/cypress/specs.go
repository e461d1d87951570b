package cypress

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"runbell/internal/lifecycle"
	"runbell/internal/run"
)

// explainSpecs turns the error of a machine whose specs differ from its group's
// into the response that Cypress clients know. Other errors pass through.
func explainSpecs(err error, machine []string) error {
	e, ok := errors.AsType[*lifecycle.OtherSpecsError](err)
	if !ok {
		return err
	}
	missing, extra := specDifference(e.Specs, machine)
	var details []string
	if len(missing) > 0 {
		details = append(details, "Only in the group: "+listed(missing))
	}
	if len(extra) > 0 {
		details = append(details, "Only on this machine: "+listed(extra))
	}
	return &run.Error{Kind: run.Refused, Code: "PARALLEL_GROUP_PARAMS_MISMATCH",
		Message: fmt.Sprintf("This machine has other specs than group %q: all machines of a group must find the same "+
			"specs. Check --spec, specPattern and the checkout, or give this machine another --group.", run.Clip(e.Group, 80)),
		Details: details}
}

func listed(specs []string) string {
	const show = 10
	if len(specs) <= show {
		return strings.Join(specs, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(specs[:show], ", "), len(specs)-show)
}

// specDifference compares a group's specs with those a machine sent: what is
// only in the group, and what only the machine has.
func specDifference(group, machine []string) (missing, extra []string) {
	has := func(list []string) map[string]bool {
		m := make(map[string]bool, len(list))
		for _, s := range list {
			m[s] = true
		}
		return m
	}
	inGroup, inMachine := has(group), has(machine)
	for s := range inGroup {
		if !inMachine[s] {
			missing = append(missing, s)
		}
	}
	for s := range inMachine {
		if !inGroup[s] {
			extra = append(extra, s)
		}
	}
	slices.Sort(missing)
	slices.Sort(extra)
	return missing, extra
}

// hashSpecs identifies a set of specs, in whatever order they come.
func hashSpecs(specs []string) string {
	sorted := slices.Sorted(slices.Values(specs))
	h := sha256.New()
	for _, s := range sorted {
		fmt.Fprintf(h, "%d:%s", len(s), s)
	}
	return hex.EncodeToString(h.Sum(nil))
}
