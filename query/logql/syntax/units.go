package syntax

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"time"
)

var errDuration = errors.New("not a duration")

// unitOf returns how many nanoseconds a unit of time has.
func unitOf(name string) (float64, bool) {
	switch name {
	case "ns":
		return 1, true
	case "us", "µs", "μs":
		return 1e3, true
	case "ms":
		return 1e6, true
	case "s":
		return 1e9, true
	case "m":
		return 60e9, true
	case "h":
		return 3600e9, true
	case "d":
		return 24 * 3600e9, true
	case "w":
		return 7 * 24 * 3600e9, true
	case "y":
		return 365 * 24 * 3600e9, true
	default:
		return 0, false
	}
}

// ParseDuration reads a duration as queries write it: numbers with units from ns to y, such as 1h30m or 1.5d.
func ParseDuration(s string) (time.Duration, error) {
	if d, err := time.ParseDuration(s); err == nil {
		return d, nil
	}
	total := 0.0
	if s == "" {
		return 0, errDuration
	}
	for s != "" {
		n := 0
		for n < len(s) && (digit(s[n]) || s[n] == '.') {
			n++
		}
		v, err := strconv.ParseFloat(s[:n], 64)
		if err != nil {
			return 0, errDuration
		}
		s = s[n:]
		for n = 0; n < len(s) && !digit(s[n]) && s[n] != '.'; n++ {
		}
		unit, ok := unitOf(s[:n])
		if !ok {
			return 0, errDuration
		}
		total += v * unit
		s = s[n:]
	}
	if total > math.MaxInt64/2 {
		return 0, errDuration
	}
	return time.Duration(total), nil
}

// FormatDuration writes a duration as ParseDuration reads it, short.
func FormatDuration(d time.Duration) string {
	if d == 0 {
		return "0s"
	}
	var b strings.Builder
	n := uint64(d)
	if d < 0 {
		b.WriteByte('-')
		n = -n
	}
	for _, u := range []struct {
		size uint64
		name string
	}{
		{uint64(24 * time.Hour), "d"},
		{uint64(time.Hour), "h"},
		{uint64(time.Minute), "m"},
		{uint64(time.Second), "s"},
		{uint64(time.Millisecond), "ms"},
		{uint64(time.Microsecond), "us"},
		{1, "ns"},
	} {
		if k := n / u.size; k > 0 {
			b.WriteString(strconv.FormatUint(k, 10))
			b.WriteString(u.name)
			n -= k * u.size
		}
	}
	return b.String()
}
