package app

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// usageError is a command line that makes no sense.
type usageError struct {
	err  error
	help string // the command whose help would help, and for what; "" if none would
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// usagef is for what the parser cannot know: values that exclude each other or
// have a form of their own.
func usagef(format string, args ...any) error {
	return &usageError{err: fmt.Errorf(format, args...)}
}

// misused explains an error of the parser: what was meant, and which help has it.
func misused(err error, args []string) *usageError {
	node, command := (*kong.Node)(nil), "runbell"
	if e, ok := errors.AsType[*kong.ParseError](err); ok && e.Context != nil {
		if node = e.Context.Selected(); node == nil {
			node = e.Context.Model.Node
		} else {
			command = node.FullPath()
		}
	}
	help := fmt.Sprintf("Run '%s --help' for its usage.", command)
	if node != nil && hasCommands(node) {
		help = fmt.Sprintf("Run '%s --help' for a list of commands.", command)
	}
	return &usageError{err: cypressHint(clearer(err, node), args), help: help}
}

// clearer says of a word that it is not a command, and of a missing flag which
// variable can set it.
func clearer(err error, node *kong.Node) error {
	text := err.Error()
	word, unexpected := strings.CutPrefix(text, "unexpected argument ")
	switch {
	case node == nil:
		return err
	case unexpected && hasCommands(node):
		word, instead, _ := strings.Cut(word, ", did you mean")
		text = fmt.Sprintf("%q is not a command", word)
		if instead != "" {
			text += ": did you mean" + instead
		}
		return errors.New(text)
	case strings.HasPrefix(text, "missing flags:"):
		for _, flags := range node.AllFlags(false) {
			for _, flag := range flags {
				if name := flag.Tag.Get("var"); name != "" {
					text = strings.Replace(text, flag.Summary(), flag.Summary()+" (or set "+name+")", 1)
				}
			}
		}
		return errors.New(text)
	default:
		return err
	}
}

func hasCommands(node *kong.Node) bool {
	return slices.ContainsFunc(node.Children, func(n *kong.Node) bool { return n.Type == kong.CommandNode })
}

// capitalized is a word at the start of a sentence. The names of things stay as they are.
var capitalized = regexp.MustCompile(`^(?:[A-Z][a-z]*)(?: |$)`)

// phrase gives an error the form that all errors of commands have: in lower case, and
// without a period at the end. Errors of the REST API are sentences.
func phrase(text string) string {
	text = strings.TrimSuffix(text, ".")
	if capitalized.MatchString(text) && !strings.HasPrefix(text, "Cypress ") && !strings.HasPrefix(text, "Runbell ") {
		text = strings.ToLower(text[:1]) + text[1:]
	}
	return text
}
