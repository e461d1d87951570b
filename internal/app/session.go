package app

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/alecthomas/kong"

	"runbell/internal/client"
)

// remote is the flags of all commands that talk to a server.
type remote struct {
	Server string `help:"URL of the server." var:"RUNBELL_URL" default:"http://localhost:8484" placeholder:"URL"`
	APIKey string `help:"API key. Prefer the variable: others can see the command line." aliases:"key" var:"RUNBELL_API_KEY" secret:"" placeholder:"KEY"`
	JSON   bool   `name:"json" help:"Print the JSON of the API."`
}

// AfterApply makes a session of the flags, for the command to use.
func (r *remote) AfterApply(k *kong.Context, s *streams) error {
	c, err := dial(r.Server, r.APIKey)
	if err != nil {
		return err
	}
	k.Bind(&session{Client: c, streams: s, json: r.JSON})
	return nil
}

// dial makes a client of the values of flags.
func dial(server, key string) (*client.Client, error) {
	c, err := client.New(server, key)
	if err != nil {
		return nil, usagef("%w (RUNBELL_URL)", err)
	}
	return c, nil
}

// session is a command's connection to a server, and to the person at the terminal.
type session struct {
	*client.Client
	*streams
	json bool
}

// hint adds to an error of the client what to do about it.
func hint(err error) error {
	if e, ok := errors.AsType[*client.Unreachable](err); ok && e.Refused {
		return fmt.Errorf("%w: is 'runbell serve' running there? (RUNBELL_URL says where to look)", err)
	}
	if e, ok := errors.AsType[*client.Error](err); ok && e.Status == http.StatusUnauthorized {
		return fmt.Errorf("%w: set RUNBELL_API_KEY to a valid key, such as the RUNBELL_API_KEY that "+
			"'runbell serve' was started with", err)
	}
	return err
}

// busyPort says what to do if another program has the port that a command listens on.
func busyPort(err error, flag string) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%w: another program has this port, so choose another one with %s", err, flag)
	}
	return err
}

// show prints a response: as it is for machines, through human for people.
func show[T any](s *session, r client.Result[T], human func(io.Writer, T) error) error {
	if s.json {
		return s.printJSON(r.JSON)
	}
	var b bytes.Buffer
	if err := human(&b, r.Value); err != nil {
		return err
	}
	_, err := s.Out.Write(b.Bytes())
	return err
}

func (s *session) printJSON(data json.RawMessage) error {
	_, err := s.Out.Write(append(data[:len(data):len(data)], '\n'))
	return err
}

// printValue prints something as JSON that is not an answer as it came.
func (s *session) printValue(v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return s.printJSON(data)
}

// ask asks a person to confirm. Without a terminal, --yes must confirm.
func (s *session) ask(question string) error {
	if !isTerminal(s.In) {
		return usagef("cannot ask without a terminal (%s): use --yes", printable(question))
	}
	fmt.Fprintf(s.Err, "%s [y/N] ", printable(question))
	line, _ := bufio.NewReader(s.In).ReadString('\n') // its end is an answer, too
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return nil
	default:
		return errors.New("canceled: nothing was done")
	}
}

// table aligns rows under a header; without rows it says none instead.
func table(w io.Writer, none string, header []string, rows [][]string) error {
	if len(rows) == 0 {
		_, err := fmt.Fprintln(w, none)
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range append([][]string{header}, rows...) {
		for i := range row {
			row[i] = printable(row[i])
		}
		fmt.Fprintln(t, strings.Join(row, "\t"))
	}
	return t.Flush()
}

// fields prints names and values below each other. Empty values are left out.
func fields(w io.Writer, pairs ...string) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			fmt.Fprintf(t, "%s\t%s\n", pairs[i], printable(pairs[i+1]))
		}
	}
	return t.Flush()
}

// printable keeps what others wrote (build ids, labels, errors) from moving the
// cursor of this terminal or breaking its lines.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '\uFFFD'
	}, s)
}

// when shortens a time of the API for people.
func when(t *time.Time) string {
	if t == nil || t.IsZero() {
		return ""
	}
	return t.Local().Format("2006-01-02 15:04:05")
}

// duration prints how long something took or may take: 320ms, 4.2s, 1m 19s, 2h 5m.
func duration(d time.Duration) string {
	switch {
	case d < time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	case d < 10*time.Second && d%time.Second != 0:
		return fmt.Sprintf("%.1fs", d.Truncate(100*time.Millisecond).Seconds())
	}
	var parts []string
	for _, u := range []struct {
		size time.Duration
		name string
	}{{time.Hour, "h"}, {time.Minute, "m"}, {time.Second, "s"}} {
		if n := d / u.size; n > 0 && len(parts) < 2 {
			parts = append(parts, fmt.Sprintf("%d%s", n, u.name))
		}
		d %= u.size
	}
	return strings.Join(parts, " ")
}

func milliseconds(ms int64) string { return duration(time.Duration(ms) * time.Millisecond) }

// seconds prints a setting: 0s, 1m 30s, 30m.
func seconds(n int64) string {
	if n == 0 {
		return "0s"
	}
	return duration(time.Duration(n) * time.Second)
}

// wholeSeconds checks a duration flag that the API takes in seconds.
func wholeSeconds(flag string, d time.Duration) (int64, error) {
	if d < 0 || d%time.Second != 0 {
		return 0, usagef("%s must be whole seconds, such as 90s or 30m, not %s", flag, d)
	}
	return int64(d / time.Second), nil
}

func orEmpty(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
