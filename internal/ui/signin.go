package ui

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"runbell/internal/auth"
	"runbell/internal/run"
	"runbell/internal/store"
	"runbell/internal/web"
)

// cookieName is that of the session. Browsers take the prefix as a promise that
// only this host, over https, has set it.
func (u *ui) cookieName() string {
	if u.secure {
		return "__Host-runbell"
	}
	return "runbell"
}

func (u *ui) setCookie(r *request, token string) {
	c := &http.Cookie{Name: u.cookieName(), Value: token, Path: "/", HttpOnly: true, Secure: u.secure, SameSite: http.SameSiteLaxMode,
		MaxAge: int(auth.SessionLife.Seconds())}
	if token == "" {
		c.MaxAge = -1
	}
	http.SetCookie(r.w, c)
}

// token is that of the session, "" without one.
func (u *ui) token(r *request) string {
	if c, err := r.Cookie(u.cookieName()); err == nil {
		return c.Value
	}
	return ""
}

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
	account, err := u.people.SignIn(r.Context(), email, r.PostFormValue("password"), peer(r.Request))
	switch kind := run.KindOf(err); {
	case err == nil:
		return u.begin(r, account, to)
	case kind == run.Unauthorized || kind == run.TooMany:
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
	u.setCookie(r, token)
	return r.to(u.base + to)
}

// peer is where a request comes from. Proxies are on this machine or a private
// network, and add whom they speak for to the end of a header; whoever else
// sends that header is not believed.
func peer(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	if addr, err := netip.ParseAddr(host); err == nil && (addr.IsLoopback() || addr.IsPrivate()) {
		list := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
		if last, err := netip.ParseAddr(strings.TrimSpace(list[len(list)-1])); err == nil {
			return last.String()
		}
	}
	return host
}

func (u *ui) signOut(r *request) error {
	if token := u.token(r); token != "" {
		if err := u.people.SignOut(r.Context(), token); err != nil {
			return err
		}
	}
	u.setCookie(r, "")
	return r.to(u.base + "/signin")
}

// invitePage lets somebody set a password who came with a link.
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
	account, err := u.people.Accept(r.Context(), r.PathValue("token"), given.Email, given.Name, r.PostFormValue("password"))
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
