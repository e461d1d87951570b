package run

// Passed says that the spec has results, and that nothing in it failed or was left out
// because of a failure.
func (i Instance) Passed() bool { return !i.CompletedAt.IsZero() && i.Counts.Green() }

// TakeBack is the group after specs of it were taken from their machines, with what
// these had reported: they can be claimed again.
func (g Group) TakeBack(list []Instance) Group {
	for _, i := range list {
		g.Claimed--
		g.TakenBack++
		if i.CompletedAt.IsZero() {
			g.Counts.Announced -= i.Announced
			continue
		}
		g.Completed--
		g.Counts = g.Counts.Minus(i.Counts)
	}
	return g
}
