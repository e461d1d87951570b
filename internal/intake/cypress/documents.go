package cypress

import (
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"runbell/internal/lifecycle"
	"runbell/internal/run"
)

// ReadJoin, ReadTests and ReadResults read requests of reporters that another
// system has kept, such as sorry-cypress in its database.

// ReadJoin reads the body of POST /runs.
func ReadJoin(doc []byte) (lifecycle.Join, error) {
	var m runRequest
	if err := unmarshal(doc, &m); err != nil {
		return lifecycle.Join{}, err
	}
	return m.join()
}

// ReadTests reads the body of POST /instances/{id}/tests.
func ReadTests(doc []byte) (run.Announcement, error) {
	var m testsRequest
	if err := unmarshal(doc, &m); err != nil {
		return run.Announcement{}, err
	}
	return m.announcement()
}

// ReadResults reads the body of POST /instances/{id}/results.
func ReadResults(doc []byte) (run.Outcome, error) {
	var m resultsRequest
	if err := unmarshal(doc, &m); err != nil {
		return run.Outcome{}, err
	}
	return m.outcome()
}

func unmarshal(doc []byte, v any) error {
	if err := json.Unmarshal(doc, v, jsontext.AllowInvalidUTF8(true), jsontext.AllowDuplicateNames(true)); err != nil {
		return run.Errorf(run.Invalid, "The document is not what a reporter sends: %v.", err)
	}
	return nil
}
