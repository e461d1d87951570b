package ui

import (
	"net/http"
	"net/url"
	"strings"
	"time"

	"runbell/internal/auth"
	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/web"
)

// The cookies: the session's token, and the token by which a browser is recognized when someone signs in again.
const (
	sessionCookie = web.SessionCookie
	deviceCookie  = "runbell-device"
)

// setCookie keeps a value in the browser for some time; "" removes it.
func (u *ui) setCookie(r *request, name, value string, life time.Duration) {
	c := &http.Cookie{Name: web.CookieName(name, u.secure), Value: value, Path: "/", HttpOnly: true, Secure: u.secure,
		SameSite: http.SameSiteLaxMode, MaxAge: int(life.Seconds())}
	if value == "" {
		c.MaxAge = -1
	}
	http.SetCookie(r.w, c)
}

// cookie is what the browser sent, or "".
func (u *ui) cookie(r *request, name string) string {
	if c, err := r.Cookie(web.CookieName(name, u.secure)); err == nil {
		return c.Value
	}
	return ""
}

// token is that of the session, "" without one.
func (u *ui) token(r *request) string { return u.cookie(r, sessionCookie) }

// toSignIn sends somebody to sign in, and back here afterwards.
func (u *ui) toSignIn(r *request) {
	r.w.Header().Set("Cache-Control", "no-store")
	_ = r.to(u.base + "/signin?next=" + url.QueryEscape(r.URL.RequestURI()))
}

// next is where somebody goes after signing in: a page of ours, whatever the
// address says.
func next(s string) string {
	parsed, err := url.Parse(s)
	if err != nil || parsed.Scheme != "" || parsed.Host != "" || parsed.User != nil || !strings.HasPrefix(s, "/") ||
		strings.HasPrefix(s, "//") || strings.ContainsAny(s, "\\\r\n\t") {
		return "/"
	}
	return s
}

// signInPage asks for email and password.
type signInPage struct {
	layout
	Email string
	Next  string
	Error string
	Empty bool // nobody has an account yet
}

func (u *ui) signInForm(r *request) error {
	to := next(r.query("next"))
	if r.signedIn() {
		return r.to(u.base + to)
	}
	return u.showSignIn(r, http.StatusOK, signInPage{Next: to})
}

func (u *ui) showSignIn(r *request, status int, p signInPage) error {
	err := u.db.Read(r.Context(), func(tx *store.Tx) error {
		any, err := tx.AnyAccount(r.Context())
		p.Empty = !any
		return err
	})
	if err != nil {
		return err
	}
	p.layout = u.layout(r, "Sign in", toneIdle)
	body, err := u.views.signIn.render(p)
	return r.showOnce(status, body, err)
}

func (u *ui) signIn(r *request) error {
	email, to := r.PostFormValue("email"), next(r.PostFormValue("next"))
	account, err := u.people.SignIn(r.Context(), email, r.PostFormValue("password"),
		auth.Visitor{Address: web.Address(r.Request), Device: u.cookie(r, deviceCookie)})
	switch kind := run.KindOf(err); {
	case err == nil:
		return u.begin(r, account, to)
	case kind == run.Unauthorized || kind == run.TooMany || kind == run.Unavailable:
		p := web.ProblemOf(err)
		return u.showSignIn(r, p.Status, signInPage{Email: email, Next: to, Error: p.Message})
	default:
		return err
	}
}

// begin gives the browser a session of its own.
func (u *ui) begin(r *request, account store.Account, to string) error {
	token, err := u.people.Begin(r.Context(), account.ID, u.token(r))
	if err != nil {
		return err
	}
	u.setCookie(r, sessionCookie, token, auth.SessionLife)
	u.setCookie(r, deviceCookie, u.people.Device(account.Email), auth.DeviceLife)
	return r.to(u.base + to)
}

func (u *ui) signOut(r *request) error {
	if token := u.token(r); token != "" {
		if err := u.people.SignOut(r.Context(), token); err != nil {
			return err
		}
	}
	u.setCookie(r, sessionCookie, "", 0)
	return r.to(u.base + "/signin")
}

// invitePage lets a person with a link set a password.
type invitePage struct {
	layout
	Setup bool // it is the first account: the email is free
	Known bool // the person has an account
	Email string
	Name  string
	Role  string
	By    string
	Error string
}

func (u *ui) inviteForm(r *request) error { return u.showInvite(r, http.StatusOK, invitePage{}) }

func (u *ui) showInvite(r *request, status int, p invitePage) error {
	i, known, err := u.people.Invited(r.Context(), r.PathValue("token"))
	if err != nil {
		return err
	}
	p.layout = u.layout(r, "Welcome", toneIdle)
	p.Setup, p.Known, p.Role, p.By = i.Email == "", known, string(i.Role), i.CreatedBy
	if !p.Setup {
		p.Email = i.Email
	}
	body, err := u.views.invite.render(p)
	return r.showOnce(status, body, err)
}

func (u *ui) acceptInvite(r *request) error {
	given := invitePage{Email: r.PostFormValue("email"), Name: r.PostFormValue("name")}
	account, err := u.people.Accept(r.Context(), r.PathValue("token"), given.Email, given.Name,
		r.PostFormValue("password"))
	if kind := run.KindOf(err); kind == run.Invalid || kind == run.Conflict {
		p := web.ProblemOf(err)
		given.Error = p.Message
		return u.showInvite(r, p.Status, given)
	}
	if err != nil {
		return err
	}
	return u.begin(r, account, "/")
}
