package app

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
)

// session is a command's connection to a server and to the person who asked.
type session struct {
	*client
	*streams
	json bool
}

// show prints data: as it is for machines, through human for people.
func (s *session) show(data json.RawMessage, human func(w io.Writer) error) error {
	var b bytes.Buffer
	if s.json {
		if len(data) == 0 {
			data = json.RawMessage("null")
		}
		b.Write(data)
		b.WriteByte('\n')
	} else if err := human(&b); err != nil {
		return err
	}
	_, err := s.Out.Write(b.Bytes())
	return err
}

// ask has a person say yes. Where nobody can be asked, --yes must have said it.
func (s *session) ask(question string) error {
	if !isTerminal(s.In) {
		return usagef("%s Nobody can be asked here: give --yes", printable(question))
	}
	fmt.Fprintf(s.Err, "%s [y/N] ", printable(question))
	line, _ := bufio.NewReader(s.In).ReadString('\n') // its end is an answer, too
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return nil
	default:
		return errors.New("nothing was done")
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

// when shortens a time of the API to what people compare.
func when(t *time.Time) string {
	if t == nil || t.IsZero() {
		return ""
	}
	return t.Local().Format("2006-01-02 15:04:05")
}

// seconds prints a number of seconds as a duration.
func seconds(n int64) string {
	s := (time.Duration(n) * time.Second).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// wholeSeconds checks a duration flag that the API takes in seconds.
func wholeSeconds(flag string, d time.Duration) (int64, error) {
	if d < 0 || d%time.Second != 0 {
		return 0, usagef("%s must be whole seconds, such as 90s or 30m, not %s", flag, d)
	}
	return int64(d / time.Second), nil
}
