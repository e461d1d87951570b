package auth

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/mail"
	"net/netip"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"runbell/internal/run"
	"runbell/internal/store"
)

// How long things last.
const (
	SessionLife = 30 * 24 * time.Hour // after its last use
	InviteLife  = 7 * 24 * time.Hour
	noteSeen    = time.Hour // how exactly the last use of a session is known
)

// People checks who somebody is, and keeps accounts, sessions and invitations.
//
// A session begins with [People.Begin], however a person has proved who they
// are: with a password here; OpenID Connect would prove it with a token of the
// provider, find or make the account of its email, and begin the same session.
type People struct {
	db      *store.DB
	hasher  hasher
	cookies deviceCookies

	// Failed attempts, by what each belongs to. Nobody can use up the attempts of
	// a device or of a session of somebody else.
	addresses *limiter // unknown devices: the client's address
	accounts  *limiter // unknown devices: the email
	devices   *limiter // devices that signed in before
	changes   *limiter // changes of a password: the account
}

// NewPeople makes the checks. key signs the cookies of known devices; all nodes
// of a server have the same.
func NewPeople(db *store.DB, key []byte) *People {
	return &People{db: db, hasher: newHasher(), cookies: newDeviceCookies(key),
		addresses: newLimiter(30, 10*time.Second), accounts: newLimiter(5, 3*time.Minute),
		devices: newLimiter(5, 3*time.Minute), changes: newLimiter(5, 3*time.Minute)}
}

// Visitor is where a sign-in comes from.
type Visitor struct {
	Address netip.Addr // the client's, not a proxy's
	Device  string     // the cookie of [People.Device] that its browser sent, or ""
}

// Network is what addresses are counted by: one household or host has a whole /64
// of IPv6.
func Network(address netip.Addr) string {
	a := address.Unmap().WithZone("")
	if a.Is6() {
		return netip.PrefixFrom(a, 64).Masked().String()
	}
	return a.String()
}

// attempt is one try of a password, counted before it is made.
type attempt struct {
	limiter *limiter
	name    string
}

// attempts are what a sign-in takes. A device that signed in to this account
// before has attempts of its own, which strangers cannot use up.
func (p *People) attempts(email string, v Visitor) (of []attempt, lane chan struct{}) {
	if id, ok := p.cookies.read(v.Device, email); ok {
		return []attempt{{p.devices, id}}, p.hasher.known
	}
	return []attempt{{p.addresses, Network(v.Address)}, {p.accounts, email}}, p.hasher.strangers
}

// SignIn checks a password: Unauthorized if it or the email is wrong, TooMany if
// there were too many wrong ones.
func (p *People) SignIn(ctx context.Context, email, password string, v Visitor) (store.Account, error) {
	refused := run.Errorf(run.Unauthorized, "The email or the password is wrong.")
	email = Email(email)
	if CheckEmail(email) != nil {
		return store.Account{}, refused
	}
	attempts, lane := p.attempts(email, v)
	for _, a := range attempts {
		if wait := a.limiter.take(a.name); wait > 0 {
			return store.Account{}, tooMany(wait)
		}
	}
	var account store.Account
	err := p.db.Read(ctx, func(tx *store.Tx) (err error) {
		account, err = tx.AccountByEmail(ctx, email)
		return err
	})
	if err != nil && run.KindOf(err) != run.NotFound {
		return store.Account{}, err
	}
	// An unknown email costs the same time: an answer does not tell who has an account.
	ok, err := matches(ctx, lane, password, account.Password)
	if err != nil {
		return store.Account{}, err
	}
	if !ok {
		return store.Account{}, refused
	}
	for _, a := range attempts {
		a.limiter.giveBack(a.name)
	}
	return account, nil
}

// Device returns the cookie with which the browser of a person who has just
// signed in is known from then on.
func (p *People) Device(email string) string { return p.cookies.issue(email) }

func tooMany(wait time.Duration) error {
	return run.Errorf(run.TooMany, "Too many wrong passwords. Wait %s, then try again.", roughly(wait))
}

func roughly(d time.Duration) string {
	if d <= time.Minute {
		return "a minute"
	}
	return fmt.Sprintf("%d minutes", (d+time.Minute-1)/time.Minute)
}

// Begin begins a session of a person and returns its token, which the browser
// keeps. ended is the token of the session that the browser had before, which
// ends: a token from before the sign-in is worth nothing after it.
func (p *People) Begin(ctx context.Context, accountID, ended string) (string, error) {
	token := rand.Text() + rand.Text()
	return token, p.db.Write(ctx, func(tx *store.Tx) error {
		if ended != "" {
			if err := tx.EndSession(ctx, Hash(ended)); err != nil {
				return err
			}
		}
		s := store.Session{Hash: Hash(token), AccountID: accountID, CreatedAt: tx.Now, SeenAt: tx.Now}
		if err := tx.InsertSession(ctx, s); err != nil {
			return err
		}
		return tx.SeeSession(ctx, s)
	})
}

// Session finds the person of a token: Unauthorized if there is none.
func (p *People) Session(ctx context.Context, token string) (store.Account, error) {
	refused := run.Errorf(run.Unauthorized, "Sign in first.")
	if token == "" || len(token) > maxKeyLength {
		return store.Account{}, refused
	}
	var session store.Session
	var account store.Account
	var age time.Duration
	err := p.db.Read(ctx, func(tx *store.Tx) (err error) {
		session, account, err = tx.Session(ctx, Hash(token))
		age = tx.Now.Sub(session.SeenAt)
		return err
	})
	if run.KindOf(err) == run.NotFound || err == nil && age > SessionLife {
		return store.Account{}, refused
	}
	if err == nil && age > noteSeen {
		err = p.db.Write(ctx, func(tx *store.Tx) error { return tx.SeeSession(ctx, session) })
	}
	return account, err
}

// SignOut ends a session.
func (p *People) SignOut(ctx context.Context, token string) error {
	return p.db.Write(ctx, func(tx *store.Tx) error { return tx.EndSession(ctx, Hash(token)) })
}

// SignOutOthers ends every session of a person but the one with the token.
func (p *People) SignOutOthers(ctx context.Context, accountID, token string) error {
	return p.db.Write(ctx, func(tx *store.Tx) error { return tx.EndSessions(ctx, accountID, Hash(token)) })
}

// ChangePassword sets a new password for a person who knows the old one, and ends
// every session but the one with the token.
func (p *People) ChangePassword(ctx context.Context, account store.Account, old, password, token string) error {
	if wait := p.changes.take(account.ID); wait > 0 {
		return tooMany(wait)
	}
	ok, err := matches(ctx, p.hasher.known, old, account.Password)
	if err != nil {
		return err
	}
	if !ok {
		return run.Errorf(run.Invalid, "The current password is wrong.")
	}
	p.changes.giveBack(account.ID)
	if err := CheckPassword(password); err != nil {
		return err
	}
	hash, err := p.hasher.hash(ctx, password)
	if err != nil {
		return err
	}
	return p.change(ctx, account.ID, func(tx *store.Tx, a *store.Account) error {
		a.Password = hash
		return tx.EndSessions(ctx, a.ID, Hash(token))
	})
}

// Update changes the name or the role of a person, or both. There always is an
// admin.
func (p *People) Update(ctx context.Context, id string, name *string, role *store.Role) (store.Account, error) {
	var out store.Account
	err := p.change(ctx, id, func(_ *store.Tx, a *store.Account) error {
		if name != nil {
			checked, err := checkName(*name)
			if err != nil {
				return err
			}
			a.Name = checked
		}
		if role != nil {
			if err := CheckRole(*role); err != nil {
				return err
			}
			a.Role = *role
		}
		out = *a
		return nil
	})
	return out, err
}

// change changes an account in a transaction that keeps an admin.
func (p *People) change(ctx context.Context, id string, f func(*store.Tx, *store.Account) error) error {
	return p.db.Write(ctx, func(tx *store.Tx) error {
		a, others, err := lockAccount(ctx, tx, id)
		if err != nil {
			return err
		}
		was := a.Role
		if err := f(tx, &a); err != nil {
			return err
		}
		if was == store.Admin && a.Role != store.Admin && others == 0 {
			return run.Errorf(run.Refused, "%s is the only admin: make another person an admin first.", a.Name)
		}
		return tx.UpdateAccount(ctx, a)
	})
}

// lockAccount finds a person, and how many other admins there are.
func lockAccount(ctx context.Context, tx *store.Tx, id string) (found store.Account, otherAdmins int, err error) {
	list, err := tx.LockAccounts(ctx)
	if err != nil {
		return found, 0, err
	}
	err = run.Missing("person", id)
	for _, a := range list {
		switch {
		case a.ID == id:
			found, err = a, nil
		case a.Role == store.Admin:
			otherAdmins++
		}
	}
	return found, otherAdmins, err
}

// Remove removes a person, who is signed out everywhere at once.
func (p *People) Remove(ctx context.Context, id string) error {
	return p.db.Write(ctx, func(tx *store.Tx) error {
		a, others, err := lockAccount(ctx, tx, id)
		if err != nil {
			return err
		}
		if a.Role == store.Admin && others == 0 {
			return run.Errorf(run.Refused, "%s is the only admin: make another person an admin first.", a.Name)
		}
		return tx.DeleteAccount(ctx, id)
	})
}

// Invite makes the token of a link with which a new person sets a password. A person
// with an account sets a new one and keeps the role.
func (p *People) Invite(ctx context.Context, email string, role store.Role,
	by string) (store.Invitation, string, error) {
	email = Email(email)
	if err := CheckEmail(email); err != nil {
		return store.Invitation{}, "", err
	}
	if err := CheckRole(role); err != nil {
		return store.Invitation{}, "", err
	}
	return p.invite(ctx, email, role, by)
}

func (p *People) invite(ctx context.Context, email string, role store.Role,
	by string) (store.Invitation, string, error) {
	token := rand.Text()
	i := store.Invitation{ID: uuid.NewString(), Hash: Hash(token), Email: email, Role: role, CreatedBy: by}
	err := p.db.Write(ctx, func(tx *store.Tx) error {
		i.CreatedAt, i.ExpiresAt = tx.Now, tx.Now.Add(InviteLife)
		return tx.InsertInvitation(ctx, i)
	})
	return i, token, err
}

// Setup makes the token of the link for the first person, "" if there is
// an account already.
func (p *People) Setup(ctx context.Context) (string, error) {
	var any bool
	err := p.db.Read(ctx, func(tx *store.Tx) (err error) {
		any, err = tx.AnyAccount(ctx)
		return err
	})
	if any || err != nil {
		return "", err
	}
	_, token, err := p.invite(ctx, "", store.Admin, "setup")
	return token, err
}

// Invited finds the invitation of a link's token, and whether there is an
// account for its email already.
func (p *People) Invited(ctx context.Context, token string) (i store.Invitation, known bool, err error) {
	err = p.db.Read(ctx, func(tx *store.Tx) (err error) {
		i, known, err = invited(ctx, tx, token)
		return err
	})
	return i, known, err
}

func invited(ctx context.Context, tx *store.Tx, token string) (i store.Invitation, known bool, err error) {
	if i, err = tx.InvitationByHash(ctx, Hash(run.Clip(token, maxKeyLength))); err != nil {
		return i, false, err
	}
	if i.Email == "" {
		if any, err := tx.AnyAccount(ctx); err != nil || any {
			return i, false, errOr(err, run.Errorf(run.NotFound,
				"This server is already set up: sign in, or ask an admin for an invitation."))
		}
		return i, false, nil
	}
	_, err = tx.AccountByEmail(ctx, i.Email)
	if run.KindOf(err) == run.NotFound {
		return i, false, nil
	}
	return i, err == nil, err
}

func errOr(err, other error) error {
	if err != nil {
		return err
	}
	return other
}

// Accept uses an invitation: it makes the account, or gives the one that is
// there a new password and ends its sessions. email counts only for the setup
// link, name only for a new account.
func (p *People) Accept(ctx context.Context, token, email, name, password string) (store.Account, error) {
	var account store.Account
	if err := CheckPassword(password); err != nil {
		return account, err
	}
	// Before the hash, which costs something, and again in the transaction.
	if _, _, err := p.Invited(ctx, token); err != nil {
		return account, err
	}
	hash, err := p.hasher.hash(ctx, password)
	if err != nil {
		return account, err
	}
	err = p.db.Write(ctx, func(tx *store.Tx) error {
		i, known, err := invited(ctx, tx, token)
		if err != nil {
			return err
		}
		if used, err := tx.UseInvitation(ctx, i.ID); err != nil || !used {
			return errOr(err, run.Errorf(run.NotFound, "This link was just used."))
		}
		if known {
			if account, err = tx.AccountByEmail(ctx, i.Email); err != nil {
				return err
			}
			account.Password = hash
			if err := tx.EndSessions(ctx, account.ID, ""); err != nil {
				return err
			}
			return tx.UpdateAccount(ctx, account)
		}
		if i.Email == "" {
			i.Email = Email(email)
		}
		account, err = insertAccount(ctx, tx, i.Email, name, i.Role, hash)
		return err
	})
	return account, err
}

// FirstAdmin makes sure that somebody can sign in: an admin with this email and
// password, unless there is an account already.
func (p *People) FirstAdmin(ctx context.Context, email, password string) error {
	if err := CheckPassword(password); err != nil {
		return err
	}
	hash, err := p.hasher.hash(ctx, password)
	if err != nil {
		return err
	}
	return p.db.Write(ctx, func(tx *store.Tx) error {
		if any, err := tx.AnyAccount(ctx); err != nil || any {
			return err
		}
		name, _, _ := strings.Cut(Email(email), "@")
		_, err := insertAccount(ctx, tx, Email(email), name, store.Admin, hash)
		return err
	})
}

func insertAccount(ctx context.Context, tx *store.Tx, email, name string, role store.Role,
	hash string) (store.Account, error) {
	if err := CheckEmail(email); err != nil {
		return store.Account{}, err
	}
	name, err := checkName(name)
	if err != nil {
		return store.Account{}, err
	}
	a := store.Account{ID: uuid.NewString(), Email: email, Name: name, Role: role, Password: hash, CreatedAt: tx.Now}
	inserted, err := tx.InsertAccount(ctx, a)
	if err == nil && !inserted {
		err = run.Errorf(run.Conflict, "There is already an account with the email %s.", run.Clip(email, 80))
	}
	return a, err
}

// Email is how an email is stored and compared.
func Email(s string) string { return strings.ToLower(strings.TrimSpace(s)) }

// CheckEmail says whether an email can be one.
func CheckEmail(email string) error {
	parsed, err := mail.ParseAddress(email)
	if err != nil || parsed.Address != email || len(email) > 254 || !run.ValidName(email) || !utf8.ValidString(email) {
		return run.Errorf(run.Invalid, "%q is not an email address.", run.Clip(email, 80))
	}
	return nil
}

// CheckRole says whether a role exists.
func CheckRole(role store.Role) error {
	if role != store.Admin && role != store.Member && role != store.Viewer {
		return run.Errorf(run.Invalid, "The role must be admin, member or viewer.")
	}
	return nil
}

func checkName(name string) (string, error) {
	name = strings.TrimSpace(name)
	if n := utf8.RuneCountInString(name); n < 1 || n > 100 || !run.ValidName(name) || !utf8.ValidString(name) {
		return "", run.Errorf(run.Invalid, "The name must have 1 to 100 characters.")
	}
	return name, nil
}
