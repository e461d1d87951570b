package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	"runbell/bench/load"
	"runbell/internal/auth"
	"runbell/internal/config"
	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/webhook"
)

// What is in the database beside what the machines record.
const (
	publicProject = "public"
	publicKey     = "key of the public project"
	readKey       = "a-read-only-key-of-the-benchmark"
	largeSpec     = "cypress/e2e/large.cy.js"
	largeTests    = 20_000
	hook          = "0b5c9d5e-6a1f-4a47-9d0c-7d1c1f0f6f11"
	atOnce        = 2000 // deliveries in one transaction
)

// generate fills an empty database: two projects, their keys, and a webhook that
// is disabled, with deliveries that wait for it.
func generate(ctx context.Context, dir string, waiting int) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	cfg := config.Database{DataDir: dir}
	key, err := cfg.Key()
	if err != nil {
		return err
	}
	sealer, err := webhook.NewSealer(key)
	if err != nil {
		return err
	}
	db, err := store.Open(ctx, cfg.URL(), sealer)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	event := webhook.Event{ID: "evt_waiting", ProjectID: load.Project, Scope: run.RunScope, Kind: webhook.RunFinish,
		Sequence: 1, Payload: []byte("{}")}
	if err := db.Write(ctx, func(tx *store.Tx) error { return ground(ctx, tx, event) }); err != nil {
		return err
	}
	for left := waiting; left > 0; left -= atOnce {
		if err := db.Write(ctx, func(tx *store.Tx) error {
			for range min(left, atOnce) {
				if _, err := tx.QueueDelivery(ctx, webhook.NewEndpoint(hook, load.Project), event); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

func ground(ctx context.Context, tx *store.Tx, event webhook.Event) error {
	for id, key := range map[string]string{load.Project: load.RecordKey, publicProject: publicKey} {
		p := run.NewProject(id)
		p.Name, p.CreatedAt, p.PublicRuns = id, tx.Now, id == publicProject
		if _, err := tx.InsertProject(ctx, p); err != nil {
			return err
		}
		if err := tx.InsertRecordKey(ctx,
			store.RecordKey{ID: id, ProjectID: id, Hash: auth.Hash(key), CreatedAt: tx.Now}); err != nil {
			return err
		}
	}
	if err := tx.InsertAPIKey(ctx, store.APIKey{ID: "reader", Hash: auth.Hash(readKey), CreatedAt: tx.Now}); err != nil {
		return err
	}
	e := webhook.NewEndpoint(hook, load.Project)
	e.URL, e.Scope, e.Events, e.Enabled = "https://hooks.example.test/runbell", run.RunScope,
		[]webhook.Kind{webhook.RunFinish}, false
	e.Secret, e.CreatedAt, e.UpdatedAt = webhook.NewSecret(), tx.Now, tx.Now
	if err := tx.InsertEndpoint(ctx, e); err != nil {
		return err
	}
	event.CreatedAt = tx.Now
	return tx.InsertEvent(ctx, event)
}

// recordLargeSpec records a run with a large spec in the public project. Another
// spec has no results, so the run goes on and its pages change each second. It
// answers the paths of the run and of the large spec.
func recordLargeSpec(server string) (runPath, specPath string, err error) {
	var tests, results []any
	for n := range largeTests {
		id := fmt.Sprint("r", n)
		tests = append(tests, map[string]any{"clientId": id, "title": []string{"a page", fmt.Sprint("shows thing ", n)}})
		results = append(results, map[string]any{"clientId": id, "state": "passed",
			"attempts": []any{map[string]any{"state": "passed", "wallClockDuration": 32}}})
	}
	var joined struct{ RunID, GroupID, MachineID string }
	if err := post(server+"/runs", map[string]any{"projectId": publicProject, "recordKey": publicKey, "ciBuildId": "large",
		"specs": []string{largeSpec, "other.cy.js"}}, &joined); err != nil {
		return "", "", err
	}
	var claimed struct{ InstanceID string }
	if err := post(server+"/runs/"+joined.RunID+"/instances",
		map[string]any{"groupId": joined.GroupID, "machineId": joined.MachineID}, &claimed); err != nil {
		return "", "", err
	}
	instance := server + "/instances/" + claimed.InstanceID
	if err := post(instance+"/tests", map[string]any{"tests": tests, "hooks": []any{}}, nil); err != nil {
		return "", "", err
	}
	if err := post(instance+"/results",
		map[string]any{"stats": map[string]int{"passes": largeTests}, "tests": results, "exception": nil}, nil); err != nil {
		return "", "", err
	}
	runPath = "/run/" + joined.RunID
	specPath = runPath + "/spec?file=" + url.QueryEscape(largeSpec)
	resp, err := http.Get(server + specPath)
	if err != nil {
		return "", "", err
	}
	defer func() { _ = resp.Body.Close() }()
	if text, err := io.ReadAll(resp.Body); err != nil || !strings.Contains(string(text), "shows thing 7") {
		return "", "", fmt.Errorf("GET %s: %s without the tests, %w", specPath, resp.Status, err)
	}
	return runPath, specPath, nil
}

func post(address string, body, into any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	resp, err := http.Post(address, "application/json", bytes.NewReader(text))
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("POST %s: %s: %s", address, resp.Status, answer)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(answer, into)
}
