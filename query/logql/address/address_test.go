package address_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/query/logql/address"
)

func TestSet(t *testing.T) {
	for _, tt := range []struct {
		set  string
		in   []string
		out  []string
		line []string // lines with such an address
		not  []string
	}{
		{
			"192.0.2.1",
			[]string{"192.0.2.1"},
			[]string{"192.0.2.2", "x", "", "::1", "192.0.2.1 "},
			[]string{"192.0.2.1", "from 192.0.2.1.", "(192.0.2.1)", "192.0.2.1:80"},
			[]string{"1192.0.2.1", "192.0.2.11", "192.0.2", "1.192.0.2.1"},
		},
		{"192.0.2.3-192.0.2.9", []string{"192.0.2.3", "192.0.2.9"}, []string{"192.0.2.2", "192.0.2.10"}, []string{"a 192.0.2.5 b"}, []string{"192.0.2.1"}},
		{"192.0.2.77/24", []string{"192.0.2.0", "192.0.2.255"}, []string{"192.0.3.0"}, []string{`"192.0.2.200"`}, []string{"192.0.3.1"}},
		{"2001:db8::/32", []string{"2001:db8::1", "2001:db8:ffff::"}, []string{"2001:db9::", "1.2.3.4"}, []string{"[2001:db8::5]:80", "to 2001:db8::5."}, []string{"2001:db9::5"}},
		{"::1-::8", []string{"::5"}, []string{"::9"}, []string{"at ::5 x"}, []string{"::9"}},
	} {
		s, err := address.Parse(tt.set)
		require.NoError(t, err, tt.set)
		for _, a := range tt.in {
			require.True(t, s.Contains(a), a)
		}
		for _, a := range tt.out {
			require.False(t, s.Contains(a), a)
		}
		for _, l := range tt.line {
			require.True(t, s.Within(l), l)
		}
		for _, l := range tt.not {
			require.False(t, s.Within(l), l)
		}
	}
	for _, bad := range []string{"", "x", "1.2.3", "1.2.3.4/33", "1.2.3.9-1.2.3.4", "1.2.3.4-::1"} {
		_, err := address.Parse(bad)
		require.Error(t, err, bad)
	}
}
