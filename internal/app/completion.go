package app

import (
	"fmt"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// The libraries that complete command lines of kong are years behind it, and read the
// environment of the process. What they would do is this file: the shells ask
// 'runbell complete' with the words so far.
var completionScripts = map[string]string{
	"bash": `_runbell() {
	local IFS=$'\n'
	COMPREPLY=($(runbell complete -- "${COMP_WORDS[@]:1:COMP_CWORD}"))
}
complete -o default -F _runbell runbell
`,
	"zsh": `#compdef runbell
_runbell() {
	local -a found
	found=(${(f)"$(runbell complete -- "${(@)words[2,CURRENT]}")"})
	if (( $#found )); then compadd -a found; else _files; fi
}
compdef _runbell runbell
`,
	"fish": `function __runbell
	set -l found (runbell complete -- (commandline -opc)[2..] (commandline -ct))
	if set -q found[1]
		printf '%s\n' $found
	else
		__fish_complete_path (commandline -ct)
	end
end
complete -c runbell -f -a '(__runbell)'
`,
}

type completionCmd struct {
	Shell string `arg:"" help:"bash, zsh or fish." enum:"bash,zsh,fish"`
}

func (completionCmd) Help() string {
	return `The directory of the binary must be in PATH: when you press Tab, the script runs the binary.

Examples:

    source <(runbell completion bash)                  # in ~/.bashrc
    source <(runbell completion zsh)                   # in ~/.zshrc, after compinit
    runbell completion fish > ~/.config/fish/completions/runbell.fish`
}

// Run prints the script of a shell.
func (c *completionCmd) Run(s *streams) error {
	_, err := fmt.Fprint(s.Out, completionScripts[c.Shell])
	return err
}

type completeCmd struct {
	Words []string `arg:"" optional:"" passthrough:""`
}

// Run lists what can follow, one in a line.
func (c *completeCmd) Run(k *kong.Context, s *streams) error {
	words := c.Words
	if len(words) > 0 && words[0] == "--" {
		words = words[1:]
	}
	for _, word := range following(k.Model.Node, words) {
		fmt.Fprintln(s.Out, word)
	}
	return nil
}

// following lists what the last of some words can become: commands, flags, or values of a
// flag. It lists nothing where any text can stand; shells offer files then.
func following(node *kong.Node, words []string) []string {
	if len(words) == 0 {
		words = []string{""}
	}
	before, last := words[:len(words)-1], words[len(words)-1]
	var open *kong.Flag // wants a value
	for _, word := range before {
		switch flag := flagOf(node, word); {
		case open != nil:
			open = nil
		case word == "--":
			return nil // options of Cypress
		case flag != nil && !flag.IsBool():
			open = flag
		default:
			if at := slices.IndexFunc(node.Children, func(n *kong.Node) bool { return n.Name == word }); at >= 0 {
				node = node.Children[at]
			}
		}
	}
	var all []string
	switch {
	case open != nil:
		all = open.EnumSlice()
	case strings.HasPrefix(last, "-"):
		for _, flags := range node.AllFlags(true) {
			for _, flag := range flags {
				all = append(all, "--"+flag.Name)
			}
		}
	default:
		for _, n := range node.Children {
			if !n.Hidden {
				all = append(all, n.Name)
			}
		}
		for _, arg := range node.Positional {
			all = append(all, arg.EnumSlice()...)
		}
	}
	return slices.DeleteFunc(all, func(word string) bool { return word == "" || !strings.HasPrefix(word, last) })
}

// flagOf is the flag that a word names, nil if it names none.
func flagOf(node *kong.Node, word string) *kong.Flag {
	for _, flags := range node.AllFlags(false) {
		for _, flag := range flags {
			if word == "--"+flag.Name || slices.Contains(flag.Aliases, strings.TrimPrefix(word, "--")) &&
				strings.HasPrefix(word, "--") {
				return flag
			}
		}
	}
	return nil
}
