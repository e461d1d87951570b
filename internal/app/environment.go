package app

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/alecthomas/kong"
)

// environment is the variables that Main was given.
//
// A flag names its variable in the tag var. The parser's own tag, env, reads the
// variables of the process, and takes an empty one for a value: people set a
// variable to nothing to switch it off. The tag secret allows a second variable,
// with _FILE at the end, that names a file with the value.
type environment struct {
	list   []string // as they were given
	values map[string]string
}

func newEnvironment(env []string) *environment {
	e := &environment{list: env, values: make(map[string]string, len(env))}
	for _, entry := range env {
		if name, value, ok := strings.Cut(entry, "="); ok {
			e.values[name] = value
		}
	}
	return e
}

// resolve finds the value of a flag that is not on the command line.
func (e *environment) resolve(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	name := flag.Tag.Get("var")
	value := e.values[name]
	if path := e.values[name+"_FILE"]; path != "" && flag.Tag.Has("secret") {
		if value != "" {
			return nil, fmt.Errorf("%s and %[1]s_FILE are both set: unset one", name)
		}
		secret, err := readSecret(path)
		if err != nil {
			return nil, fmt.Errorf("%s_FILE: %w", name, err)
		}
		value = secret
	}
	if value == "" {
		return nil, nil
	}
	return value, nil
}

// maxSecret is more than any secret needs, in bytes.
const maxSecret = 64 << 10

// readSecret is the content of a file without the line break that editors add.
func readSecret(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	switch secret := strings.TrimRight(string(b), "\r\n"); {
	case err != nil:
		return "", err
	case len(b) > maxSecret:
		return "", fmt.Errorf("%s is larger than 64 KiB", path)
	case secret == "":
		return "", errors.New(path + " is empty")
	default:
		return secret, nil
	}
}

// help says what a flag is for, its default and its variable.
func help(value *kong.Value) string {
	var notes []string
	// Without a placeholder, the usage shows the default in its place.
	if value.Flag != nil && value.Flag.PlaceHolder != "" && value.Default != "" {
		notes = append(notes, "default "+value.Default)
	}
	if name := value.Tag.Get("var"); name != "" {
		if value.Tag.Has("secret") {
			name += "[_FILE]"
		}
		notes = append(notes, "$"+name)
	}
	if len(notes) == 0 {
		return value.Help
	}
	return strings.TrimSuffix(value.Help, ".") + " (" + strings.Join(notes, "; ") + ")."
}
