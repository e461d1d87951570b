package ui

import "runbell/internal/run"

// providers are the names of CI services whose identifiers do not show them.
var providers = map[string]string{
	"githubActions":  "GitHub Actions",
	"gitlab":         "GitLab CI",
	"circle":         "CircleCI",
	"jenkins":        "Jenkins",
	"azure":          "Azure Pipelines",
	"awsCodeBuild":   "AWS CodeBuild",
	"bamboo":         "Bamboo",
	"bitbucket":      "Bitbucket Pipelines",
	"buildkite":      "Buildkite",
	"drone":          "Drone",
	"semaphore":      "Semaphore",
	"teamcity":       "TeamCity",
	"teamfoundation": "Team Foundation",
	"travis":         "Travis CI",
	"appveyor":       "AppVeyor",
	"codeFresh":      "Codefresh",
	"googleCloud":    "Google Cloud Build",
	"netlify":        "Netlify",
}

// frameworkName is the usual name of a test framework.
func frameworkName(name string) string {
	if name == "cypress" {
		return "Cypress"
	}
	return name
}

func providerName(provider string) string {
	if name, ok := providers[provider]; ok {
		return name
	}
	return run.Clip(provider, 80)
}
