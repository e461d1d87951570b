package run

import "strings"

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
