package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"runbell/internal/client"
)

// TestListen has 'runbell listen' receive the webhooks of a run: the first is
// refused to see it come again, each is verified.
func TestListen(t *testing.T) {
	t.Parallel()
	s := newServer(t, "RUNBELL_WEBHOOK_RETRIES=100ms,100ms,1s,1s,1s,1s")
	key := s.project("shop", nil)
	addr := freeAddr(t)
	_, secret := s.webhook("shop", client.WebhookSettings{URL: new("http://" + addr + "/hook")})

	var out, messages transcript
	listen := exec.Command(binary, "listen", "--addr", addr, "--secret", secret, "--fail", "1", "--json")
	listen.Env = []string{"HOME=" + t.TempDir()}
	listen.Stdout, listen.Stderr = &out, &messages
	listen.SysProcAttr = dieWithTest()
	if err := listen.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- listen.Wait() }()
	t.Cleanup(func() {
		_ = listen.Process.Kill()
		if t.Failed() {
			t.Logf("runbell listen:\n%s%s", out.String(), messages.String())
		}
	})
	eventually(t, 10*time.Second, "it listens", func() bool { return strings.Contains(messages.String(), "Waiting for webhooks at http://"+addr) })

	p := newPlayer(t, key, s)
	p.play("build-1")
	eventually(t, 20*time.Second, "three requests are printed", func() bool { return strings.Count(out.String(), "\n") >= 3 })
	if err := listen.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("it ended with %v", err)
	}

	var got []string
	ids := map[string]bool{}
	dec := json.NewDecoder(strings.NewReader(out.String()))
	for dec.More() {
		var line struct {
			WebhookID, Signature string
			Attempt, Answered    int
			Body                 struct{ Event string }
		}
		if err := dec.Decode(&line); err != nil {
			t.Fatal(err)
		}
		ids[line.WebhookID] = true
		got = append(got, fmt.Sprintln(line.Body.Event, "attempt", line.Attempt, "signature", line.Signature, "answered", line.Answered))
	}
	// The end waits until the start has arrived.
	want := []string{
		fmt.Sprintln("RUN_START attempt 1 signature ok answered", http.StatusInternalServerError),
		fmt.Sprintln("RUN_START attempt 2 signature ok answered", http.StatusNoContent),
		fmt.Sprintln("RUN_FINISH attempt 1 signature ok answered", http.StatusNoContent),
	}
	if strings.Join(got, "") != strings.Join(want, "") || len(ids) != 2 {
		t.Errorf("%d different webhooks:\n%swant 2:\n%s", len(ids), strings.Join(got, ""), strings.Join(want, ""))
	}
}
