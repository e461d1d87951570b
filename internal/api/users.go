package api

import (
	"runbell/internal/store"
)

// user is a person who may sign in to the dashboard.
type user struct {
	UserID     string     `json:"userId"`
	Email      string     `json:"email"`
	Name       string     `json:"name"`
	Role       store.Role `json:"role"`
	CreatedAt  timestamp  `json:"createdAt"`
	LastSeenAt *timestamp `json:"lastSeenAt" doc:"Accurate to the hour."`
}

var roles = []store.Role{store.Admin, store.Member, store.Viewer}

func showUser(a store.Account) user {
	return user{a.ID, a.Email, a.Name, a.Role, timestamp(a.CreatedAt), known(a.SeenAt)}
}

func (a *api) users(r *request) ([]user, bool, error) {
	var out []user
	err := a.DB.Read(r.Context(), func(tx *store.Tx) error {
		list, err := tx.Accounts(r.Context())
		for _, account := range list {
			out = append(out, showUser(account))
		}
		return err
	})
	return out, false, err
}

type newUser struct {
	Email string     `json:"email"`
	Role  store.Role `json:"role" doc:"The role of a new person. An existing account keeps its role."`
}

type invitedUser struct {
	Email     string     `json:"email"`
	Role      store.Role `json:"role"`
	InviteURL string     `json:"inviteUrl" doc:"The link. It works once, and is shown only in this response."`
	ExpiresAt timestamp  `json:"expiresAt"`
}

func (a *api) inviteUser(r *request, b newUser) (invitedUser, error) {
	i, token, err := a.People.Invite(r.Context(), b.Email, b.Role, "api")
	return invitedUser{i.Email, i.Role, a.PublicURL + "/invite/" + token, timestamp(i.ExpiresAt)}, err
}

type userChange struct {
	Name *string     `json:"name" doc:"1 to 100 characters."`
	Role *store.Role `json:"role"`
}

func (a *api) updateUser(r *request, b userChange) (user, error) {
	account, err := a.People.Update(r.Context(), r.id(), b.Name, b.Role)
	return showUser(account), err
}

func (a *api) deleteUser(r *request) (deleted, error) {
	return deleted{r.id()}, a.People.Remove(r.Context(), r.id())
}
