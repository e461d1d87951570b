package ui

import (
	"io/fs"
	"math"
	"path"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestTemplatesFitTheirPages executes every template with an empty page, so
// that what is absent may be absent, and with pages in which everything is set,
// so that every field a template names is looked up. Flags are tried both ways.
func TestTemplatesFitTheirPages(t *testing.T) {
	v := newViews()
	tested := []string{"layout.html", "parts.html", "history.html"}
	tested = append(tested, try(t, "home", v.home), try(t, "newproject", v.newProject), try(t, "start", v.start), try(t, "settings", v.settings), try(t, "feed", v.feed), try(t, "hooks", v.hooks), try(t, "hook", v.hook), try(t, "hookform", v.hookForm),
		try(t, "delivery", v.delivery), try(t, "replay", v.replay), try(t, "overview", v.overview),
		try(t, "problem", v.problem), try(t, "signin", v.signIn), try(t, "invite", v.invite), try(t, "account", v.account),
		try(t, "people", v.people), try(t, "keys", v.keys), try(t, "run", v.run), try(t, "specs", v.specs), try(t, "spec", v.spec),
		try(t, "docs", v.docs), try(t, "events", v.events),
		try(t, "insights", v.insights), try(t, "tests", v.tests), try(t, "test", v.test), try(t, "specfiles", v.specFiles),
		try(t, "errors", v.errors), try(t, "error", v.error))
	files, err := fs.ReadDir(assets, "templates")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !slices.Contains(tested, f.Name()) {
			t.Errorf("templates/%s belongs to no page", f.Name())
		}
	}
}

func try[P any](t *testing.T, name string, v view[P]) string {
	t.Helper()
	var empty P
	if _, err := v.render(empty); err != nil {
		t.Errorf("empty %s: %v", name, err)
	}
	for _, flags := range []bool{true, false} {
		var full P
		fill(reflect.ValueOf(&full).Elem(), flags)
		page, err := v.render(full)
		if err != nil {
			t.Errorf("full %s: %v", name, err)
		}
		if strings.Contains(string(page), "ZgotmplZ") {
			t.Errorf("%s puts a value where it may not stand", name)
		}
	}
	return path.Base(name) + ".html"
}

// fill sets everything in a value.
func fill(v reflect.Value, flags bool) {
	switch {
	case !v.CanSet():
	case v.Type() == reflect.TypeFor[time.Time]():
		v.Set(reflect.ValueOf(time.Unix(1e9, 0).UTC()))
	case v.Kind() == reflect.String:
		v.SetString("x")
	case v.Kind() == reflect.Bool:
		v.SetBool(flags)
	case v.CanInt():
		v.SetInt(2)
	case v.Kind() == reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), flags)
	case v.Kind() == reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(0), flags)
		fill(v.Index(1), flags)
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.Anonymous && !f.IsExported() {
				// Embedded: its exported fields can be set though it cannot.
				for n := range v.Field(i).NumField() {
					fill(v.Field(i).Field(n), flags)
				}
				continue
			}
			fill(v.Field(i), flags)
		}
	}
}

// TestContrast computes WCAG's contrast of every text color on every
// background, for both schemes.
func TestContrast(t *testing.T) {
	variables := regexp.MustCompile(`--([a-z-]+): light-dark\(#([0-9a-f]{6}), #([0-9a-f]{6})\);`).FindAllStringSubmatch(string(styleFile().content), -1)
	if len(variables) < 20 {
		t.Fatalf("the stylesheet has %d colors", len(variables))
	}
	for n, scheme := range []string{"light", "dark"} {
		colors := map[string]float64{"white": 1}
		for _, m := range variables {
			colors[m[1]] = luminance(t, m[2+n])
		}
		for _, fg := range []string{"text", "soft", "link", "pass", "fail", "flaky", "run", "warn", "idle"} {
			for _, bg := range []string{"page", "card", "code"} {
				a, b := colors[fg]+.05, colors[bg]+.05
				if ratio := max(a, b) / min(a, b); ratio < 4.5 {
					t.Errorf("%s on %s in the %s scheme has a contrast of %.2f", fg, bg, scheme, ratio)
				}
			}
		}
		if ratio := (colors["white"] + .05) / (colors["button"] + .05); ratio < 4.5 {
			t.Errorf("the text of buttons in the %s scheme has a contrast of %.2f", scheme, ratio)
		}
	}
}

func luminance(t *testing.T, hex string) float64 {
	t.Helper()
	var sum float64
	for i, weight := range []float64{.2126, .7152, .0722} {
		n, err := strconv.ParseUint(hex[2*i:2*i+2], 16, 8)
		if err != nil {
			t.Fatal(err)
		}
		c := float64(n) / 255
		if c <= .04045 {
			c /= 12.92
		} else {
			c = math.Pow((c+.055)/1.055, 2.4)
		}
		sum += weight * c
	}
	return sum
}
