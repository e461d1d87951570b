package auth_test

import (
	"fmt"
	"strings"
	"testing"

	"runbell/internal/auth"
	"runbell/internal/store"
)

// The table is written out here once more, for people to read and to compare.
func TestRights(t *testing.T) {
	const want = `
                 nobody viewer member admin  read write
                 yes    yes    yes    yes    yes  yes
look             -      yes    yes    yes    yes  yes
own account      -      yes    yes    yes    -    -
manage runs      -      -      yes    yes    -    yes
manage webhooks  -      -      yes    yes    -    yes
manage projects  -      -      -      yes    -    yes
manage server    -      -      -      yes    -    yes
something else   -      -      -      -      -    -
`
	word := map[bool]string{true: "yes", false: "-"}
	var b strings.Builder
	b.WriteString("\n                 nobody viewer member admin  read write\n")
	for _, right := range []auth.Right{auth.Anyone, auth.Look, auth.OwnAccount, auth.ManageRuns, auth.ManageWebhooks, auth.ManageProjects, auth.ManageServer, "something else"} {
		fmt.Fprintf(&b, "%-16s ", right)
		for _, role := range []store.Role{"", store.Viewer, store.Member, store.Admin} {
			fmt.Fprintf(&b, "%-6s ", word[auth.RoleMay(role, right)])
		}
		fmt.Fprintf(&b, "%-4s %s\n", word[auth.Read.May(right)], word[auth.Write.May(right)])
	}
	if b.String() != want {
		t.Errorf("the rights are%s\nwant%s", b.String(), want)
	}
	if got := fmt.Sprint(auth.RolesWith(auth.ManageRuns), auth.RolesWith(auth.ManageServer)); got != "[member admin] [admin]" {
		t.Errorf("the roles with two of the rights are %s", got)
	}
}
