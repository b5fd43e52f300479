package config_test

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/config"
)

// FuzzLoad loads anything without a panic, and what loads is printed as a file that loads to the same values.
func FuzzLoad(f *testing.F) {
	f.Add([]byte("listen: :0\nstorage: {retention: 1h30m, head: 1.5GiB}\nratio: 0.25\nworkers: 255\noffset: -3\ndebug: true\n"))
	f.Add([]byte("tenants: {a: {limit: 2B}}\nrules: [{name: r}]\nnames: &n [x, '$$', '${A:-b}']\ncustom: *n\n"))
	f.Add([]byte("auth: {user: a, password: ***}\nraw: [1, {a: b}]\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c := defaults()
		l := config.Loader{}
		if err := l.Load(bytes.NewReader(b), "f", &c); err != nil {
			require.NotEmpty(t, err.Error())
			return
		}
		c.Raw, c.Custom = defaults().Raw, defaults().Custom
		if c.Auth != nil {
			c.Auth.Password = "***"
		}
		var out bytes.Buffer
		require.NoError(t, config.Print(&out, &c))
		got := defaults()
		require.NoError(t, l.Load(bytes.NewReader(out.Bytes()), "f", &got), "printed:\n%s", &out)
		got.Custom = c.Custom
		var again bytes.Buffer
		require.NoError(t, config.Print(&again, &got))
		require.Equal(t, out.String(), again.String())
	})
}
