package run

import (
	"crypto/sha256"
	"encoding/hex"
	"net/url"
	"path"
	"regexp"
	"strings"
)

// BuildParams are the parameters that name a build, by CI provider, as reporters
// spell the environment variables. Of the lists of a provider the first counts
// of which every parameter is there. Together they name one build in the world,
// or at least one of the repositories that share a project: a number that each
// job counts for itself stands beside what names the job. The table is in
// docs/recording.md, too.
var BuildParams = map[string][][]string{
	"githubActions": {{"githubRepository", "githubRunId", "githubRunAttempt"}},
	"gitlab":        {{"ciPipelineId"}},
	"circle":        {{"circleWorkflowId"}, {"circleBuildUrl"}},
	"jenkins":       {{"buildUrl"}, {"jobName", "buildNumber"}},
	"azure":         {{"buildBuildid"}},
	"awsCodeBuild":  {{"codebuildBuildId"}},
	"bamboo":        {{"bambooBuildKey", "bambooBuildNumber"}, {"bambooBuildResultsUrl"}},
	"bitbucket": {{"bitbucketRepoOwner", "bitbucketRepoSlug", "bitbucketBuildNumber"},
		{"bitbucketRepoSlug", "bitbucketBuildNumber"}},
	"buildkite": {{"buildkiteBuildId"}},
	"drone":     {{"droneBuildLink"}},
	"semaphore": {{"semaphorePipelineId"}, {"semaphoreWorkflowId"}},
	"teamcity": {{"buildBuildid", "buildBuildnumber"}, {"buildBuildid"}, {"buildUrl"},
		{"teamcityProjectName", "teamcityBuildconfName", "buildNumber"}},
	"teamfoundation": {{"buildBuildid", "buildBuildnumber"}, {"buildBuildid"}},
	"travis":         {{"travisBuildId"}},
	"appveyor":       {{"appveyorAccountName", "appveyorProjectSlug", "appveyorBuildNumber"}},
	"codeFresh":      {{"cfBuildId"}},
	"googleCloud":    {{"buildId"}},
	"netlify":        {{"buildId"}},
}

// JobNumbers are parameters that count the builds of one job. Many jobs share
// such a number, so it names a build only together with the commit.
var JobNumbers = map[string][]string{
	"jenkins":  {"buildNumber"},
	"circle":   {"circleBuildNum"},
	"bamboo":   {"bambooBuildNumber"},
	"drone":    {"dronePullRequest", "droneBuildNumber"},
	"teamcity": {"buildNumber"},
	"appveyor": {"appveyorBuildNumber"},
}

// BuildID derives the ciBuildId of a build from what its CI service says, and
// from the commit where that does not name one build. It is "" when both do not:
// then the run is its own, since one shared value would merge strangers.
func (c CI) BuildID(commit Commit) string {
	for _, names := range BuildParams[c.Provider] {
		if parts := c.values(names); len(parts) == len(names) {
			return buildName(parts...)
		}
	}
	number := c.values(JobNumbers[c.Provider])
	if len(number) == 0 || commit.SHA == "" {
		return ""
	}
	return buildName(append(number, commit.Identity())...)
}

// values are the parameters that are there.
func (c CI) values(names []string) []string {
	var out []string
	for _, name := range names {
		if v := c.Params[name]; v != "" {
			out = append(out, v)
		}
	}
	return out
}

// buildName joins what names a build. A URL loses its scheme. What is too long or
// no name becomes a hash.
func buildName(parts ...string) string {
	for i, part := range parts {
		if u, err := url.Parse(part); err == nil && u.Host != "" {
			parts[i] = strings.TrimSuffix(u.Host+u.EscapedPath(), "/")
		}
	}
	id := strings.Join(parts, "-")
	if !ValidName(id) {
		return ShortHash(id)
	}
	return id
}

// ShortHash is a hash of s with 16 hexadecimal digits, for texts that are too long
// for a name.
func ShortHash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:8])
}

var digits = regexp.MustCompile(`^[0-9]+$`)

// buildPages are the parameters in which CI services name the page of a build.
var buildPages = []string{"ciJobUrl", "ciPipelineUrl", "circleBuildUrl", "buildUrl", "buildkiteBuildUrl",
	"bitbucketBuildUrl", "droneBuildLink", "travisBuildWebUrl", "travisJobWebUrl", "cfBuildUrl", "bambooResultsUrl",
	"codebuildBuildUrl"}

// URL is the page of the build at its CI service, "" if it is not known.
func (c CI) URL() string {
	if id, repo := c.Params["githubRunId"], c.Params["githubRepository"]; c.Provider == "githubActions" &&
		digits.MatchString(id) && repositoryPath.MatchString(repo) && path.Clean(repo) == repo &&
		!strings.HasPrefix(repo, "..") {
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
