package api

import (
	"bytes"
	"net/http/httptest"
	"reflect"
	"testing"

	"runbell/internal/body"
	"runbell/internal/run"
	"runbell/internal/testkit"
)

// FuzzBodies: every body of the API is decoded, or refused with an error for its
// sender, at a cost that its size bounds.
func FuzzBodies(f *testing.F) {
	var bodies []reflect.Type
	for _, rt := range (&api{}).routes() {
		if rt.handler.body != nil {
			bodies = append(bodies, rt.handler.body)
		}
	}
	for i := range bodies {
		for _, s := range []string{``, `{}`, `null`, `[]`, `{"name":"a","projectId":"a"}`, `{"url":"https://a.test","hookEvents":["RUN_START"],"headers":"{}","label":null}`,
			`{"githubRunId":1,"githubRunAttempt":"1e999"}`, `{"filter":{"branches":["a","b"]}}`, `{"runId":"a","recordKey":"b"}`, `{"machineId":"\u0000"}`} {
			f.Add(uint8(i), []byte(s))
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, text []byte) {
		kind := bodies[int(which)%len(bodies)]
		pool := body.NewPools().Known
		once := func() error {
			b, err := pool.Receive(httptest.NewRecorder(), httptest.NewRequest("POST", "/", bytes.NewReader(text)), bodyLimits)
			if err != nil {
				return err
			}
			defer b.Release()
			return b.Decode(reflect.New(kind).Interface(), true)
		}
		_ = once() // what is made once for all bodies
		var err error
		const most, free = 200, 64 << 10
		if cost := testkit.Allocated(func() { err = once() }); cost > free+most*uint64(len(text)) {
			t.Fatalf("%d bytes cost %d: more than %d for each", len(text), cost, most)
		}
		if kind := run.KindOf(err); err != nil && kind != run.Invalid && kind != run.TooLarge {
			t.Fatalf("an error of kind %d: %v", kind, err)
		}
	})
}
