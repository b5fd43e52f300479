package config_test

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/braidobs/braid/internal/config"
)

func TestParseDuration(t *testing.T) {
	tests := []struct {
		in   string
		want time.Duration
		text string // how it prints; empty for an error
	}{
		{"30d", 720 * time.Hour, "30d"},
		{"1w", 168 * time.Hour, "7d"},
		{"1h30m", 90 * time.Minute, "1h30m"},
		{"1.5h", 90 * time.Minute, "1h30m"},
		{"500ms", 500 * time.Millisecond, "500ms"},
		{"10us", 10 * time.Microsecond, "10µs"},
		{"0", 0, "0s"},
		{"-1s", 0, ""},
		{"", 0, ""},
		{"5", 0, ""},
		{"9999999y", 0, ""},
	}
	for _, tt := range tests {
		t.Run(tt.in, func(t *testing.T) {
			got, err := config.ParseDuration(tt.in)
			if tt.text == "" {
				require.Error(t, err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, tt.want, got.Std())
			require.Equal(t, tt.text, got.String())
		})
	}
}

func TestParseSize(t *testing.T) {
	tests := []struct {
		in   string
		want int64
		text string // how it prints; empty for an error
	}{
		{"64MiB", 64 << 20, "64MiB"},
		{"64 mib", 64 << 20, "64MiB"},
		{"1GB", 1e9, "1GB"},
		{"1.5KiB", 1536, "1536B"},
		{"512", 512, "512B"},
		{"0", 0, "0B"},
		{"8191PiB", 8191 << 50, "8191PiB"},
		{"8192PiB", 0, ""},
		{"9223372036854775807", math.MaxInt64, "9223372036854775807B"},
		{"9223372036854775808", 0, ""},
		{"8191.9999999PiB", 9223372034661419000, "*"},
		{"-1", 0, ""},
		{"+1", 0, ""},
		{"1.", 0, ""},
		{".5GB", 0, ""},
		{"1.-5GB", 0, ""},
		{"GB", 0, ""},
		{"", 0, ""},
		{"1e3", 0, ""},
		{"1 x", 0, ""},
	}
	for _, tt := range tests {
		t.Run(tt.in, func(t *testing.T) {
			got, err := config.ParseSize(tt.in)
			switch tt.text {
			case "":
				require.Error(t, err)
				return
			case "*":
				require.NoError(t, err)
				require.Positive(t, got.Bytes())
				return
			}
			require.NoError(t, err)
			require.Equal(t, tt.want, got.Bytes())
			require.Equal(t, tt.text, got.String())
		})
	}
}

func TestPrintedValuesReadBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := config.Size(rapid.Int64Min(0).Draw(t, "size"))
		gotS, err := config.ParseSize(s.String())
		require.NoError(t, err)
		require.Equal(t, s, gotS)
		d := config.Duration(rapid.Int64Min(0).Draw(t, "duration"))
		if rapid.Bool().Draw(t, "round") {
			d -= d % config.Duration(time.Millisecond)
		}
		gotD, err := config.ParseDuration(d.String())
		require.NoError(t, err)
		require.Equal(t, d, gotD)
	})
}

func TestAddr(t *testing.T) {
	tests := []struct {
		in       string
		ok       bool
		loopback bool
	}{
		{":9090", true, false},
		{"127.0.0.1:0", true, true},
		{"[::1]:4317", true, true},
		{"localhost:1", true, true},
		{"0.0.0.0:80", true, false},
		{"braid.example.org:443", true, false},
		{"", true, false},
		{"9090", false, false},
		{"a b:1", false, false},
		{"host:http", false, false},
		{"host:65536", false, false},
		{"http://host:1", false, false},
	}
	for _, tt := range tests {
		t.Run(tt.in, func(t *testing.T) {
			var a config.Addr
			err := a.UnmarshalText([]byte(tt.in))
			require.Equal(t, tt.ok, err == nil, "%v", err)
			require.Equal(t, tt.loopback, a.Loopback())
		})
	}
}
