package stamp_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/braidobs/braid/ingest/stamp"
)

func TestReadIsThatOfTheStandardLibrary(t *testing.T) {
	var p stamp.Parser
	rapid.Check(t, func(t *rapid.T) {
		when := time.Unix(rapid.Int64Range(-9e9, 9e9).Draw(t, "sec"), rapid.Int64Range(0, 999999999).Draw(t, "ns"))
		when = when.In(time.FixedZone("", rapid.IntRange(-1439, 1439).Draw(t, "minutes east")*60))
		text := when.Format(time.RFC3339Nano)
		ns, n, ok := p.Read([]byte(text + " more"))
		require.True(t, ok)
		require.Equal(t, len(text), n)
		require.Equal(t, when.UnixNano(), ns)
	})
}

func TestReadRefuses(t *testing.T) {
	for _, in := range []string{
		"", "2026", "2026-01-31", "2026-01-31T14:05:05", "2026-01-31 14:05:05Z", "2026-13-31T14:05:05Z", "2026-01-32T14:05:05Z",
		"2026-01-31T24:05:05Z", "2026-01-31T14:60:05Z", "2026-01-31T14:05:61Z", "2026-01-31T14:05:05.Z", "2026-01-31T14:05:05.1",
		"2026-01-31T14:05:05.1234567890Z", "2026-01-31T14:05:05+0200", "2026-01-31T14:05:05+24:00", "20x6-01-31T14:05:05Z",
	} {
		var p stamp.Parser
		_, _, ok := p.Read([]byte(in))
		require.False(t, ok, in)
	}
	var p stamp.Parser
	ns, n, ok := p.Read([]byte("0001-01-01T00:00:00Z"))
	require.True(t, ok)
	require.Zero(t, ns, "outside of what nanoseconds can tell")
	require.Equal(t, 20, n)
}

func FuzzRead(f *testing.F) {
	f.Add([]byte("2026-01-31T14:05:05.123456789+02:00"))
	f.Add([]byte("2026-02-31T23:59:60Z x"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var p stamp.Parser
		ns, n, ok := p.Read(b)
		if !ok {
			return
		}
		text := string(b[:n])
		want, err := time.Parse(time.RFC3339Nano, text)
		if err != nil || ns == 0 { // the standard library knows no leap seconds and how many days a month has
			return
		}
		require.Equal(t, want.UnixNano(), ns, strings.ToValidUTF8(text, "?"))
	})
}
