package auth

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"runbell/internal/run"
)

// Reporters makes and checks the credentials that reporters work with.
//
// Only the first request of a reporter carries a record key. Everything after
// that is allowed by the ids of a machine and of an instance that the server
// answered. Those ids are credentials: they are the public id, which the REST
// API, pages and logs show, a dot, and a signature of it. So the public id alone gives
// no right to report, and nothing has to be stored to check a credential.
type Reporters struct{ key []byte }

// signatureSize is the length of a signature in bytes. 128 bits cannot be guessed.
const signatureSize = 16

// NewReporters makes the checks from the server's secret key. Servers that share
// a database must have the same one.
func NewReporters(secret []byte) *Reporters {
	key, err := hkdf.Key(sha256.New, secret, nil, "runbell reporter credentials", sha256.Size)
	if err != nil {
		panic("auth: a key of 32 bytes cannot be derived: " + err.Error()) // it is never too long
	}
	return &Reporters{key}
}

// MachineCredential is the machineId that a reporter gets for a machine of a run.
func (r *Reporters) MachineCredential(runID, id string) string {
	return id + "." + r.sign("machine", runID, id)
}

// InstanceCredential is the instanceId that a reporter gets for a claimed spec.
func (r *Reporters) InstanceCredential(id string) string {
	return id + "." + r.sign("instance", id)
}

// Machine is the public id of the machine that a credential is for, or a
// NotFound error.
func (r *Reporters) Machine(runID, credential string) (string, error) {
	id, signature := split(credential)
	if !equal(signature, r.sign("machine", runID, id)) {
		return "", run.Errorf(run.NotFound,
			"No machine with this machineId has joined run %s: send POST /runs first, and use the machineId "+
				"of its response.", run.Clip(runID, 40))
	}
	return id, nil
}

// Instance is the public id of the instance that a credential is for, or a
// NotFound error. It does not say whether the instance is still there.
func (r *Reporters) Instance(credential string) (string, error) {
	id, signature := split(credential)
	if !equal(signature, r.sign("instance", id)) {
		return "", run.Missing("instance", credential)
	}
	return id, nil
}

// split cuts a credential at its last dot: a client may have put dots into the
// name of its machine.
func split(credential string) (id, signature string) {
	at := strings.LastIndexByte(credential, '.')
	if at < 0 {
		return credential, ""
	}
	return credential[:at], credential[at+1:]
}

// sign signs a list of texts. Their lengths are signed too, so that no two lists
// are the same bytes.
func (r *Reporters) sign(parts ...string) string {
	mac := hmac.New(sha256.New, r.key)
	for _, p := range parts {
		_, _ = fmt.Fprintf(mac, "%d:%s", len(p), p) // a hash takes everything
	}
	return hex.EncodeToString(mac.Sum(nil)[:signatureSize])
}
