package app

import (
	"context"
	"fmt"
	"io"

	"runbell/internal/client"
)

type userCmd struct {
	remote

	Invite userInviteCmd `cmd:"" help:"Invite a person: print a link to set their password."`
	List   userListCmd   `cmd:"" help:"List the people who may sign in."`
	Update userUpdateCmd `cmd:"" help:"Change the name or the role of a person."`
	Delete userDeleteCmd `cmd:"" help:"Remove a person and end their sessions."`
}

type userInviteCmd struct {
	Email string `arg:"" help:"Email of the person. If they have an account, the link resets the password, and the role stays."`
	Role  string `help:"admin (people, keys, projects and everything else), member (webhooks and runs) or viewer (only view)." enum:"admin,member,viewer" default:"member"`
}

func (userInviteCmd) Help() string {
	return `The link works once, within seven days. Send it to the person yourself: the server sends no email. A new link
replaces an older one for the same person.

To create the first account of a server: 'runbell user invite you@example.com --role admin'.

Examples:

    runbell user invite jane@example.com
    runbell user invite joe@example.com --role viewer`
}

// Run makes the link.
func (c *userInviteCmd) Run(ctx context.Context, s *session) error {
	invited, err := s.Invite(ctx, c.Email, c.Role)
	if err != nil {
		return err
	}
	return show(s, invited, func(w io.Writer, i client.Invitation) error {
		_, err := fmt.Fprintf(w, "%s\n\nOpen it in a browser to set a password. It works once, until %s.\n", i.InviteURL,
			when(i.ExpiresAt))
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
	users, err := s.Users(ctx)
	if err != nil {
		return err
	}
	return show(s, users, func(w io.Writer, list []client.User) error {
		var rows [][]string
		for _, u := range list {
			rows = append(rows, []string{u.UserID, u.Email, u.Name, u.Role, when(u.LastSeenAt)})
		}
		return table(w, "Nobody has an account yet: 'runbell user invite you@example.com --role admin' prints the link for "+
			"the first one.",
			[]string{"ID", "EMAIL", "NAME", "ROLE", "LAST SEEN"}, rows)
	})
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
	if c.Name == nil && c.Role == nil {
		return usagef("there is nothing to change: give --name or --role")
	}
	id, err := s.findUser(ctx, c.Person)
	if err != nil {
		return err
	}
	updated, err := s.UpdateUser(ctx, id, client.UserSettings{Name: c.Name, Role: c.Role})
	if err != nil {
		return err
	}
	return show(s, updated, func(w io.Writer, u client.User) error {
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
	deleted, err := s.DeleteUser(ctx, id)
	if err != nil {
		return err
	}
	return show(s, deleted, func(w io.Writer, _ client.Deleted) error {
		_, err := fmt.Fprintf(w, "Removed %s.\n", c.Person)
		return err
	})
}
