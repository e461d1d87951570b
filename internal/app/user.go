package app

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

type userCmd struct {
	remote

	Invite userInviteCmd `cmd:"" help:"Make the link with which a person sets a password."`
	List   userListCmd   `cmd:"" help:"List the people who may sign in."`
	Update userUpdateCmd `cmd:"" help:"Change the name or the role of a person."`
	Delete userDeleteCmd `cmd:"" help:"Remove a person, who is signed out at once."`
}

// user is what the commands print of a person of the API.
type user struct {
	UserID     string     `json:"userId"`
	Email      string     `json:"email"`
	Name       string     `json:"name"`
	Role       string     `json:"role"`
	CreatedAt  *time.Time `json:"createdAt"`
	LastSeenAt *time.Time `json:"lastSeenAt"`
}

type userInviteCmd struct {
	Email string `arg:"" help:"Whom to invite; somebody who has an account gets a new password and keeps the role."`
	Role  string `help:"admin (people, keys, projects and everything else), member (everything else) or viewer (looks)." enum:"admin,member,viewer" default:"member"`
}

func (userInviteCmd) Help() string {
	return `The link works once, for seven days. Send it to the person yourself: the server sends no mail.

Examples:

    runbell user invite jane@example.com
    runbell user invite joe@example.com --role viewer`
}

// Run makes the link.
func (c *userInviteCmd) Run(ctx context.Context, s *session) error {
	a, err := s.do(ctx, http.MethodPost, "/users", nil, map[string]any{"email": c.Email, "role": c.Role})
	if err != nil {
		return err
	}
	return s.show(a.Data, func(w io.Writer) error {
		var invited struct {
			InviteURL string     `json:"inviteUrl"`
			ExpiresAt *time.Time `json:"expiresAt"`
		}
		if err := a.into(&invited); err != nil {
			return err
		}
		_, err := fmt.Fprintf(w, "%s\n\nIt works once, until %s, and is not shown again.\n", invited.InviteURL, when(invited.ExpiresAt))
		return err
	})
}

type userListCmd struct{}

func (userListCmd) Help() string {
	return `Examples:

    runbell user list`
}

// Run lists people.
func (userListCmd) Run(ctx context.Context, s *session) error {
	a, err := s.do(ctx, http.MethodGet, "/users", nil, nil)
	if err != nil {
		return err
	}
	return s.show(a.Data, func(w io.Writer) error {
		var list []user
		if err := a.into(&list); err != nil {
			return err
		}
		var rows [][]string
		for _, u := range list {
			rows = append(rows, []string{u.UserID, u.Email, u.Name, u.Role, when(u.LastSeenAt)})
		}
		return table(w, "Nobody yet: the server's log has the link for the first one.", []string{"ID", "EMAIL", "NAME", "ROLE", "LAST SEEN"}, rows)
	})
}

// find is the id of a person by id or email.
func (s *session) findUser(ctx context.Context, person string) (string, error) {
	if !strings.Contains(person, "@") {
		return person, nil
	}
	a, err := s.do(ctx, http.MethodGet, "/users", nil, nil)
	if err != nil {
		return "", err
	}
	var list []user
	if err := a.into(&list); err != nil {
		return "", err
	}
	for _, u := range list {
		if strings.EqualFold(u.Email, person) {
			return u.UserID, nil
		}
	}
	return "", fmt.Errorf("there is no person with the email %q", person)
}

type userUpdateCmd struct {
	Person string  `arg:"" help:"Email or id."`
	Name   *string `help:"The person's name." placeholder:"NAME"`
	Role   *string `help:"admin, member or viewer." enum:"admin,member,viewer" placeholder:"ROLE"`
}

func (userUpdateCmd) Help() string {
	return `Examples:

    runbell user update jane@example.com --role admin`
}

// Run changes what was given.
func (c *userUpdateCmd) Run(ctx context.Context, s *session) error {
	body := map[string]any{}
	if c.Name != nil {
		body["name"] = *c.Name
	}
	if c.Role != nil {
		body["role"] = *c.Role
	}
	if len(body) == 0 {
		return usagef("there is nothing to change: give --name or --role")
	}
	id, err := s.findUser(ctx, c.Person)
	if err != nil {
		return err
	}
	a, err := s.do(ctx, http.MethodPut, "/users/"+url.PathEscape(id), nil, body)
	if err != nil {
		return err
	}
	return s.show(a.Data, func(w io.Writer) error {
		var u user
		if err := a.into(&u); err != nil {
			return err
		}
		return fields(w, "Id", u.UserID, "Email", u.Email, "Name", u.Name, "Role", u.Role)
	})
}

type userDeleteCmd struct {
	Person string `arg:"" help:"Email or id."`
}

func (userDeleteCmd) Help() string {
	return `Examples:

    runbell user delete jane@example.com`
}

// Run removes a person.
func (c *userDeleteCmd) Run(ctx context.Context, s *session) error {
	id, err := s.findUser(ctx, c.Person)
	if err != nil {
		return err
	}
	a, err := s.do(ctx, http.MethodDelete, "/users/"+url.PathEscape(id), nil, nil)
	if err != nil {
		return err
	}
	return s.show(a.Data, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "Removed %s.\n", c.Person)
		return err
	})
}
