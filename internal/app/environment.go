package app

import (
	"strings"

	"github.com/alecthomas/kong"
)

// environment is the variables Main was given. The parser would read those of
// the process instead; so it is made to forget them, and to ask here.
type environment struct {
	list   []string // as they were given
	values map[string]string
	flags  map[*kong.Value][]string // the variables of each flag
}

func newEnvironment(env []string) *environment {
	e := &environment{list: env, values: make(map[string]string, len(env)), flags: map[*kong.Value][]string{}}
	for _, entry := range env {
		if name, value, ok := strings.Cut(entry, "="); ok {
			e.values[name] = value
		}
	}
	return e
}

// claim takes the variables away from the parser. The help text keeps them.
func (e *environment) claim(k *kong.Kong) error {
	return kong.Visit(k.Model, func(node kong.Visitable, next kong.Next) error {
		if flag, ok := node.(*kong.Flag); ok {
			e.flags[flag.Value] = flag.Tag.Envs
			flag.Help = helpOf(flag)
			flag.Tag.Envs = nil
		}
		return next(nil)
	})
}

// helpOf says what a flag is for, and what it is unless it is given.
func helpOf(flag *kong.Flag) string {
	var notes []string
	// Without a placeholder, the usage has the default in its place.
	if flag.PlaceHolder != "" && flag.Default != "" {
		notes = append(notes, "default "+flag.Default)
	}
	for _, name := range flag.Tag.Envs {
		notes = append(notes, "$"+name)
	}
	if len(notes) == 0 {
		return flag.Help
	}
	return strings.TrimSuffix(flag.Help, ".") + " (" + strings.Join(notes, "; ") + ")."
}

// resolve finds the value of a flag that was not given. An empty variable
// counts as none: that is how people switch one off.
func (e *environment) resolve(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	for _, name := range e.flags[flag.Value] {
		if value := e.values[name]; value != "" {
			return value, nil
		}
	}
	return nil, nil
}
