package recorder

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestJournal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "left.jsonl")
	j, err := createJournal(path, header{Server: "http://x", Join: joinRequest{ProjectID: "shop", RecordKey: "rk_secret"}})
	if err != nil {
		t.Fatal(err)
	}
	if other, err := createJournal(path, header{}); err != nil || other.path != path+".1" {
		t.Errorf("beside a file that is there: %+v, %v", other, err)
	}
	add := func(l line) int {
		t.Helper()
		n, err := j.append(l)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	add(line{Joined: &joined{RunID: "r", MachineID: "m"}})
	for n := range 3 {
		if got := add(line{Entry: &entry{Spec: fmt.Sprint("spec-", n), Report: json.RawMessage(`{"x":"<&>"}`), Output: "é\n"}}); got != n {
			t.Errorf("entry %d has the number %d", n, got)
		}
	}
	sent := 1
	add(line{Sent: &sent})
	if err := j.close(); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(path); err != nil || strings.Contains(string(b), "rk_secret") {
		t.Errorf("the key is in the file, or %v", err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("others may read it: %v, %v", info, err)
	}

	// A process that was killed leaves half a line.
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(f, `{"entry":{"spec":"half`)
	f.Close()
	again, err := openJournal(path)
	if err != nil {
		t.Fatal(err)
	}
	if again.header.Join.ProjectID != "shop" || again.joined.RunID != "r" || !slices.Equal(again.unsent(), []int{0, 2}) {
		t.Errorf("read again: %+v", again)
	}
	e, err := again.entry(2)
	if err != nil || e.Spec != "spec-2" || e.Output != "é\n" || string(e.Report) != `{"x":"\u003c\u0026\u003e"}` && string(e.Report) != `{"x":"<&>"}` {
		t.Errorf("%+v, %v", e, err)
	}
	for _, n := range []int{0, 2} {
		if _, err := again.append(line{Sent: &n}); err != nil {
			t.Fatal(err)
		}
	}
	if err := again.close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the file is still there: %v", err)
	}

	for _, text := range []string{"", "{}\n", "garbage\n", `{"header":{"version":2}}` + "\n", `{"sent":7}` + "\n"} {
		other := filepath.Join(t.TempDir(), "other")
		if err := os.WriteFile(other, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := openJournal(other); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}

// TestAFullDisk costs what only a file could keep, and nothing that can be sent.
func TestAFullDisk(t *testing.T) {
	j, err := createJournal(filepath.Join(t.TempDir(), "left.jsonl"), header{})
	if err != nil {
		t.Fatal(err)
	}
	add := func(spec string) error {
		_, err := j.append(line{Entry: &entry{Spec: spec, Report: json.RawMessage(`{}`)}})
		return err
	}
	if err := add("a"); err != nil {
		t.Fatal(err)
	}
	whole := j.file
	if j.file, err = os.Open(j.path); err != nil { // it can be read, and not written
		t.Fatal(err)
	}
	if err := whole.Close(); err != nil {
		t.Fatal(err)
	}
	if err := add("b"); err == nil {
		t.Error("nobody is told")
	}
	if err := add("c"); err != nil {
		t.Errorf("told twice: %v", err)
	}
	for n, want := range []string{"a", "b", "c"} {
		if e, err := j.entry(n); err != nil || e.Spec != want {
			t.Errorf("%+v, %v; want %s", e, err, want)
		}
	}
	sent := 1
	if _, err := j.append(line{Sent: &sent}); err != nil {
		t.Error(err)
	}
	if !slices.Equal(j.unsent(), []int{0, 2}) || j.lost() != 1 {
		t.Errorf("unsent %v, of which %d are lost", j.unsent(), j.lost())
	}
	if err := j.close(); err != nil {
		t.Error(err)
	}
	if again, err := openJournal(j.path); err != nil || !slices.Equal(again.unsent(), []int{0}) {
		t.Errorf("the file holds %+v, %v", again, err)
	}
}
