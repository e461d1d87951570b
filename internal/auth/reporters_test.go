package auth_test

import (
	"bytes"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"runbell/internal/auth"
	"runbell/internal/run"
)

func reporters(key byte) *auth.Reporters { return auth.NewReporters(bytes.Repeat([]byte{key}, 32)) }

// A credential is good for what it was made for and for nothing else, whatever
// names clients choose.
func TestCredentialsOfReporters(t *testing.T) {
	ours, others := reporters(1), reporters(2)
	rapid.Check(t, func(t *rapid.T) {
		runID, id := rapid.String().Draw(t, "run"), rapid.String().Draw(t, "id")
		machine, instance := ours.MachineCredential(runID, id), ours.InstanceCredential(id)
		if got, err := ours.Machine(runID, machine); err != nil || got != id {
			t.Errorf("machine %q: %q, %v", id, got, err)
		}
		if got, err := ours.Instance(instance); err != nil || got != id {
			t.Errorf("instance %q: %q, %v", id, got, err)
		}
		signature := instance[strings.LastIndex(instance, ".")+1:]
		for what, check := range map[string]func() (string, error){
			"the public id as an instance":     func() (string, error) { return ours.Instance(id) },
			"the public id as a machine":       func() (string, error) { return ours.Machine(runID, id) },
			"an empty signature":               func() (string, error) { return ours.Instance(id + ".") },
			"a signature that is cut":          func() (string, error) { return ours.Instance(instance[:len(instance)-1]) },
			"a signature that is longer":       func() (string, error) { return ours.Instance(instance + "0") },
			"another id":                       func() (string, error) { return ours.Instance(id + "x." + signature) },
			"a machine as an instance":         func() (string, error) { return ours.Instance(machine) },
			"an instance as a machine":         func() (string, error) { return ours.Machine(runID, instance) },
			"a machine of another run":         func() (string, error) { return ours.Machine(runID+"x", machine) },
			"another server's instance":        func() (string, error) { return others.Instance(instance) },
			"another server's machine":         func() (string, error) { return others.Machine(runID, machine) },
			"the run and the id cut elsewhere": func() (string, error) { return ours.Machine("x"+runID, "x."+machine) },
		} {
			if got, err := check(); run.KindOf(err) != run.NotFound {
				t.Errorf("%s: %q, %v", what, got, err)
			}
		}
	})
}
