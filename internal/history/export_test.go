package history

// RememberFrom makes the explorer remember the total of each day that has this many packed bytes.
func (x *Explorer) RememberFrom(bytes int) *Explorer {
	x.few = bytes
	return x
}
