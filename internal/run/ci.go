package run

import (
	"net/url"
	"path"
	"regexp"
	"strings"
)

// buildParams are the environment variables that name a build, by CI provider,
// as clients spell both: the first list of which every required part is there
// is used.
var buildParams = map[string][][]string{
	"githubActions":  {{"githubRepository", "githubRunId", "githubRunAttempt"}},
	"gitlab":         {{"ciPipelineId"}},
	"circle":         {{"circleWorkflowId"}, {"circleBuildNum"}},
	"jenkins":        {{"jobName", "buildNumber"}, {"buildNumber"}},
	"azure":          {{"buildBuildid"}},
	"awsCodeBuild":   {{"codebuildBuildId"}},
	"bamboo":         {{"bambooBuildKey", "bambooBuildNumber"}, {"bambooBuildNumber"}},
	"bitbucket":      {{"bitbucketRepoSlug", "bitbucketBuildNumber"}},
	"buildkite":      {{"buildkiteBuildId"}},
	"drone":          {{"dronePullRequest", "droneBuildNumber"}, {"droneBuildNumber"}},
	"semaphore":      {{"semaphorePipelineId"}},
	"teamcity":       {{"buildBuildid", "buildBuildnumber"}, {"buildBuildid"}, {"buildBuildnumber"}, {"teamcityProjectName", "teamcityBuildconfName", "buildNumber"}},
	"teamfoundation": {{"buildBuildid", "buildBuildnumber"}, {"buildBuildid"}, {"buildBuildnumber"}},
	"travis":         {{"travisBuildId"}},
	"appveyor":       {{"appveyorBuildNumber"}},
	"codeFresh":      {{"cfBuildId"}},
	"googleCloud":    {{"buildId"}},
	"netlify":        {{"buildId"}},
}

// BuildID derives the ciBuildId of a build from what its CI service says of it.
// It is "" when that does not name a build: then the run is its own, since one
// shared value would merge strangers.
func (c CI) BuildID() string {
	for _, names := range buildParams[c.Provider] {
		parts := make([]string, 0, len(names))
		for _, name := range names {
			if v := c.Params[name]; v != "" {
				parts = append(parts, v)
			}
		}
		if id := strings.Join(parts, "-"); len(parts) == len(names) && ValidName(id) {
			return id
		}
	}
	return ""
}

// What may stand in the address of a build.
var (
	repositoryPath = regexp.MustCompile(`^[A-Za-z0-9._~-]+(/[A-Za-z0-9._~-]+)+$`)
	hostname       = regexp.MustCompile(`^[A-Za-z0-9.-]+(:[0-9]+)?$`)
	digits         = regexp.MustCompile(`^[0-9]+$`)
)

// buildPages are the parameters in which CI services name the page of a build.
var buildPages = []string{"ciJobUrl", "ciPipelineUrl", "circleBuildUrl", "buildUrl", "buildkiteBuildUrl", "bitbucketBuildUrl",
	"droneBuildLink", "travisBuildWebUrl", "travisJobWebUrl", "cfBuildUrl", "bambooResultsUrl", "codebuildBuildUrl"}

// URL is the page of the build at its CI service, "" if it is not known.
func (c CI) URL() string {
	if id, repo := c.Params["githubRunId"], c.Params["githubRepository"]; c.Provider == "githubActions" &&
		digits.MatchString(id) && repositoryPath.MatchString(repo) && path.Clean(repo) == repo && !strings.HasPrefix(repo, "..") {
		return "https://github.com/" + repo + "/actions/runs/" + id
	}
	for _, name := range buildPages {
		u, err := url.Parse(c.Params[name])
		if err != nil || u.Scheme != "https" && u.Scheme != "http" || !hostname.MatchString(u.Host) {
			continue
		}
		u.User, u.RawQuery, u.Fragment = nil, "", "" // where secrets would be
		return u.String()
	}
	return ""
}
