package api

import (
	"runbell/internal/auth"
	"runbell/internal/run"
	"runbell/internal/store"
)

type recordKey struct {
	ID        string     `json:"id"`
	ProjectID string     `json:"projectId"`
	Label     *string    `json:"label"`
	Hint      string     `json:"hint" doc:"The end of the key, to tell keys apart."`
	CreatedAt timestamp  `json:"createdAt"`
	UsedAt    *timestamp `json:"lastUsedAt" doc:"Accurate to a few minutes."`
}

func showRecordKey(k store.RecordKey) recordKey {
	return recordKey{k.ID, k.ProjectID, text(k.Label), k.Hint, timestamp(k.CreatedAt), known(k.UsedAt)}
}

func (a *api) recordKeys(r *request) ([]recordKey, bool, error) {
	var out []recordKey
	err := a.DB.Read(r.Context(), func(tx *store.Tx) error {
		if _, err := tx.Project(r.Context(), r.id()); err != nil {
			return err
		}
		list, err := tx.RecordKeys(r.Context(), r.id())
		for _, k := range list {
			out = append(out, showRecordKey(k))
		}
		return err
	})
	return out, false, err
}

type newRecordKey struct {
	Label nullable[string] `json:"label" doc:"At most 255 characters."`
}

type createdRecordKey struct {
	recordKey
	Key string `json:"recordKey" doc:"The key. It is shown only in this response."`
}

func (a *api) createRecordKey(r *request, b newRecordKey) (createdRecordKey, error) {
	stored, key, err := a.Keys.CreateRecordKey(r.Context(), r.id(), b.Label.or(""))
	return createdRecordKey{showRecordKey(stored), key}, err
}

// deleted is the answer to the removal of something.
type deleted struct {
	ID string `json:"id"`
}

func (a *api) deleteRecordKey(r *request) (deleted, error) {
	return deleted{r.id()}, a.Keys.RevokeRecordKey(r.Context(), "", r.id())
}

type apiKey struct {
	ID        string     `json:"id"`
	Label     *string    `json:"label"`
	Access    keyAccess  `json:"access"`
	ProjectID *string    `json:"projectId" doc:"The only project that the key can be used for; null means all."`
	Hint      string     `json:"hint" doc:"The end of the key, to tell keys apart."`
	CreatedAt timestamp  `json:"createdAt"`
	UsedAt    *timestamp `json:"lastUsedAt" doc:"Accurate to a few minutes."`
}

// keyAccess is what an API key allows.
type keyAccess string

const (
	readOnly  keyAccess = "read"
	readWrite keyAccess = "write"
)

var keyAccesses = []keyAccess{readOnly, readWrite}

func showAPIKey(k store.APIKey) apiKey {
	access := readOnly
	if k.Write {
		access = readWrite
	}
	return apiKey{k.ID, text(k.Label), access, text(k.ProjectID), k.Hint, timestamp(k.CreatedAt), known(k.UsedAt)}
}

func (a *api) apiKeys(r *request) ([]apiKey, bool, error) {
	var out []apiKey
	err := a.DB.Read(r.Context(), func(tx *store.Tx) error {
		list, err := tx.APIKeys(r.Context())
		for _, k := range list {
			out = append(out, showAPIKey(k))
		}
		return err
	})
	return out, false, err
}

type newAPIKey struct {
	Label     nullable[string] `json:"label" doc:"At most 255 characters."`
	Access    keyAccess        `json:"access"`
	ProjectID nullable[string] `json:"projectId" doc:"The only project that the key can be used for. Default: all."`
}

type createdAPIKey struct {
	apiKey
	Key string `json:"apiKey" doc:"The key. It is shown only in this response."`
}

func (a *api) createAPIKey(r *request, b newAPIKey) (createdAPIKey, error) {
	access, known := map[keyAccess]auth.Access{readOnly: auth.Read, readWrite: auth.Write}[b.Access]
	if !known {
		return createdAPIKey{}, run.Errorf(run.Invalid, "access must be %s.", oneOf(keyAccesses))
	}
	stored, key, err := a.Keys.CreateAPIKey(r.Context(), b.Label.or(""), access, b.ProjectID.or(""))
	return createdAPIKey{showAPIKey(stored), key}, err
}

func (a *api) deleteAPIKey(r *request) (deleted, error) {
	return deleted{r.id()}, a.Keys.RevokeAPIKey(r.Context(), r.id())
}
