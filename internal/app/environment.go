package app

import (
	"strings"

	"github.com/alecthomas/kong"
)

// environment is the variables Main was given. The parser would read those of
// the process instead; so it is made to forget them, and to ask here.
type environment struct {
	values map[string]string
	flags  map[*kong.Value][]string // the variables of each flag
}

func newEnvironment(env []string) *environment {
	e := &environment{values: make(map[string]string, len(env)), flags: map[*kong.Value][]string{}}
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
		if flag, ok := node.(*kong.Flag); ok && len(flag.Tag.Envs) > 0 {
			e.flags[flag.Value] = flag.Tag.Envs
			flag.Help = kong.DefaultHelpValueFormatter(flag.Value)
			flag.Tag.Envs = nil
		}
		return next(nil)
	})
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
