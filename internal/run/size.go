package run

import (
	"strconv"
	"strings"
)

// sizeUnits are the units that people write sizes in, the largest first.
var sizeUnits = []struct {
	name  string
	shift int
}{{"TiB", 40}, {"GiB", 30}, {"MiB", 20}, {"KiB", 10}, {"B", 0}}

// ParseSize reads a size such as 500MiB or 1.5 GiB. A number alone is bytes.
func ParseSize(text string) (int64, error) {
	number, shift := strings.TrimSpace(text), 0
	for _, u := range sizeUnits {
		if n, is := strings.CutSuffix(number, u.name); is {
			number, shift = strings.TrimSpace(n), u.shift
			break
		}
	}
	n, err := strconv.ParseFloat(number, 64)
	bytes := n * float64(int64(1)<<shift)
	if err != nil || !(bytes >= 0 && bytes <= MaxArtifactBytes) {
		return 0, Errorf(Invalid, "%q is not a size such as 500MiB or 2GiB.", Clip(text, 40))
	}
	return int64(bytes), nil
}

// FormatSize writes a size as ParseSize reads it, to one decimal place: 1.5 GiB.
func FormatSize(bytes int64) string {
	for _, u := range sizeUnits {
		if unit := int64(1) << u.shift; bytes >= unit {
			n := strconv.FormatFloat(float64(bytes)/float64(unit), 'f', 1, 64)
			return strings.TrimSuffix(n, ".0") + " " + u.name
		}
	}
	return "0 B"
}
