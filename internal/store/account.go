package store

import (
	"context"
	"errors"
	"time"

	"runbell/internal/database"
	"runbell/internal/run"
)

// Role is what a person may do.
type Role string

// The roles, from most to least.
const (
	Admin  Role = "admin"  // people, keys, projects, and everything else
	Member Role = "member" // everything but people, keys and projects
	Viewer Role = "viewer" // only views
)

// Account is a person who may sign in.
type Account struct {
	ID       string
	Email    string // in lower case
	Name     string
	Role     Role
	Password string // argon2id, in the usual form; "" if the person has none
	// SeenAt is when the person last used a session, to the hour; zero if never.
	SeenAt    time.Time
	CreatedAt time.Time
}

const accountColumns = `id, email, name, role, password, created_at, seen_at`

func scanAccount(r database.Row) (Account, error) {
	var a Account
	var created int64
	var seen database.NullInt64
	err := r.Scan(&a.ID, &a.Email, &a.Name, &a.Role, &a.Password, &created, &seen)
	a.CreatedAt, a.SeenAt = timeOf(created), timeOrZero(seen)
	return a, err
}

// InsertAccount stores a new account. It reports false if the email is taken.
func (tx *Tx) InsertAccount(ctx context.Context, a Account) (bool, error) {
	n, err := tx.Exec(ctx, `INSERT INTO account (id, email, name, role, password, created_at)
		VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (email) DO NOTHING`, a.ID, a.Email, a.Name, string(a.Role), a.Password,
		micros(a.CreatedAt))
	return n == 1, err
}

// UpdateAccount stores name, role and password of an account that exists.
func (tx *Tx) UpdateAccount(ctx context.Context, a Account) error {
	_, err := tx.Exec(ctx, `UPDATE account SET name = $2, role = $3, password = $4 WHERE id = $1`, a.ID, a.Name,
		string(a.Role), a.Password)
	return err
}

// Account finds a person.
func (tx *Tx) Account(ctx context.Context, id string) (Account, error) {
	return one(tx.QueryRow(ctx, `SELECT `+accountColumns+` FROM account WHERE id = $1`, id), scanAccount,
		run.Missing("person", id))
}

// AccountByEmail finds a person by the email, which is in lower case.
func (tx *Tx) AccountByEmail(ctx context.Context, email string) (Account, error) {
	return one(tx.QueryRow(ctx, `SELECT `+accountColumns+` FROM account WHERE email = $1`, email), scanAccount,
		run.Missing("person", email))
}

// Accounts lists everybody, oldest first.
func (tx *Tx) Accounts(ctx context.Context) ([]Account, error) {
	rows, err := tx.Query(ctx, `SELECT `+accountColumns+` FROM account ORDER BY created_at, id`)
	return database.All(rows, err, scanAccount)
}

// LockAccounts lists everybody and blocks changes of all accounts until the
// transaction ends: the rule that there is always an admin concerns them all.
func (tx *Tx) LockAccounts(ctx context.Context) ([]Account, error) {
	rows, err := tx.Query(ctx, `SELECT `+accountColumns+` FROM account ORDER BY created_at, id`+tx.ForUpdate())
	return database.All(rows, err, scanAccount)
}

// AnyAccount says whether anybody can sign in.
func (tx *Tx) AnyAccount(ctx context.Context) (bool, error) {
	var n int
	err := tx.QueryRow(ctx, `SELECT COUNT(*) FROM (SELECT 1 FROM account LIMIT 1) AS a`).Scan(&n)
	return n > 0, err
}

// DeleteAccount removes a person and signs them out everywhere.
func (tx *Tx) DeleteAccount(ctx context.Context, id string) error {
	if err := tx.EndSessions(ctx, id, ""); err != nil {
		return err
	}
	return tx.deleteOne(ctx, `DELETE FROM account WHERE id = $1`, "person", id)
}

// Session is a browser in which somebody has signed in. Its token is not
// stored.
type Session struct {
	Hash      string // hex SHA-256 of the token
	AccountID string
	CreatedAt time.Time
	SeenAt    time.Time
}

// InsertSession stores a new session.
func (tx *Tx) InsertSession(ctx context.Context, s Session) error {
	_, err := tx.Exec(ctx, `INSERT INTO session (hash, account_id, created_at, seen_at) VALUES ($1, $2, $3, $4)`,
		s.Hash, s.AccountID, micros(s.CreatedAt), micros(s.SeenAt))
	return err
}

// Session finds a session with the person it belongs to.
func (tx *Tx) Session(ctx context.Context, hash string) (Session, Account, error) {
	var s Session
	var created, seen int64
	err := tx.QueryRow(ctx, `SELECT hash, account_id, created_at, seen_at FROM session WHERE hash = $1`, hash).
		Scan(&s.Hash, &s.AccountID, &created, &seen)
	if errors.Is(err, database.ErrNoRows) {
		return s, Account{}, run.Errorf(run.NotFound, "There is no such session.")
	}
	if err != nil {
		return s, Account{}, err
	}
	s.CreatedAt, s.SeenAt = timeOf(created), timeOf(seen)
	a, err := tx.Account(ctx, s.AccountID)
	return s, a, err
}

// SeeSession notes that a session was used.
func (tx *Tx) SeeSession(ctx context.Context, s Session) error {
	if _, err := tx.Exec(ctx, `UPDATE session SET seen_at = $2 WHERE hash = $1`, s.Hash, micros(tx.Now)); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, `UPDATE account SET seen_at = $2 WHERE id = $1`, s.AccountID, micros(tx.Now))
	return err
}

// EndSession removes one session, if it is there.
func (tx *Tx) EndSession(ctx context.Context, hash string) error {
	_, err := tx.Exec(ctx, `DELETE FROM session WHERE hash = $1`, hash)
	return err
}

// EndSessions removes the sessions of a person, except the one with the hash
// except.
func (tx *Tx) EndSessions(ctx context.Context, accountID, except string) error {
	_, err := tx.Exec(ctx, `DELETE FROM session WHERE account_id = $1 AND hash <> $2`, accountID, except)
	return err
}

// CountSessions counts the browsers in which a person is signed in.
func (tx *Tx) CountSessions(ctx context.Context, accountID string) (int, error) {
	var n int
	err := tx.QueryRow(ctx, `SELECT COUNT(*) FROM session WHERE account_id = $1`, accountID).Scan(&n)
	return n, err
}

// Invitation is a link with which one person may set a password, once. The
// token in the link is not stored.
type Invitation struct {
	ID        string
	Hash      string // hex SHA-256 of the token
	Email     string // "" in the setup link, which makes the first account
	Role      Role
	CreatedBy string // the name of the person or program that invites
	CreatedAt time.Time
	ExpiresAt time.Time
}

const invitationColumns = `id, hash, email, role, created_by, created_at, expires_at`

func scanInvitation(r database.Row) (Invitation, error) {
	var i Invitation
	var created, expires int64
	err := r.Scan(&i.ID, &i.Hash, &i.Email, &i.Role, &i.CreatedBy, &created, &expires)
	i.CreatedAt, i.ExpiresAt = timeOf(created), timeOf(expires)
	return i, err
}

// InsertInvitation stores a new invitation. Earlier ones for the same email end.
func (tx *Tx) InsertInvitation(ctx context.Context, i Invitation) error {
	if _, err := tx.Exec(ctx, `DELETE FROM invitation WHERE email = $1`, i.Email); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, `INSERT INTO invitation (`+invitationColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
		i.ID, i.Hash, i.Email, string(i.Role), i.CreatedBy, micros(i.CreatedAt), micros(i.ExpiresAt))
	return err
}

// InvitationByHash finds an invitation that has not expired.
func (tx *Tx) InvitationByHash(ctx context.Context, hash string) (Invitation, error) {
	return one(tx.QueryRow(ctx, `SELECT `+invitationColumns+` FROM invitation WHERE hash = $1 AND expires_at > $2`, hash,
		micros(tx.Now)), scanInvitation, run.Errorf(run.NotFound,
		"This link was used, has expired, or was replaced by a newer one: ask for a new link."))
}

// Invitations lists the open invitations, newest first.
func (tx *Tx) Invitations(ctx context.Context) ([]Invitation, error) {
	rows, err := tx.Query(ctx, `SELECT `+invitationColumns+
		` FROM invitation WHERE email <> '' AND expires_at > $1 ORDER BY created_at DESC, id`, micros(tx.Now))
	return database.All(rows, err, scanInvitation)
}

// DeleteInvitation revokes an invitation.
func (tx *Tx) DeleteInvitation(ctx context.Context, id string) error {
	return tx.deleteOne(ctx, `DELETE FROM invitation WHERE id = $1`, "invitation", id)
}

// UseInvitation removes an invitation. It reports false if it was already used or revoked.
func (tx *Tx) UseInvitation(ctx context.Context, id string) (bool, error) {
	n, err := tx.Exec(ctx, `DELETE FROM invitation WHERE id = $1`, id)
	return n == 1, err
}
