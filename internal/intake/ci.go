package intake

import (
	"regexp"

	"github.com/go-json-experiment/json/jsontext"

	"runbell/internal/run"
)

// Limits on the parameters of a CI service: their number, and the bytes of a
// name and of a value.
const (
	maxParams     = 100
	maxParamName  = 100
	maxParamValue = 2048
)

// secretName matches CI variables that no reporter should send. If one does, they
// are dropped.
var secretName = regexp.MustCompile(`(?i)(token|secret|passw|credential|api_?key|private_?key)`)

// Params are the environment variables that say where a run came from, as
// [run.CI] keeps them. While they are decoded, those that look like secrets are
// left out, and so are objects, arrays and all after the first hundred.
type Params map[string]string

// UnmarshalJSONFrom takes an object or null.
func (p *Params) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	if d.PeekKind() != '{' {
		*p = nil
		return d.SkipValue()
	}
	*p = Params{}
	if _, err := d.ReadToken(); err != nil {
		return err
	}
	for d.PeekKind() != '}' {
		if err := p.readMember(d); err != nil {
			return err
		}
	}
	_, err := d.ReadToken()
	return err
}

func (p *Params) readMember(d *jsontext.Decoder) error {
	token, err := d.ReadToken()
	if err != nil {
		return err
	}
	name := token.String()
	if kind := d.PeekKind(); len(*p) == maxParams || len(name) > maxParamName || kind == '{' || kind == '[' ||
		kind == 'n' || secretName.MatchString(name) {
		return d.SkipValue()
	}
	if token, err = d.ReadToken(); err != nil {
		return err
	}
	// A number stays its own text: a build number may have more digits than a
	// float. GitLab's URL of the repository has a token in it.
	(*p)[Clean(name)] = run.Clip(Clean(run.WithoutCredentials(token.String())), maxParamValue)
	return nil
}
