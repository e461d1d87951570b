package history

// RememberAll makes the explorer remember the total of each day, however small.
func (x *Explorer) RememberAll() *Explorer {
	x.all = true
	return x
}
