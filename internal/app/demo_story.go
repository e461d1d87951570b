package app

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"runbell/internal/run"
)

// pastProject is a project of the made-up month.
type pastProject struct {
	id, name string
	perDay   int
	groups   []string
	tags     []string
	areas    []string
	failing  int // of 1,000 tests
	flaky    int // of 1,000 tests
}

var pastProjects = []pastProject{
	{id: "web-shop", name: "Web shop", perDay: 5, groups: []string{"chrome", "firefox"},
		tags: []string{"smoke", "nightly"}, failing: 2, flaky: 6,
		areas: []string{"checkout/pay", "checkout/address", "checkout/coupons", "catalog/search", "catalog/filters",
			"account/sign-in", "account/orders", "cart/cart"}},
	{id: "admin", name: "Admin console", perDay: 3, groups: []string{"chrome"}, tags: []string{"regression"}, failing: 4,
		flaky: 5,
		areas: []string{"users/roles", "users/invite", "billing/invoices", "billing/refunds", "reports/export",
			"settings/sso"}},
	{id: "mobile-web", name: "Mobile web: storefront, tablet and phone layouts", perDay: 2,
		groups: []string{"chrome-mobile", "webkit-mobile", "firefox-mobile"}, failing: 2, flaky: 20,
		areas: []string{"home/banner", "home/navigation", "product/gallery", "product/reviews"}},
}

// specs are the paths of the project's specs.
func (p *pastProject) specs() []string {
	var list []string
	for _, a := range p.areas {
		list = append(list, "cypress/e2e/"+a+".cy.ts")
	}
	return list
}

type pastAuthor struct{ name, login string }

var pastAuthors = []pastAuthor{{"Jane Roe", "jane-roe"}, {"Joe Bloggs", "joebloggs"}, {"Ana Souza", "ana-souza"},
	{"Kenji Itō", "kenji-ito"}, {"Лена Орлова", "lena-orlova"}, {"renovate[bot]", "renovate"}}

var pastBranches = []string{"feature/218-express-checkout", "feature/231-gift-cards", "fix/409-coupon-rounding",
	"fix/session-expires-during-payment-on-slow-connections", "release/2.4", "renovate/cypress-15.x",
	"refactor/cart-state-machine-without-redux"}

var pastSubjects = []string{
	"feat: express checkout for returning customers", "fix: round coupons after tax, not before",
	"chore(deps): update cypress to v15.4.0", "test: wait for the order number instead of a fixed delay",
	"refactor: cart state lives in one place", "feat: gift cards can pay for a part of an order",
	"fix: keep the session alive while the bank's page is open, so that customers on slow connections do not have to " +
		"sign in again after they paid", "docs: how to run the tests against staging",
	"feat(admin): invoices can be exported as CSV", "revert: \"feat: lazy images in the gallery\"",
}

var pastTests = []string{"shows what the customer expects", "keeps the choice after a reload",
	"refuses bad input and says why", "works with the keyboard only", "recovers when the server answers 503",
	"can be undone", "formats prices of the Swiss, Japanese and Brazilian storefronts with the right currency, " +
		"separators and number of decimals"}

var pastErrors = []run.Failure{
	{Name: "AssertionError", Message: "Timed out retrying after 4000ms: Expected to find element: " +
		"`[data-test=\"order-number\"]`, but never found it."},
	{Name: "AssertionError", Message: "expected 'CHF 1’249.50' to equal 'CHF 1’249.95'"},
	{Name: "CypressError", Message: "`cy.visit()` failed trying to load:\n\nhttp://localhost:3000/checkout\n\nThe " +
		"response we received from your web server was:\n\n  > 503: Service Unavailable"},
	{Name: "CypressError", Message: "Timed out retrying after 4050ms: `cy.click()` failed because this element is being " +
		"covered by another element:\n\n`<div class=\"cookie-banner\">...</div>`"},
	{Name: "TypeError", Message: "Cannot read properties of undefined (reading 'total')"},
}

// pastTrouble is what people of a project know of a test: since when, of 1,000 results,
// how many fail, on main or on all branches, and how many pass only when retried.
type pastTrouble struct {
	area             string
	test             int // in pastTests
	from, until      int // days ago
	branch           string
	failing, retried int
	slower           int // percent that it takes longer
}

var pastTroubles = []pastTrouble{
	{area: "account/orders", test: 4, from: 1, until: -1, failing: 1000},
	{area: "billing/refunds", test: 1, from: 3, until: -1, branch: "main", failing: 1000},
	{area: "catalog/search", test: 3, from: 16, until: 13, failing: 1000},
	{area: "checkout/pay", test: 0, from: 30, until: -1, retried: 180, failing: 40},
	{area: "checkout/coupons", test: 2, from: 12, until: -1, retried: 120},
	{area: "product/gallery", test: 4, from: 30, until: -1, retried: 250, failing: 30},
	{area: "catalog/filters", test: 6, from: 8, until: -1, slower: 190},
	{area: "reports/export", test: 5, from: 30, until: -1, slower: 420},
}

// trouble is the trouble of a test in the run; all of it is 0 if there is none. A run that did
// not finish has none, because chance decides which of its specs ran.
func (r pastRun) trouble(area string, test int) pastTrouble {
	if r.end != run.Finished {
		return pastTrouble{}
	}
	for _, t := range pastTroubles {
		if t.area == area && t.test == test && r.daysAgo <= t.from && r.daysAgo > t.until &&
			(t.branch == "" || t.branch == r.branch) {
			return t
		}
	}
	return pastTrouble{}
}

// result makes up how a spec went at an instant. The same chance makes the same result.
func (r pastRun) result(spec string, at time.Time, chance string) (run.Announcement, run.Outcome) {
	seed := fnv.New64a()
	_, _ = fmt.Fprint(seed, r.number, chance) // a hash takes everything
	random := rand.New(rand.NewPCG(historySeed, seed.Sum64()))
	area := strings.TrimSuffix(strings.TrimPrefix(spec, "cypress/e2e/"), ".cy.ts")
	var a run.Announcement
	o := run.Outcome{Duration: 3 * time.Second}
	for n, title := range pastTests {
		id := fmt.Sprint("r", n+2)
		a.Tests = append(a.Tests, run.Announced{ID: id, Title: []string{area, title},
			Body: "() => {\n  cy.visit('/" + area + "');\n}"})
		res := run.Result{ID: id, State: run.Passed}
		trouble := r.trouble(area, n)
		failing := r.failing(at) + trouble.failing
		try := func(state run.TestState, failure *run.Failure) {
			usual := 500 + 370*((len(area)+3*n)%9) // a test takes about as long each time
			took := int64(usual * (90 + random.IntN(20)) / 100 * (100 + trouble.slower) / 100)
			started := at.Add(o.Duration)
			res.Attempts = append(res.Attempts,
				run.Attempt{State: state, StartedAt: &started, Duration: took, Error: failure, VideoAt: o.Duration.Milliseconds()})
			o.Duration += time.Duration(took) * time.Millisecond
			if failure != nil {
				taken := at.Add(o.Duration)
				o.Video = true
				o.Screenshots = append(o.Screenshots,
					run.Screenshot{ID: fmt.Sprintf("%s-%d-past-%d", id, len(res.Attempts), pastError(failure)), TestID: id,
						Attempt: len(res.Attempts) - 1, TakenAt: &taken, Width: 1000, Height: 660})
			}
		}
		switch drawn := random.IntN(1000); {
		case drawn < failing:
			failure := r.failure(spec, n)
			try(run.Failed, failure)
			try(run.Failed, failure)
			res.State = run.Failed
		case drawn < failing+trouble.retried+r.project.flaky:
			try(run.Failed, r.failure(spec, n))
			try(run.Passed, nil)
		case n == 5 && r.number%3 == 0:
			res.State = run.Pending
		default:
			try(run.Passed, nil)
		}
		o.Results = append(o.Results, res)
	}
	return a, o
}

// failing is how many of 1,000 tests fail: twice in the month something is broken
// for a day, and branches fail more often than main.
func (r pastRun) failing(at time.Time) int {
	n := r.project.failing
	if r.branch != "main" {
		n *= 2
	}
	if day := at.Day(); day%13 == 0 {
		n *= 8
	}
	return n
}

// pastError is the number of an error of pastErrors, by which its picture is named.
func pastError(f *run.Failure) int {
	return slices.IndexFunc(pastErrors, func(e run.Failure) bool { return e.Message == f.Message })
}

// failure makes up why a test failed. The same test fails in the same way for a while.
func (r pastRun) failure(spec string, test int) *run.Failure {
	f := pastErrors[(len(spec)+test+r.at.YearDay()/9)%len(pastErrors)]
	line := 12 + 9*test
	f.Stack = fmt.Sprintf("%s: %s\n    at Context.eval (webpack:///./%s:%d:8)\n"+
		"    at getRet (cypress_runner.js:118942:20)", f.Name, f.Message, spec, line)
	f.Frame = &run.Frame{File: spec, Line: line, Column: 8,
		Text: fmt.Sprintf("  %d |     cy.findByRole('button', { name: 'Pay' }).click()\n> %d |     "+
			"cy.get('[data-test=\"order-number\"]')\n     |        ^\n  %d |   })", line-1, line, line+1)}
	return &f
}
