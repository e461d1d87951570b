package ui

import (
	"fmt"
	"math"
	"strings"
	"time"

	"runbell/internal/history"
)

// The size of a chart in its own units. Browsers stretch it to the available space.
const (
	chartWidth  = 1000
	chartHeight = 160
)

// chart draws numbers over time, as lines or as stacked bars. It also has them as a table.
type chart struct {
	ID, Title string
	Series    []chartSeries
	Steps     []chartStep
	Scale     []string // at the top, in the middle, at the bottom
	Ends      []string // the first, the middle and the last step
	Empty     bool     // there is no number at all
}

// chartSeries is the numbers of one kind, drawn as paths.
type chartSeries struct {
	Name, Class      string
	Line, Area, Dots string
	Bars             string
}

// chartStep is a step of time with its numbers: a place to point at, and a row of the
// table.
type chartStep struct {
	X, W             int
	Label, Text, URL string
	Cells            []string
}

// plot is what a chart is made from.
type plot struct {
	id, title string
	steps     []plotStep
	series    []plotSeries
	stacked   bool
	// write writes a number, and top is the end of the scale for the largest of them.
	write func(float64) string
	top   func(float64) float64
}

type plotStep struct{ label, url string }

// plotSeries has a value for each step; NaN where there is none.
type plotSeries struct {
	name, class string
	values      []float64
}

func (p plot) draw() chart {
	c := chart{ID: p.id, Title: p.title, Empty: true}
	most := 0.0
	for n, step := range p.steps {
		from, to := chartWidth*n/len(p.steps), chartWidth*(n+1)/len(p.steps)
		s := chartStep{X: from, W: to - from, Label: step.label, Text: step.label, URL: step.url}
		sum := 0.0
		for i, series := range p.series {
			v, text := series.values[n], "–"
			if !math.IsNaN(v) {
				c.Empty = c.Empty && p.stacked && v == 0
				text, sum = p.write(v), sum+v
				most = max(most, v)
			}
			s.Cells = append(s.Cells, text)
			s.Text += map[bool]string{true: ": ", false: ", "}[i == 0] + text + " " + strings.ToLower(series.name)
		}
		if p.stacked {
			most = max(most, sum)
		}
		c.Steps = append(c.Steps, s)
	}
	if c.Empty {
		return c
	}
	top := p.top(most)
	c.Scale = []string{p.write(top), p.write(top / 2), p.write(0)}
	c.Ends = []string{p.steps[0].label, p.steps[len(p.steps)/2].label, p.steps[len(p.steps)-1].label}
	if len(p.steps) < 3 {
		c.Ends = []string{p.steps[0].label, p.steps[len(p.steps)-1].label}
	}
	if len(p.steps) == 1 {
		c.Ends = c.Ends[:1]
	}
	below := make([]float64, len(p.steps))
	for _, series := range p.series {
		s := chartSeries{Name: series.name, Class: series.class}
		if p.stacked {
			s.Bars = barsOf(series.values, below, top)
		} else {
			s.Line, s.Area, s.Dots = lineOf(series.values, top)
		}
		c.Series = append(c.Series, s)
	}
	return c
}

// lineOf connects the values that are known.
func lineOf(values []float64, top float64) (path, area, dots string) {
	var b, d strings.Builder
	first, last := -1, -1
	for n, v := range values {
		if math.IsNaN(v) {
			continue
		}
		x, y := chartWidth*(2*n+1)/(2*len(values)), height(v, top)
		command := 'L'
		if first < 0 {
			first, command = x, 'M'
		}
		last = x
		fmt.Fprintf(&b, "%c%d %d", command, x, y)
		fmt.Fprintf(&d, "M%d %dh0", x, y)
	}
	if first < 0 {
		return "", "", ""
	}
	return b.String(), fmt.Sprintf("%sL%d %dL%d %dz", b.String(), last, chartHeight, first, chartHeight), d.String()
}

// barsOf puts values on top of what is below them, and adds them to it.
func barsOf(values, below []float64, top float64) string {
	var b strings.Builder
	for n, v := range values {
		if math.IsNaN(v) || v == 0 {
			continue
		}
		from, to := chartWidth*n/len(values), chartWidth*(n+1)/len(values)
		gap := max(1, (to-from)/6)
		low, high := height(below[n], top), height(below[n]+v, top)
		below[n] += v
		fmt.Fprintf(&b, "M%d %dh%dV%dh-%dz", from+gap, low, to-from-2*gap, high, to-from-2*gap)
	}
	return b.String()
}

func height(v, top float64) int {
	const margin = 3 // so that a line at the top is seen as a whole
	return chartHeight - int(math.Round(v/top*(chartHeight-margin)))
}

// Scales.

// wholeTop ends a scale of counts at a round number whose half is whole.
func wholeTop(most float64) float64 { return niceTop(most, 2) }

func niceTop(most, unit float64) float64 {
	for ; ; unit *= 10 {
		for _, f := range []float64{1, 2, 3, 4, 5} {
			if unit*f >= most {
				return unit * f
			}
		}
	}
}

// wholeShare is the scale of rates near 1, where the distance to 1 matters.
func wholeShare(float64) float64 { return 1 }

// smallShare is the scale of rates near 0.
func smallShare(most float64) float64 { return min(1, niceTop(most, 0.002)) }

// spanTop ends a scale of durations in seconds.
func spanTop(most float64) float64 {
	for _, top := range []float64{.02, .04, .1, .2, .4, 1, 2, 4, 6, 10, 20, 40, 60, 120, 240, 360, 600, 1200, 2400, 3600,
		2 * 3600, 4 * 3600, 8 * 3600, 24 * 3600} {
		if top >= most {
			return top
		}
	}
	return math.Ceil(most/(48*3600)) * 48 * 3600
}

func writeCount(v float64) string { return number(int(math.Round(v))) }

func writeSpan(seconds float64) string {
	if seconds == 0 {
		return "0" // of any unit
	}
	return span(time.Duration(math.Round(seconds*1000)) * time.Millisecond)
}

// rateOf is a share, NaN where there is nothing to divide by.
func rateOf(part, all int) float64 {
	if all == 0 {
		return math.NaN()
	}
	return float64(part) / float64(all)
}

// known is NaN where ok is false.
func known(v float64, ok bool) float64 {
	if !ok {
		return math.NaN()
	}
	return v
}

// resolution is the step of charts of a period.
func (s *scope) resolution() history.Resolution {
	switch days := int(s.filter.Until.Sub(s.filter.Since) / (24 * time.Hour)); {
	case days <= 2:
		return history.Hourly
	case days <= 120:
		return history.Daily
	default:
		return history.Weekly
	}
}

// step names a step of a chart, and links to its runs.
func (s *scope) step(at time.Time, by history.Resolution) plotStep {
	from, to, label := at, at, at.Format("2 Jan")
	switch by {
	case history.Hourly:
		label = at.Format("2 Jan 15:04")
	case history.Weekly:
		to, label = at.AddDate(0, 0, 6), "week of "+label
	case history.Daily:
		label = at.Format("Mon 2 Jan")
	}
	pairs := []string{"days", "", "from", from.Format(time.DateOnly), "to", to.Format(time.DateOnly), "group", ""}
	return plotStep{label, s.at("", pairs...)}
}
