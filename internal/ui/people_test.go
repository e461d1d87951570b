package ui

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"runbell/internal/auth"
	"runbell/internal/run"
	"runbell/internal/store"
)

// cookie is the session that an answer gives to the browser.
func cookie(t *testing.T, h http.Header) *http.Cookie {
	t.Helper()
	return named(t, h, "__Host-runbell")
}

// named is a cookie that an answer sets.
func named(t *testing.T, h http.Header, name string) *http.Cookie {
	t.Helper()
	for _, c := range (&http.Response{Header: h}).Cookies() {
		if c.Name == name {
			return c
		}
	}
	t.Fatalf("no cookie %s is set", name)
	return nil
}

// TestFromSetupToSignOut is the way of the first admin, and of one who is invited.
func TestFromSetupToSignOut(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	people := auth.NewPeople(w.db, make([]byte, 32))
	setup, err := people.Setup(w.ctx)
	w.check(err)
	wants(t, w.page("/signin?next=/keys"), "There are no accounts yet")

	page := w.page("/invite/" + setup)
	wellFormed(t, page)
	wants(t, page, "Set up Runbell", "It is an admin and can invite other people.")
	w.refused(400, "10 to 256 characters", "/invite/"+setup, "email", "ada@example.test", "name", "Ada", "password", "short")
	w.refused(400, `"ada" is not an email address`, "/invite/"+setup, "email", "ada", "name", "Ada", "password", "correct horse battery")
	rec := w.send("POST", "/invite/"+setup, form("email", " Ada@Example.test", "name", "Ada", "password", "correct horse battery"))
	c := cookie(t, rec.Header())
	if rec.Code != 303 || !c.HttpOnly || !c.Secure || c.Path != "/" || c.Domain != "" || c.SameSite != http.SameSiteLaxMode {
		t.Errorf("%d, cookie %v", rec.Code, c)
	}
	if again := w.get("/invite/" + setup); again.Code != 404 {
		t.Errorf("the setup link works again: %d", again.Code)
	}
	if second, err := people.Setup(w.ctx); second != "" || err != nil {
		t.Errorf("a second setup link: %q, %v", second, err)
	}

	w.token = c.Value
	wants(t, w.page("/people"), "Ada you ada@example.test")
	rec = w.send("POST", "/people/invite", form("email", "joe@example.test", "role", "viewer"))
	if rec.Code != 200 || rec.Header().Get("Cache-Control") != "no-store" {
		t.Fatalf("invite: %d %v", rec.Code, rec.Header())
	}
	link := regexp.MustCompile(`https://runbell\.example\.test(/invite/\w+)`).FindStringSubmatch(rec.Body.String())
	if link == nil {
		t.Fatalf("no link: %s", text(rec.Body.String()))
	}
	page = w.page("/people")
	wants(t, page, "Invited joe@example.test viewer, invited by Ada")
	lacks(t, page, link[1])

	w.token = ""
	wants(t, w.page(link[1]), "You’ve been invited as a viewer.")
	rec = w.send("POST", link[1], form("email", "other@example.test", "name", "Joe", "password", "staple battery horse"))
	w.token = cookie(t, rec.Header()).Value
	wants(t, w.page("/account"), "joe@example.test, viewer")
	if w.get("/people").Code != 403 {
		t.Error("a viewer sees people")
	}

	// Signing out ends the session, not only the cookie.
	old := w.token
	w.post("/signout")
	w.token = old
	if rec := w.get("/account"); rec.Code != 303 || rec.Header().Get("Location") != "/signin?next=%2Faccount" {
		t.Errorf("after signing out: %d %s", rec.Code, rec.Header().Get("Location"))
	}
}

func TestSignIn(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	people := auth.NewPeople(w.db, make([]byte, 32))
	w.check(people.FirstAdmin(w.ctx, "ada@example.test", "correct horse battery"))
	page := w.page("/signin")
	wellFormed(t, page)
	w.refused(401, "The email or the password is wrong.", "/signin", "email", "ada@example.test", "password", "wrong")
	w.refused(401, "The email or the password is wrong.", "/signin", "email", "nobody@example.test", "password", "correct horse battery")

	// Nowhere but to pages of ours.
	for _, to := range []string{"https://evil.example", "//evil.example", `/\evil.example`, `\\evil.example`, "javascript:alert(1)", "/\t/evil.example", "evil", "https:evil.example", ""} {
		if got := w.post("/signin", "email", "ada@example.test", "password", "correct horse battery", "next", to); got != "/" {
			t.Errorf("next %q leads to %q", to, got)
		}
	}
	// A session that was there before is worth nothing afterwards: the person who planted it has none.
	w.token = w.person("mallory", store.Viewer)
	rec := w.send("POST", "/signin", form("email", "ada@example.test", "password", "correct horse battery", "next", "/keys?x=1"))
	if rec.Header().Get("Location") != "/keys?x=1" {
		t.Errorf("next leads to %q", rec.Header().Get("Location"))
	}
	planted, fresh := w.token, cookie(t, rec.Header()).Value
	if planted == fresh || w.get("/account").Code != 303 {
		t.Error("the session from before the sign-in lives on")
	}
	w.token = fresh
	wants(t, w.page("/account"), "ada@example.test, admin")
	if to := w.get("/signin?next=/people").Header().Get("Location"); to != "/people" {
		t.Errorf("who is signed in goes to %q", to)
	}

	// Too many wrong tries, and the right one has to wait, too.
	for range 6 {
		w.send("POST", "/signin", form("email", "joe@example.test", "password", "wrong"))
	}
	w.refused(429, "Too many wrong passwords. Wait", "/signin", "email", "joe@example.test", "password", "wrong")

	// Strangers lock out strangers, but not a browser that signed in before.
	for range 6 {
		w.send("POST", "/signin", form("email", "ada@example.test", "password", "wrong"))
	}
	right := form("email", "ada@example.test", "password", "correct horse battery")
	if stranger := w.send("POST", "/signin", right); stranger.Code != 429 {
		t.Errorf("a stranger with the password: %d", stranger.Code)
	}
	known := named(t, rec.Header(), "__Host-runbell-device")
	if known.MaxAge < 300*24*60*60 || !known.HttpOnly || !known.Secure {
		t.Errorf("the device's cookie: %v", known)
	}
	if device := w.send("POST", "/signin", right, "Cookie", known.Name+"="+known.Value); device.Code != 303 {
		t.Errorf("a known browser: %d", device.Code)
	}
}

func TestLargeFormsOfStrangers(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	w.token = ""
	for n, status := range map[int]int{7 << 10: http.StatusUnauthorized, 9 << 10: http.StatusBadRequest} {
		if rec := w.send("POST", "/signin", form("email", "ada@example.test", "password", "wrong", "next", strings.Repeat("x", n))); rec.Code != status {
			t.Errorf("a form of %d bytes: %d, want %d", n, rec.Code, status)
		}
	}
}

func TestForgery(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	w.token = w.person("ada", store.Admin)
	for name, header := range map[string][]string{
		"another site":      {"Sec-Fetch-Site", "cross-site"},
		"another subdomain": {"Sec-Fetch-Site", "same-site"},
		"another origin":    {"Sec-Fetch-Site", "", "Origin", "https://evil.example"},
		"no origin":         {"Sec-Fetch-Site", "", "Origin", "null"},
	} {
		rec := w.send("POST", "/keys", form("label", "stolen", "access", "write"), header...)
		if rec.Code != 403 {
			t.Errorf("%s: %d", name, rec.Code)
		}
		wants(t, rec.Body.String(), "sent by another site")
	}
	lacks(t, w.page("/keys"), "stolen")
	// Behind a proxy the Host may be another; the public URL is ours.
	if rec := w.send("POST", "/keys", form("label", "ours"), "Sec-Fetch-Site", "", "Origin", publicURL, "Host", "10.0.0.1"); rec.Code != 200 {
		t.Errorf("our own form: %d", rec.Code)
	}
}

func TestRoles(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	u := &ui{}
	tokens := map[store.Role]string{"": ""}
	for _, role := range []store.Role{store.Viewer, store.Member, store.Admin} {
		tokens[role] = w.person(string(role), role)
	}
	for has, token := range tokens {
		w.token = token
		for _, rt := range u.routes() {
			path := strings.NewReplacer("{$}", "", "{runId}", "r", "{token}", "t", "{name}", "n", "{projectId}", "none", "{hookId}", "none", "{deliveryId}", "none").Replace(rt.path)
			var f url.Values
			if rt.method == "POST" {
				f = form("id", "none")
			}
			if rt.path == "/signout" || rt.path == "/account/signout-others" {
				continue // would end the sessions of this test
			}
			rec := w.send(rt.method, path, f)
			allowed := auth.RoleMay(has, rt.right)
			switch {
			case allowed && (rec.Code == 403 || has != "" && rec.Header().Get("Location") != "" && strings.Contains(rec.Header().Get("Location"), "signin")):
				t.Errorf("needs %q, has %q: %s %s = %d", rt.right, has, rt.method, path, rec.Code)
			case !allowed && has == "" && rt.method == "GET" && (rec.Code != 303 || !strings.HasPrefix(rec.Header().Get("Location"), "/signin?next=")):
				t.Errorf("nobody gets %s: %d", path, rec.Code)
			case !allowed && has == "" && rt.method == "POST" && rec.Code != 401:
				t.Errorf("nobody posts to %s: %d", path, rec.Code)
			case !allowed && has != "" && rec.Code != 403:
				t.Errorf("needs %q, has %q: %s %s = %d", rt.right, has, rt.method, path, rec.Code)
			}
		}
	}
	w.token = tokens[store.Viewer]
	wants(t, w.get("/people").Body.String(), "This page is for admins. You are signed in as viewer (viewer).")
}

func TestRunsAreOpenOnlyWhereTheProjectSaysSo(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	id := w.play(shopJoin("build-001", fiveSpecs()...), fiveSpecs())
	wants(t, w.page("/run/"+id), "build-001", "Sign in")
	w.check(w.db.Write(w.ctx, func(tx *store.Tx) error {
		p, err := tx.Project(w.ctx, "shop")
		if err != nil {
			return err
		}
		p.PublicRuns = false
		return tx.UpdateProject(w.ctx, p)
	}))
	// Whether there is such a run does not show.
	for _, path := range []string{"/run/" + id, "/run/" + id + "/specs", "/run/" + id + "/spec?file=a", "/run/" + strings.Repeat("0", 32)} {
		rec := w.get(path)
		if rec.Code != 303 || rec.Header().Get("Location") != "/signin?next="+url.QueryEscape(path) {
			t.Errorf("%s: %d %s", path, rec.Code, rec.Header().Get("Location"))
		}
	}
	w.token = w.person("vera", store.Viewer)
	wants(t, w.page("/run/"+id), "build-001", "vera")
}

func TestPeopleAndKeys(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	people := auth.NewPeople(w.db, make([]byte, 32))
	w.check(people.FirstAdmin(w.ctx, "ada@example.test", "correct horse battery"))
	w.token = cookie(t, w.send("POST", "/signin", form("email", "ada@example.test", "password", "correct horse battery")).Header()).Value
	mine := w.token
	w.token = ""
	elsewhere := cookie(t, w.send("POST", "/signin", form("email", "ada@example.test", "password", "correct horse battery")).Header()).Value
	w.token = mine

	// The only admin stays.
	var ada string
	w.check(w.db.Read(w.ctx, func(tx *store.Tx) error {
		a, err := tx.AccountByEmail(w.ctx, "ada@example.test")
		ada = a.ID
		return err
	}))
	w.refused(400, "ada is the only admin", "/people/role", "id", ada, "role", "viewer")
	w.refused(400, "ada is the only admin", "/people/remove", "id", ada)
	w.refused(400, "must be admin, member or viewer", "/people/role", "id", ada, "role", "owner")
	w.person("joe", store.Viewer)
	w.post("/people/role", "id", "id-of-joe", "role", "admin")
	w.post("/people/remove", "id", "id-of-joe")
	lacks(t, w.page("/people"), "joe@example.test")

	if to := w.post("/account/name", "name", "Ada <b>"); to != "/account?done=saved" {
		t.Errorf("leads to %s", to)
	}
	page := w.page("/account?done=saved")
	wellFormed(t, page)
	wants(t, page, "Saved.", "Ada <b>")
	w.refused(400, "The current password is wrong.", "/account/password", "old", "wrong", "password", "another long password")
	w.post("/account/password", "old", "correct horse battery", "password", "another long password")
	w.page("/account")
	if w.token = elsewhere; w.get("/account").Code != 303 {
		t.Error("another browser is still signed in")
	}
	w.token = mine

	rec := w.send("POST", "/keys", form("label", "deploy", "access", "write"))
	key := regexp.MustCompile(`ak_\w+`).FindString(rec.Body.String())
	if access, err := auth.New(w.db, auth.KeysOnly).API(w.ctx, key); err != nil || access.Access != auth.Write {
		t.Errorf("the new key: %v", err)
	}
	page = w.page("/keys")
	wellFormed(t, page)
	lacks(t, page, key)
	wants(t, page, "deploy", "read-write · created", "used ")
	id := regexp.MustCompile(`name="id" value="([^"]+)"`).FindStringSubmatch(page)[1]
	w.post("/keys/revoke", "id", id)
	if _, err := auth.New(w.db, auth.KeysOnly).API(w.ctx, key); run.KindOf(err) != run.Unauthorized {
		t.Errorf("the revoked key: %v", err)
	}
}

// TestAKeyOfOneProject limits an API key to a project, in the form and in the list.
func TestAKeyOfOneProject(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	w.token = w.person("ada", store.Admin)
	if page := w.page("/keys"); !strings.Contains(page, `<option value="shop"></option>`) {
		t.Error("the form does not suggest the project")
	}
	rec := w.send("POST", "/keys", form("label", "shop only", "access", "read", "project", " shop "))
	key := regexp.MustCompile(`ak_\w+`).FindString(rec.Body.String())
	program, err := auth.New(w.db, auth.KeysOnly).API(w.ctx, key)
	if err != nil || program.ProjectID != "shop" || program.Access != auth.Read {
		t.Errorf("the key is good for %+v, %v", program, err)
	}
	page := w.page("/keys")
	wellFormed(t, page)
	wants(t, page, "read-only · only shop · created")

	rec = w.send("POST", "/keys", form("label", "typo", "access", "write", "project", "shpo"))
	if rec.Code != 400 {
		t.Errorf("a key for a project that does not exist: status %d", rec.Code)
	}
	wants(t, rec.Body.String(), `There is no project "shpo".`)
	for _, kept := range []string{`value="typo"`, `value="shpo"`, `<option value="write" selected>`} {
		if !strings.Contains(rec.Body.String(), kept) {
			t.Errorf("the form has lost %s", kept)
		}
	}
	lacks(t, rec.Body.String(), "ak_")
	lacks(t, w.page("/keys"), "typo")
}
