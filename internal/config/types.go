package config

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"
)

// Duration is a length of time, never negative, in the syntax of Prometheus: 30d, 1h30m, 500ms. Go's own syntax
// is read as well.
type Duration time.Duration

// ParseDuration reads a Duration.
func ParseDuration(s string) (Duration, error) {
	if d, err := model.ParseDuration(s); err == nil {
		return Duration(d), nil
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("%q is not a duration such as 30d, 1h30m or 500ms", s)
	}
	if d < 0 {
		return 0, fmt.Errorf("%q is negative", s)
	}
	return Duration(d), nil
}

// Std returns d as the standard library's type.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// String returns d in the syntax that ParseDuration reads, in units from days to milliseconds.
func (d Duration) String() string {
	if d == 0 {
		return "0s"
	}
	if d < 0 || time.Duration(d)%time.Millisecond != 0 {
		return time.Duration(d).String()
	}
	var b strings.Builder
	rest := time.Duration(d)
	for _, u := range []struct {
		name string
		size time.Duration
	}{{"d", 24 * time.Hour}, {"h", time.Hour}, {"m", time.Minute}, {"s", time.Second}, {"ms", time.Millisecond}} {
		if rest >= u.size {
			b.WriteString(strconv.FormatInt(int64(rest/u.size), 10) + u.name)
			rest %= u.size
		}
	}
	return b.String()
}

// MarshalText returns String.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText is ParseDuration.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := ParseDuration(string(b))
	if err == nil {
		*d = v
	}
	return err
}

// Size is a number of bytes, never negative: 64MiB, 1.5GB, 512. Units with an i are powers of 1024, those without
// powers of 1000; case does not matter.
type Size int64

func sizeUnits() []struct {
	name string
	size int64
} {
	return []struct {
		name string
		size int64
	}{
		{"PiB", 1 << 50},
		{"TiB", 1 << 40},
		{"GiB", 1 << 30},
		{"MiB", 1 << 20},
		{"KiB", 1 << 10},
		{"PB", 1e15},
		{"TB", 1e12},
		{"GB", 1e9},
		{"MB", 1e6},
		{"kB", 1e3},
		{"B", 1},
	}
}

// ParseSize reads a Size. A fraction of a byte is cut off.
func ParseSize(s string) (Size, error) {
	bad := fmt.Errorf("%q is not a size such as 64MiB, 1.5GB or 512", s)
	num, unit := strings.TrimSpace(s), int64(1)
	for _, u := range sizeUnits() {
		if n := len(num) - len(u.name); n > 0 && strings.EqualFold(num[n:], u.name) {
			num, unit = strings.TrimSpace(num[:n]), u.size
			break
		}
	}
	whole, frac, _ := strings.Cut(num, ".")
	w, err := strconv.ParseUint(whole, 10, 63)
	if err != nil {
		if errors.Is(err, strconv.ErrRange) {
			return 0, fmt.Errorf("%q is too large", s)
		}
		return 0, bad
	}
	if w > uint64(math.MaxInt64/unit) {
		return 0, fmt.Errorf("%q is too large", s)
	}
	out := int64(w) * unit
	if strings.Contains(num, ".") {
		if len(frac) == 0 || len(frac) > 9 {
			return 0, bad
		}
		f, err := strconv.ParseUint(frac, 10, 63)
		if err != nil {
			return 0, bad
		}
		extra := int64(float64(f) / math.Pow10(len(frac)) * float64(unit))
		if extra > math.MaxInt64-out {
			return 0, fmt.Errorf("%q is too large", s)
		}
		out += extra
	}
	return Size(out), nil
}

// Bytes returns the number of bytes.
func (s Size) Bytes() int64 { return int64(s) }

// String returns s exactly, in the largest unit that divides it.
func (s Size) String() string {
	for _, u := range sizeUnits() {
		if s != 0 && int64(s)%u.size == 0 {
			return strconv.FormatInt(int64(s)/u.size, 10) + u.name
		}
	}
	return "0B"
}

// MarshalText returns String.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText is ParseSize.
func (s *Size) UnmarshalText(b []byte) error {
	v, err := ParseSize(string(b))
	if err == nil {
		*s = v
	}
	return err
}

// Secret is text that is not shown: every way of printing or marshaling it gives ***, or nothing when it is
// empty. A struct that holds one must hold it in an exported field, or fmt prints past the type.
type Secret string

// Reveal returns the text. Do not print it.
func (s Secret) Reveal() string { return string(s) }

// String returns ***.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return "***"
}

// Format prints *** for every verb.
func (s Secret) Format(w fmt.State, _ rune) { _, _ = io.WriteString(w, s.String()) }

// MarshalText returns ***.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LogValue returns ***.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// UnmarshalText keeps the text.
func (s *Secret) UnmarshalText(b []byte) error {
	*s = Secret(b)
	return nil
}

// Addr is an address to listen on: host:port, where the host may be empty (all interfaces) and the port may be 0
// (any free one).
type Addr string

// ParseAddr reads an Addr.
func ParseAddr(s string) (Addr, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return "", fmt.Errorf("%q is not an address such as 127.0.0.1:9090 or :9090", s)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "", fmt.Errorf("%q has no port from 0 to 65535", s)
	}
	if strings.ContainsAny(host, " /\t\n\"'") {
		return "", fmt.Errorf("%q has a host that is no name and no IP address", s)
	}
	return Addr(s), nil
}

// String returns the address.
func (a Addr) String() string { return string(a) }

// Loopback says whether only this machine can reach the address. It does not look names up: the only name that is
// known is localhost.
func (a Addr) Loopback() bool {
	host, _, err := net.SplitHostPort(string(a))
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || (err == nil && ip.IsLoopback())
}

// MarshalText returns the address.
func (a Addr) MarshalText() ([]byte, error) { return []byte(a), nil }

// UnmarshalText is ParseAddr; empty text is the empty address, which is for switching a listener off.
func (a *Addr) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*a = ""
		return nil
	}
	v, err := ParseAddr(string(b))
	if err == nil {
		*a = v
	}
	return err
}
