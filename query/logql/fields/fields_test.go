package fields_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/query/logql/fields"
)

func pairs(line string) (string, error) {
	var b strings.Builder
	err := fields.JSON(line, func(name []byte, value string) error {
		fmt.Fprintf(&b, "%s=%q ", name, value)
		return nil
	})
	return strings.TrimSpace(b.String()), err
}

func TestHostileJSON(t *testing.T) {
	deep := strings.Repeat(`{"a":`, 1000) + "1" + strings.Repeat("}", 1000)
	_, err := pairs(deep)
	require.Error(t, err)
	arrays := `{"a":` + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000) + `,"b":1}`
	got, err := pairs(arrays)
	require.NoError(t, err)
	require.Equal(t, `b="1"`, got)

	var wide strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&wide, `,"k%d":"v%d"`, i, i)
	}
	n := 0
	require.NoError(t, fields.JSON("{"+wide.String()[1:]+"}", func([]byte, string) error { n++; return nil }))
	require.Equal(t, 10_000, n)

	got, err = pairs("{\"a\x00b\":\"\x00\xff\",\"\xfe\":1}")
	require.NoError(t, err)
	require.Equal(t, `a_b="\x00\xff" _="1"`, got)
}

func TestLookup(t *testing.T) {
	const line = `{"a":{"b":[1,{"c d":"x\ty"},null]},"e":[[],[2]],"n":null,"s":"t"}`
	for path, want := range map[string]string{
		`a.b[0]`: "1", `a.b[1]["c d"]`: "x\ty", `a.b[1]`: `{"c d":"x\ty"}`, `e[1][0]`: "2", `e[0]`: "[]", `s`: "t", `["a"]["b"][0]`: "1",
		`a.b[2]`: "-", `a.b[3]`: "-", `n`: "-", `n.x`: "-", `a.x`: "-", `s.x`: "-", `e.x`: "-", `a[0]`: "-",
	} {
		steps, err := fields.ParsePath(path)
		require.NoError(t, err, path)
		got, ok := fields.Lookup(line, steps)
		if !ok {
			got = "-"
		}
		require.Equal(t, want, got, path)
	}
	for _, bad := range []string{"", ".", "a.", "a..b", "a[", "a[x]", "a[-1]", `a["x]`, "a b", "[]"} {
		_, err := fields.ParsePath(bad)
		require.Error(t, err, bad)
	}
}

// Objects that are valid JSON are read without an error, and top-level texts come out as encoding/json has them.
func FuzzJSON(f *testing.F) {
	for _, s := range []string{`{"a":"b\u00e9\ud83d\ude00","c":{"d":[1,2,{"e":"]"}]},"n":-1.5e3,"t":true}`, `{"a":`, "{}", `{"":1}`, strings.Repeat(`{"a":`, 600)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		got := make(map[string]string)
		began := time.Now()
		err := fields.JSON(line, func(name []byte, value string) error {
			if _, ok := got[string(name)]; !ok {
				got[string(name)] = value
			}
			return nil
		})
		require.Less(t, time.Since(began), 5*time.Second)
		var want map[string]json.RawMessage
		if strings.Contains(line, "\xef\xbf\xbd") || json.Unmarshal([]byte(line), &want) != nil || want == nil || strings.Count(line, "{") > 500 {
			return
		}
		require.NoError(t, err)
		if len(want) != strings.Count(line, ":") || strings.ToValidUTF8(line, "") != line {
			return // nested, or something repeats
		}
		for key, raw := range want {
			var s string
			if raw[0] == '"' && key != "" && fields.Name(key) == key && json.Unmarshal(raw, &s) == nil {
				require.Equal(t, s, got[key], line)
			}
		}
	})
}

func FuzzLookup(f *testing.F) {
	f.Add(`{"a":[1,{"b":"c"}]}`, `a[1].b`)
	f.Fuzz(func(_ *testing.T, line, path string) {
		if steps, err := fields.ParsePath(path); err == nil {
			fields.Lookup(line, steps)
		}
	})
}

// Pairs come in order, never with an empty key, and strict reading gives a prefix of what lenient reading gives.
func FuzzLogfmt(f *testing.F) {
	for _, s := range []string{`a=1 b="two \"words\"" c= d`, `=x a==b "q"=1 a="`, "a=\x00 \xff=1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		read := func(strict bool) ([]string, error) {
			var out []string
			err := fields.Logfmt(line, strict, func(key, value string) error {
				require.NotEmpty(t, key)
				out = append(out, key, value)
				return nil
			})
			return out, err
		}
		lenient, err := read(false)
		require.NoError(t, err)
		strict, err := read(true)
		require.LessOrEqual(t, len(strict), len(lenient))
		require.True(t, slices.Equal(strict, lenient[:len(strict)]))
		if err == nil {
			require.Len(t, lenient, len(strict))
		}
	})
}
