package outbound

// Silent reports whether nothing has arrived on the open connection since the
// last answer.
func (l *Line) Silent() bool { return l.silent() }
