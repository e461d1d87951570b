package ui

import (
	"cmp"
	"net/http"
	"strings"
	"time"

	"runbell/internal/auth"
	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/web"
)

// done are the notices after a form was sent, by the word in the address.
var done = map[string]string{
	"saved":       "Saved.",
	"password":    "Password changed. All other sessions are signed out.",
	"signed-out":  "All other sessions are signed out.",
	"removed":     "Removed.",
	"revoked":     "Key revoked. Requests using it are now rejected.",
	"uninvited":   "Invitation revoked.",
	"deleted":     "Project deleted.",
	"rundeleted":  "Run deleted.",
	"enabled":     "Webhook enabled.",
	"disabled":    "Webhook disabled. Pending deliveries are held.",
	"retried":     "Queued for redelivery.",
	"hookdeleted": "Webhook deleted.",
}

// accountPage is about the reader.
type accountPage struct {
	layout
	Name     string
	Email    string
	Role     string
	Sessions int
	Done     string
	Error    string
}

func (u *ui) account(r *request) error { return u.showAccount(r, "") }

// showAccount shows the page; with an error if a form on it was wrong.
func (u *ui) showAccount(r *request, problem string) error {
	p := accountPage{layout: u.layout(r, "Your account", toneIdle), Name: r.who.Name, Email: r.who.Email,
		Role: string(r.who.Role), Done: done[r.query("done")], Error: problem}
	p.Section = "account"
	err := u.db.Read(r.Context(), func(tx *store.Tx) (err error) {
		p.Sessions, err = tx.CountSessions(r.Context(), r.who.ID)
		return err
	})
	if err != nil {
		return err
	}
	body, err := u.views.account.render(p)
	status := http.StatusOK
	if problem != "" {
		status = http.StatusBadRequest
	}
	return r.showOnce(status, body, err)
}

// message is the text of an error that people may read in a form; false if it has none.
func message(err error) (string, bool) {
	switch run.KindOf(err) {
	case run.Invalid, run.Conflict, run.Refused, run.TooMany:
		return web.ProblemOf(err).Message, true
	default:
		return "", false
	}
}

// accountForm shows the error of a form of the account page, or that it succeeded.
func (u *ui) accountForm(r *request, err error, word string) error {
	if text, is := message(err); is {
		return u.showAccount(r, text)
	}
	if err != nil {
		return err
	}
	return r.to(u.base + "/account?done=" + word)
}

func (u *ui) rename(r *request) error {
	name := r.PostFormValue("name")
	_, err := u.people.Update(r.Context(), r.who.ID, &name, nil)
	return u.accountForm(r, err, "saved")
}

func (u *ui) changePassword(r *request) error {
	err := u.people.ChangePassword(r.Context(), r.who, r.PostFormValue("old"), r.PostFormValue("password"), u.token(r))
	return u.accountForm(r, err, "password")
}

func (u *ui) signOutOthers(r *request) error {
	return u.accountForm(r, u.people.SignOutOthers(r.Context(), r.who.ID, u.token(r)), "signed-out")
}

// peoplePage lists who may sign in.
type peoplePage struct {
	layout
	People   []personView
	Invited  []invitationView
	Roles    []choice
	Link     string // of an invitation that was just made; shown once
	LinkFor  string
	LinkEnds time.Time
	Email    string // what was typed, when it was wrong
	Done     string
	Error    string
}

type personView struct {
	ID, Name, Email string
	Roles           []choice
	Seen, Since     time.Time
	You             bool
}

type invitationView struct {
	ID, Email, Role, By string
	Ends                time.Time
}

// choice is an option of a list.
type choice struct {
	Value, Text string
	Chosen      bool
}

func roleChoices(chosen store.Role) []choice {
	list := []choice{
		{Value: string(store.Admin), Text: "Admin"},
		{Value: string(store.Member), Text: "Member"},
		{Value: string(store.Viewer), Text: "Viewer"},
	}
	for n := range list {
		list[n].Chosen = list[n].Value == string(chosen)
	}
	return list
}

func (u *ui) peoplePage(r *request) error {
	return u.showPeople(r, peoplePage{Done: done[r.query("done")]})
}

func (u *ui) showPeople(r *request, p peoplePage) error {
	p.layout = u.layout(r, "People", toneIdle)
	p.Section = "people"
	p.Roles = roleChoices(store.Member)
	err := u.db.Read(r.Context(), func(tx *store.Tx) error {
		accounts, err := tx.Accounts(r.Context())
		if err != nil {
			return err
		}
		for _, a := range accounts {
			p.People = append(p.People, personView{ID: a.ID, Name: a.Name, Email: a.Email, Roles: roleChoices(a.Role),
				Seen: a.SeenAt, Since: a.CreatedAt, You: a.ID == r.who.ID})
		}
		invitations, err := tx.Invitations(r.Context())
		for _, i := range invitations {
			p.Invited = append(p.Invited,
				invitationView{ID: i.ID, Email: i.Email, Role: string(i.Role), By: i.CreatedBy, Ends: i.ExpiresAt})
		}
		return err
	})
	if err != nil {
		return err
	}
	body, err := u.views.people.render(p)
	status := http.StatusOK
	if p.Error != "" {
		status = http.StatusBadRequest
	}
	return r.showOnce(status, body, err)
}

// peopleForm shows the error of a form of the people page, or that it succeeded.
func (u *ui) peopleForm(r *request, err error, word string) error {
	if text, is := message(err); is {
		return u.showPeople(r, peoplePage{Error: text, Email: r.PostFormValue("email")})
	}
	if err != nil {
		return err
	}
	return r.to(u.base + "/people?done=" + word)
}

func (u *ui) invite(r *request) error {
	i, token, err := u.people.Invite(r.Context(), r.PostFormValue("email"), store.Role(r.PostFormValue("role")),
		r.who.Name)
	if err != nil {
		return u.peopleForm(r, err, "")
	}
	return u.showPeople(r, peoplePage{Link: u.public + "/invite/" + token, LinkFor: i.Email, LinkEnds: i.ExpiresAt})
}

func (u *ui) uninvite(r *request) error {
	err := u.db.Write(r.Context(), func(tx *store.Tx) error {
		return tx.DeleteInvitation(r.Context(),
			r.PostFormValue("id"))
	})
	return u.peopleForm(r, err, "uninvited")
}

func (u *ui) setRole(r *request) error {
	role := store.Role(r.PostFormValue("role"))
	_, err := u.people.Update(r.Context(), r.PostFormValue("id"), nil, &role)
	return u.peopleForm(r, err, "saved")
}

func (u *ui) removePerson(r *request) error {
	return u.peopleForm(r, u.people.Remove(r.Context(), r.PostFormValue("id")), "removed")
}

// keysPage lists the API keys.
type keysPage struct {
	layout
	Keys      []keyView
	RevokeURL string
	Projects  []string // ids, those with the newest runs, to choose from
	New       string   // the key that was just made; shown once
	Label     string   // of the key that was just made, or of the form with the error
	Write     bool
	ProjectID string
	Done      string
	Error     string
}

// keyView is a key without the key.
type keyView struct {
	ID, Label, Hint, Access string
	ProjectID, ProjectURL   string // of an API key that is limited to a project
	Created, Used           time.Time
}

// maxKeyProjects is how many projects the form of a key suggests.
const maxKeyProjects = 200

func (u *ui) apiKeys(r *request) error { return u.showKeys(r, keysPage{Done: done[r.query("done")]}) }

func (u *ui) showKeys(r *request, p keysPage) error {
	p.layout = u.layout(r, "API keys", toneIdle)
	p.Section = "keys"
	p.RevokeURL = u.base + "/keys/revoke"
	err := u.db.Read(r.Context(), func(tx *store.Tx) error {
		list, err := tx.APIKeys(r.Context())
		for _, k := range list {
			v := keyView{ID: k.ID, Label: k.Label, Hint: k.Hint, Access: "read-only", Created: k.CreatedAt, Used: k.UsedAt}
			if k.Write {
				v.Access = "read-write"
			}
			if k.ProjectID != "" {
				v.ProjectID, v.ProjectURL = k.ProjectID, u.projectURL(k.ProjectID, "")
			}
			p.Keys = append(p.Keys, v)
		}
		if err != nil {
			return err
		}
		active, err := tx.ProjectsByActivity(r.Context(), "")
		for _, a := range active[:min(len(active), maxKeyProjects)] {
			p.Projects = append(p.Projects, a.ID)
		}
		return err
	})
	if err != nil {
		return err
	}
	body, err := u.views.keys.render(p)
	status := http.StatusOK
	if p.Error != "" {
		status = http.StatusBadRequest
	}
	return r.showOnce(status, body, err)
}

func (u *ui) createAPIKey(r *request) error {
	p := keysPage{Label: r.PostFormValue("label"), Write: r.PostFormValue("access") == "write",
		ProjectID: strings.TrimSpace(r.PostFormValue("project"))}
	access := auth.Read
	if p.Write {
		access = auth.Write
	}
	var err error
	_, p.New, err = u.keys.CreateAPIKey(r.Context(), p.Label, access, p.ProjectID)
	if text, is := message(err); is || run.KindOf(err) == run.NotFound {
		p.New, p.Error = "", cmp.Or(text, web.ProblemOf(err).Message)
		return u.showKeys(r, p)
	}
	if err != nil {
		return err
	}
	return u.showKeys(r, p)
}

func (u *ui) revokeAPIKey(r *request) error {
	err := u.keys.RevokeAPIKey(r.Context(), r.PostFormValue("id"))
	if err != nil {
		return err
	}
	return r.to(u.base + "/keys?done=revoked")
}
