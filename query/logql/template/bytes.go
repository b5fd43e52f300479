package template

import (
	"errors"
	"math"
	"strconv"
	"strings"
)

var errBytes = errors.New("not a number of bytes")

// Bytes reads a number of bytes with or without a unit: 20, 5 MiB, 1.5kB, 3k. Units are not case-sensitive; those with
// an i are powers of 1024, the others of 1000.
func Bytes(s string) (float64, error) {
	n := 0
	for n < len(s) && (s[n] >= '0' && s[n] <= '9' || s[n] == '.' || s[n] == ',') {
		n++
	}
	v, err := strconv.ParseFloat(strings.ReplaceAll(s[:n], ",", ""), 64)
	if err != nil {
		return 0, errBytes
	}
	unit := strings.ToLower(strings.TrimSpace(s[n:]))
	if unit == "" || unit == "b" {
		return math.Trunc(v), nil
	}
	power := strings.IndexByte("kmgtpe", unit[0]) + 1
	if power == 0 {
		return 0, errBytes
	}
	base := 1000.0
	switch unit[1:] {
	case "", "b":
	case "i", "ib":
		base = 1024
	default:
		return 0, errBytes
	}
	v *= math.Pow(base, float64(power))
	if v >= math.MaxUint64 {
		return 0, errBytes
	}
	return math.Trunc(v), nil
}
