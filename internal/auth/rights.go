package auth

import (
	"slices"

	"runbell/internal/store"
)

// Right is something that a person or a program may be allowed to do.
type Right string

// The rights. What needs one is said in the tables of routes of the REST API and
// of the dashboard.
const (
	// Anyone needs no right. Either there is nothing to protect, or the request
	// carries a credential of its own, or the handler decides, as for the pages of a
	// run whose project opens them.
	Anyone Right = ""
	// Look is to see projects, runs, webhooks, their deliveries, and who has access:
	// everything but secrets and what could hold them.
	Look Right = "look"
	// OwnAccount is to see and change one's own account.
	OwnAccount Right = "own account"
	// ManageRuns is to cancel, pin and unpin runs.
	ManageRuns Right = "manage runs"
	// ManageWebhooks is to create, change, test, replay and delete webhooks. It
	// shows URLs, values of headers, secrets, and what receivers answered.
	ManageWebhooks Right = "manage webhooks"
	// ManageProjects is to create, change and delete projects and their record keys, and
	// to delete runs.
	ManageProjects Right = "manage projects"
	// ManageServer is to manage people and API keys, and to look at the deliveries of
	// all projects at once.
	ManageServer Right = "manage server"
)

// RoleMay says what each role of the dashboard may do.
func RoleMay(role store.Role, right Right) bool {
	switch right {
	case Anyone:
		return true
	case Look, OwnAccount:
		return role == store.Viewer || role == store.Member || role == store.Admin
	case ManageRuns, ManageWebhooks:
		return role == store.Member || role == store.Admin
	case ManageProjects, ManageServer:
		return role == store.Admin
	}
	return false
}

// May says what an API key may do. A program has no account.
func (a Access) May(right Right) bool {
	switch right {
	case Anyone, Look:
		return true
	case ManageRuns, ManageWebhooks, ManageProjects, ManageServer:
		return a == Write
	case OwnAccount:
	}
	return false
}

// RolesWith lists the roles that have a right, the one that may do least first.
func RolesWith(right Right) []store.Role {
	return slices.DeleteFunc([]store.Role{store.Viewer, store.Member, store.Admin},
		func(r store.Role) bool { return !RoleMay(r, right) })
}
