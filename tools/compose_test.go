// Package tools is a module of its own, so that what the tools need stays out of
// the product's go.mod. Its tests are those that need a library for that reason.
package tools

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
)

// TestMain runs the tests at the top of the repository.
func TestMain(m *testing.M) {
	if err := os.Chdir(".."); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	m.Run()
}

// compose loads the compose file as 'docker compose config' does: against the
// schema, with the variables filled in.
func compose(t *testing.T, env ...string) (*types.Project, error) {
	t.Helper()
	o, err := cli.NewProjectOptions([]string{"deploy/compose.yaml"}, cli.WithEnv(env))
	if err != nil {
		t.Fatal(err)
	}
	return o.LoadProject(t.Context())
}

// TestCompose holds the compose file to the schema and to the program, and the
// Dockerfile to what the compose file needs.
func TestCompose(t *testing.T) {
	env := []string{"RUNBELL_SECRET_KEY=key", "RUNBELL_API_KEY=api", "POSTGRES_PASSWORD=pass"}
	p, err := compose(t, env...)
	if err != nil {
		t.Fatal(err)
	}
	for i, missing := range env {
		name, _, _ := strings.Cut(missing, "=")
		if _, err := compose(t, append(env[:i:i], env[i+1:]...)...); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("without %s the error is %v", name, err)
		}
	}

	node := p.Services["runbell"]
	documented, err := os.ReadFile("docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	for name := range node.Environment {
		if !strings.Contains(string(documented), "`"+name+"`") {
			t.Errorf("compose.yaml sets %s, which docs/configuration.md does not know", name)
		}
	}
	db := p.Services["db"].Environment
	want := "postgres://" + *db["POSTGRES_USER"] + ":" + *db["POSTGRES_PASSWORD"] + "@db:5432/" + *db["POSTGRES_DB"] + "?sslmode=disable"
	if got := *node.Environment["RUNBELL_DATABASE_URL"]; got != want {
		t.Errorf("the nodes use the database %s, the database is %s", got, want)
	}
	if n := *node.Deploy.Replicas; n != 2 || !strings.Contains(p.Configs["balancer"].Content, "server-template node 2 runbell:8484") {
		t.Errorf("the balancer does not know %d nodes", n)
	}
	if grace := node.StopGracePeriod; grace == nil || time.Duration(*grace) <= 30*time.Second {
		t.Error("a node that stops may take 30 seconds")
	}

	file, err := os.ReadFile(node.Build.Context + "/Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	stages := strings.Split("\n"+string(file), "\nFROM ")
	last := stages[len(stages)-1]
	if len(stages) < 3 || !regexp.MustCompile(`(?m)^USER [1-9]`).MatchString(last) || !strings.Contains(last, "RUNBELL_ADDR=:8484") {
		t.Errorf("the image must be built in stages, run as nobody in particular, and listen on the port of compose.yaml:\n%s", last)
	}
	ignored, err := os.ReadFile(".dockerignore")
	if err != nil {
		t.Fatal(err)
	}
	for _, copied := range regexp.MustCompile(`(?m)^COPY ([^-].*) \S+$`).FindAllStringSubmatch(string(file), -1) {
		for source := range strings.FieldsSeq(copied[1]) {
			if _, err := os.Stat(source); err != nil || !strings.Contains(string(ignored), "\n!"+source+"\n") {
				t.Errorf("the Dockerfile copies %s, which is not there or is ignored (%v)", source, err)
			}
		}
	}
	module, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	version := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(string(module))[1]
	if !strings.Contains(string(file), "FROM golang:"+version+" ") {
		t.Errorf("the Dockerfile does not build with Go %s", version)
	}
}
