package run_test

import (
	"testing"

	"runbell/internal/run"
)

func TestSizes(t *testing.T) {
	for text, want := range map[string]int64{"0": 0, "512": 512, "512B": 512, "1KiB": 1024, "1.5GiB": 3 << 29, "20GiB": 20 << 30, "1024TiB": run.MaxArtifactBytes} {
		if got, err := run.ParseSize(text); got != want || err != nil {
			t.Errorf("%q is %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "GiB", "-1", "1GB", "NaN", "Inf", "1e40", "1025TiB", "two"} {
		if got, err := run.ParseSize(text); run.KindOf(err) != run.Invalid {
			t.Errorf("%q is %d, %v", text, got, err)
		}
	}
	for bytes, want := range map[int64]string{0: "0 B", 1: "1 B", 1023: "1023 B", 1024: "1 KiB", 1536: "1.5 KiB", 20 << 30: "20 GiB", 1<<40 + 1<<39: "1.5 TiB"} {
		if got := run.FormatSize(bytes); got != want {
			t.Errorf("%d is %q, want %q", bytes, got, want)
		}
	}
}
