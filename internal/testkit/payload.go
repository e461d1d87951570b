package testkit

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
)

// payloadSchema is the schema of the webhook body as it is published: every key
// and its type, nothing else. groupId alone may be absent.
var payloadSchema = map[string]func(any) bool{
	"event": func(v any) bool {
		s, ok := v.(string)
		return ok && slices.Contains([]string{"RUN_START", "RUN_FINISH", "RUN_TIMEOUT", "RUN_CANCELED"}, s)
	},
	"runUrl":   nonEmpty,
	"buildId":  nonEmpty,
	"groupId":  nonEmpty,
	"tags":     listOfText,
	"overall":  number,
	"passes":   number,
	"failures": number,
	"pending":  number,
	"skipped":  number,
	"retries":  number,
	"flaky":    number,
	"commit": func(v any) bool {
		m, ok := v.(map[string]any)
		return ok && checkKeys(m, commitSchema) == nil
	},
}

var commitSchema = map[string]func(any) bool{
	"sha": textOrNull, "branch": textOrNull, "authorName": textOrNull, "authorEmail": textOrNull,
	"message": textOrNull, "remoteOrigin": textOrNull, "defaultBranch": textOrNull,
}

// statusSchema is that of TEST_STATUS, which has one key more.
var statusSchema = with(payloadSchema, map[string]func(any) bool{
	"event": func(v any) bool { return v == "TEST_STATUS" },
	"changes": func(v any) bool {
		m, ok := v.(map[string]any)
		return ok && checkKeys(m, changesSchema) == nil
	},
})

var changesSchema = map[string]func(any) bool{
	"total": number,
	"tests": func(v any) bool {
		list, ok := v.([]any)
		return ok && !slices.ContainsFunc(list, func(v any) bool {
			m, ok := v.(map[string]any)
			return !ok || checkKeys(m, changeSchema) != nil
		})
	},
}

var changeSchema = map[string]func(any) bool{
	"signature": nonEmpty, "spec": nonEmpty, "title": listOfText, "from": health, "to": health,
}

func health(v any) bool { return v == "healthy" || v == "flaky" || v == "broken" }

func with(base, more map[string]func(any) bool) map[string]func(any) bool {
	out := maps.Clone(base)
	maps.Copy(out, more)
	return out
}

// CheckPayload says what of a webhook's body is not as published, but for its facts, which a test of
// the documentation checks against webhook.schema.json.
func CheckPayload(body []byte) error {
	var m map[string]any
	if err := json.Unmarshal(body, &m); err != nil {
		return err
	}
	if _, extended := m["facts"].(map[string]any); extended {
		delete(m, "facts")
	}
	if m["event"] == "TEST_STATUS" {
		return checkKeys(m, statusSchema)
	}
	return checkKeys(m, payloadSchema)
}

func checkKeys(m map[string]any, schema map[string]func(any) bool) error {
	for key, ok := range schema {
		v, there := m[key]
		if !there {
			if key == "groupId" {
				continue
			}
			return fmt.Errorf("key %q is missing", key)
		}
		if !ok(v) {
			return fmt.Errorf("key %q must not be %v", key, v)
		}
	}
	for key := range m {
		if schema[key] == nil {
			return fmt.Errorf("key %q is not in the schema", key)
		}
	}
	return nil
}

func nonEmpty(v any) bool { s, ok := v.(string); return ok && s != "" }

// textOrNull: what is unknown is null, not the empty string.
func textOrNull(v any) bool { return v == nil || nonEmpty(v) && !strings.HasSuffix(v.(string), "\n") }

func number(v any) bool { n, ok := v.(float64); return ok && n >= 0 && n == math.Trunc(n) }

func listOfText(v any) bool {
	list, ok := v.([]any)
	if !ok {
		return false
	}
	for _, e := range list {
		if _, ok := e.(string); !ok {
			return false
		}
	}
	return true
}
