package endpoint

import (
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"

	"runbell/internal/run"
	"runbell/internal/webhook"
)

// Limits of settings.
const (
	MaxURL     = 2048
	MaxLabel   = 255
	MaxFilters = 50  // of branches, and of tags
	maxFilter  = 255 // characters of each
)

// Settings are what may be set; nil stays as it is.
type Settings struct {
	Kind          *webhook.EndpointKind // of a new endpoint; it cannot change
	Payload       *webhook.Form
	URL           *string
	Headers       *map[string]string
	Events        *[]webhook.Kind
	Label         *string // "" is none
	Scope         *run.Scope
	Branches      *[]string
	Tags          *[]string
	Result        *webhook.Result
	MaxInFlight   *int
	RatePerMinute *int // 0 is no limit
	Ed25519       *bool
	Enabled       *bool
}

// Scopes lists the scopes of endpoints.
func Scopes() []run.Scope { return []run.Scope{run.GroupScope, run.RunScope} }

// checkKind refuses a kind that does not exist, or that nothing can be sent to yet.
func checkKind(k webhook.EndpointKind) error {
	switch {
	case k == webhook.PlainWebhook:
		return nil
	case slices.Contains(webhook.EndpointKinds(), k):
		return run.Errorf(run.Invalid, "kind %q is not available in this version: use %q.", k, webhook.PlainWebhook)
	default:
		return run.Errorf(run.Invalid, "kind must be %q, not %q.", webhook.PlainWebhook, run.Clip(string(k), 60))
	}
}

// apply changes e, except for whether it is enabled, or says which setting is
// wrong.
func (s *Service) apply(set Settings, e *webhook.Endpoint) error {
	if set.Kind != nil {
		if err := checkKind(*set.Kind); err != nil {
			return err
		}
		if *set.Kind != e.Kind {
			return run.Errorf(run.Invalid, "kind cannot be changed: create a new webhook.")
		}
	}
	if set.Payload != nil {
		if err := oneOf("payload", *set.Payload, webhook.Forms()); err != nil {
			return err
		}
		e.Payload = *set.Payload
	}
	if set.URL != nil {
		if err := s.checkURL(*set.URL); err != nil {
			return err
		}
		e.URL = *set.URL
	}
	if set.Headers != nil {
		if err := checkHeaders(*set.Headers); err != nil {
			return err
		}
		e.Headers = *set.Headers
	}
	if set.Events != nil {
		events, err := distinctEvents(*set.Events)
		if err != nil {
			return err
		}
		e.Events = events
	}
	if set.Label != nil {
		if *set.Label != "" {
			if err := checkText("label", *set.Label, 1, MaxLabel); err != nil {
				return err
			}
		}
		e.Label = *set.Label
	}
	if set.Scope != nil {
		if err := oneOf("scope", *set.Scope, Scopes()); err != nil {
			return err
		}
		e.Scope = *set.Scope
	}
	if err := set.applyFilters(&e.Filters); err != nil {
		return err
	}
	if err := set.applyLimits(e); err != nil {
		return err
	}
	if set.Ed25519 != nil {
		switch {
		case !*set.Ed25519:
			e.Private = ""
		case e.Private == "":
			e.Private = webhook.NewPrivateKey()
		}
	}
	return nil
}

func distinctEvents(kinds []webhook.Kind) ([]webhook.Kind, error) {
	events := []webhook.Kind{}
	for _, k := range kinds {
		if err := oneOf("hookEvents", k, webhook.AllKinds()); err != nil {
			return nil, err
		}
		if !slices.Contains(events, k) {
			events = append(events, k)
		}
	}
	return events, nil
}

func (set Settings) applyFilters(f *webhook.Filters) error {
	if set.Branches != nil {
		if err := checkFilters("filters.branches", *set.Branches); err != nil {
			return err
		}
		f.Branches = *set.Branches
	}
	if set.Tags != nil {
		if err := checkFilters("filters.tags", *set.Tags); err != nil {
			return err
		}
		f.Tags = *set.Tags
	}
	if set.Result != nil {
		if err := oneOf("filters.result", *set.Result, webhook.Results()); err != nil {
			return err
		}
		f.Result = *set.Result
	}
	return nil
}

func (set Settings) applyLimits(e *webhook.Endpoint) error {
	if set.MaxInFlight != nil {
		if n := *set.MaxInFlight; n < 1 || n > webhook.MaxInFlight {
			return run.Errorf(run.Invalid, "maxInFlight must be a number from 1 to %d.", webhook.MaxInFlight)
		}
		e.MaxInFlight = *set.MaxInFlight
	}
	if set.RatePerMinute != nil {
		if n := *set.RatePerMinute; n < 0 || n > webhook.MaxRate {
			return run.Errorf(run.Invalid, "ratePerMinute must be a number from 1 to %d, or null for no limit.", webhook.MaxRate)
		}
		e.RatePerMinute = *set.RatePerMinute
	}
	return nil
}

func (s *Service) checkURL(url string) error {
	if n := utf8.RuneCountInString(url); n == 0 || n > MaxURL {
		return run.Errorf(run.Invalid, "url must have 1 to %d characters.", MaxURL)
	}
	if err := s.check(url); err != nil {
		return run.Errorf(run.Invalid, "%s.", err)
	}
	if !printable(url) {
		return run.Errorf(run.Invalid, "url must not contain control characters: percent-encode them.")
	}
	return nil
}

func checkFilters(name string, filters []string) error {
	if len(filters) > MaxFilters {
		return run.Errorf(run.Invalid, "%s can have at most %d entries.", name, MaxFilters)
	}
	for _, f := range filters {
		if err := checkText("an entry of "+name, f, 1, maxFilter); err != nil {
			return err
		}
		if f == "!" {
			return run.Errorf(run.Invalid, "%s: a ! alone excludes nothing: write a pattern after it, such as !release/*.", name)
		}
	}
	return nil
}

func checkText(name, s string, shortest, longest int) error {
	if n := utf8.RuneCountInString(s); n < shortest || n > longest {
		return run.Errorf(run.Invalid, "%s must have %d to %d characters.", name, shortest, longest)
	}
	if !printable(s) {
		return run.Errorf(run.Invalid, "%s must not contain control characters.", name)
	}
	return nil
}

func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}

func oneOf[T ~string](name string, value T, allowed []T) error {
	if slices.Contains(allowed, value) {
		return nil
	}
	texts := make([]string, len(allowed))
	for i, a := range allowed {
		texts[i] = string(a)
	}
	last := len(texts) - 1
	return run.Errorf(run.Invalid, "%s must be %s or %s, not %q.", name, strings.Join(texts[:last], ", "), texts[last],
		run.Clip(string(value), 40))
}

// ourHeaders belong to the request that carries a webhook, or to the
// connection; everything that starts with ourPrefixes does too.
var (
	ourHeaders = []string{"content-type", "content-length", "content-encoding", "user-agent", "host", "x-timestamp",
		"transfer-encoding", "connection", "keep-alive", "proxy-connection", "te", "trailer", "upgrade", "expect",
		"accept-encoding"}
	ourPrefixes = []string{"webhook-", "x-runbell-"}
)

// checkHeaders says what is wrong with custom headers. Their values are secret:
// errors do not repeat them.
func checkHeaders(headers map[string]string) error {
	seen := map[string]bool{}
	for name, value := range headers {
		shown := run.Clip(name, 80)
		if !token(name) {
			return run.Errorf(run.Invalid, "headers: %q is not a valid header name: use letters, digits and dashes.", shown)
		}
		lower := strings.ToLower(name)
		if slices.Contains(ourHeaders, lower) ||
			slices.ContainsFunc(ourPrefixes, func(p string) bool { return strings.HasPrefix(lower, p) }) {
			return run.Errorf(run.Invalid,
				"headers: the server sets %s itself: remove it, or use another name.", shown)
		}
		if seen[lower] {
			return run.Errorf(run.Invalid, "headers: %s is listed twice: names must differ in more than case.",
				http.CanonicalHeaderKey(shown))
		}
		seen[lower] = true
		// Receivers disagree about what other bytes mean.
		if strings.ContainsFunc(value, func(c rune) bool { return c != '\t' && (c < ' ' || c > '~') }) {
			return run.Errorf(run.Invalid, "headers: the value of %s must be printable ASCII on one line.", shown)
		}
	}
	return nil
}

// token says that s is a token of HTTP, as names of headers are.
func token(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(c rune) bool {
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		return !letter && !strings.ContainsRune("!#$%&'*+-.^_`|~", c)
	})
}
