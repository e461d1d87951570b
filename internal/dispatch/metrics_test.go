package dispatch_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"runbell/internal/dispatch"
	"runbell/internal/webhook"
)

// TestMetricsAndLogLines: metrics and log lines agree with the log of deliveries.
func TestMetricsAndLogLines(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		w := newWorld(t, dir, nil)
		var lines bytes.Buffer
		registry := prometheus.NewRegistry()
		w.engine = w.newEngine(func(o *dispatch.Options) {
			o.Log, o.Metrics = slog.New(slog.NewJSONHandler(&lines, nil)), registry
		})
		w.network.Serve(t, "hangs.test:80", http.HandlerFunc(hangs))
		w.network.Serve(t, "fails.test:80", answers(500))
		w.network.Serve(t, "gone.test:80", answers(410))
		w.hook("fails", "http://fails.test/", nil)
		w.hook("hangs", "http://hangs.test/", nil)
		w.hook("refuses", "http://refuses.test/", nil)
		w.hook("gone", "http://gone.test/", nil)
		w.start()
		for i := range 5 {
			w.finish(fmt.Sprint("b", i))
			time.Sleep(7 * time.Second)
		}
		w.join("the last")
		time.Sleep(11 * time.Minute)
		synctest.Wait()
		w.stop()

		want, attempted := map[string]float64{}, 0
		var states []webhook.Delivery
		for _, id := range []string{"hook", "fails", "hangs", "refuses", "gone"} {
			list, attempts := w.log(id)
			states = append(states, list...)
			for i := range list {
				attempted += len(attempts[i])
				for _, a := range attempts[i] {
					want[`runbell_webhook_attempts_total{result="`+string(a.Class)+`"}`]++
				}
			}
		}
		for _, d := range states {
			switch {
			case d.State == webhook.Held:
				want[`runbell_webhook_deliveries{state="held"}`]++
			case d.State == webhook.Waiting && d.DueAt.IsZero():
				want[`runbell_webhook_deliveries{state="parked"}`]++
			case d.State == webhook.Waiting && d.DueAt.After(time.Now()):
				want[`runbell_webhook_deliveries{state="scheduled"}`]++
			case d.State == webhook.Waiting:
				want[`runbell_webhook_deliveries{state="due"}`]++
			}
		}
		for health, n := range map[webhook.HealthState]float64{webhook.Healthy: 1, webhook.Failing: 3, webhook.IsOff: 1, webhook.Unused: 0} {
			want[`runbell_webhook_endpoints{health="`+string(health)+`"}`] = n
		}
		want["runbell_webhook_requests_in_flight"] = 0
		want["runbell_webhook_endpoints_disabled_total"] = 1
		want["runbell_webhook_attempt_duration_seconds"] = float64(attempted)
		want["runbell_webhook_first_attempt_lag_seconds"] = 50 + 5 - 10 // each delivery was tried once, but those behind 410
		got := gather(t, registry)
		for name, n := range want {
			if got[name] != n {
				t.Errorf("%s is %v, want %v", name, got[name], n)
			}
		}
		for name, n := range got {
			if n != 0 && want[name] == 0 && name != "runbell_webhook_oldest_due_seconds" {
				t.Errorf("%s is %v, want 0", name, n)
			}
		}
		if want[`runbell_webhook_attempts_total{result="timeout"}`] == 0 || want[`runbell_webhook_deliveries{state="scheduled"}`] == 0 || want[`runbell_webhook_deliveries{state="held"}`] == 0 {
			t.Errorf("the scenario shows too little: %v", want)
		}
		checkLines(t, &lines, attempted)
	})
}

// checkLines: one line for each attempt, with the ids that identify it.
func checkLines(t *testing.T, lines *bytes.Buffer, attempted int) {
	t.Helper()
	n := 0
	for line := range bytes.Lines(lines.Bytes()) {
		var l map[string]any
		if err := json.Unmarshal(line, &l); err != nil {
			t.Fatal(err)
		}
		if l["msg"] != "webhook attempt" {
			continue
		}
		n++
		for _, key := range []string{"time", "level", "delivery", "webhook_id", "event", "run", "endpoint", "attempt", "class", "status", "duration"} {
			if l[key] == nil || l[key] == "" {
				t.Errorf("a line without %s: %s", key, line)
			}
		}
		if (l["class"] == "ok") != (l["error"] == nil) {
			t.Errorf("a line of class %v with the error %q", l["class"], l["error"])
		}
		if bytes.Contains(line, []byte("t0ps3cret")) || bytes.Contains(line, []byte("whsec_")) {
			t.Errorf("a line with a secret: %s", line)
		}
	}
	if n != attempted {
		t.Errorf("%d lines of %d attempts", n, attempted)
	}
}

// gather reads counters and gauges, and how often histograms were observed.
func gather(t *testing.T, registry *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += fmt.Sprintf("{%s=%q}", l.GetName(), l.GetValue())
			}
			switch f.GetType() {
			case dto.MetricType_COUNTER:
				out[name] = m.GetCounter().GetValue()
			case dto.MetricType_HISTOGRAM:
				out[name] = float64(m.GetHistogram().GetSampleCount())
			default:
				out[name] = m.GetGauge().GetValue()
			}
		}
	}
	return out
}
