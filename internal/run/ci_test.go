package run_test

import (
	"testing"

	"runbell/internal/run"
)

func TestCILinks(t *testing.T) {
	for _, c := range []struct {
		ci   run.CI
		want string
	}{
		{run.CI{}, ""},
		{run.CI{Provider: "githubActions", Params: map[string]string{"githubRepository": "acme/shop", "githubRunId": "4242"}}, "https://github.com/acme/shop/actions/runs/4242"},
		{run.CI{Provider: "githubActions", Params: map[string]string{"githubRepository": "../../x", "githubRunId": "4242"}}, ""},
		{run.CI{Provider: "githubActions", Params: map[string]string{"githubRepository": "acme/shop", "githubRunId": "4242/x"}}, ""},
		{run.CI{Provider: "gitlab", Params: map[string]string{"ciJobUrl": "https://u:s3cr3t@gitlab.example.test/acme/shop/-/jobs/7?private_token=s3cr3t"}}, "https://gitlab.example.test/acme/shop/-/jobs/7"},
		{run.CI{Provider: "jenkins", Params: map[string]string{"buildUrl": "javascript:alert(1)"}}, ""},
		{run.CI{Provider: "jenkins", Params: map[string]string{"buildUrl": "http://jenkins:8080/job/shop/7/"}}, "http://jenkins:8080/job/shop/7/"},
	} {
		if got := c.ci.URL(); got != c.want {
			t.Errorf("%+v: %q, want %q", c.ci, got, c.want)
		}
	}
}
