package telemetry_test

import (
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/braidobs/braid/internal/telemetry"
)

func attr(key string, v telemetry.Value) telemetry.Attr { return telemetry.Attr{Key: key, Value: v} }

func str(key, value string) telemetry.Attr { return attr(key, telemetry.String(value)) }

func TestValueForms(t *testing.T) {
	tests := []struct {
		name       string
		v          telemetry.Value
		text, json string
	}{
		{"empty", telemetry.Value{}, "", "null"},
		{"text", telemetry.String("a\"b\\c\n\t\r\x01é"), "a\"b\\c\n\t\r\x01é", `"a\"b\\c\n\t\r\u0001é"`},
		{"not UTF-8", telemetry.String("a\xffb\xc3"), "a\xffb\xc3", "\"a\uFFFDb\uFFFD\""},
		{"replacement character", telemetry.String("\uFFFD"), "\uFFFD", "\"\uFFFD\""},
		{"true", telemetry.Bool(true), "true", "true"},
		{"false", telemetry.Bool(false), "false", "false"},
		{"int", telemetry.Int(math.MinInt64), "-9223372036854775808", "-9223372036854775808"},
		{"double", telemetry.Double(1.5), "1.5", "1.5"},
		{"large double", telemetry.Double(1e300), "1e+300", "1e+300"},
		{"negative zero", telemetry.Double(math.Copysign(0, -1)), "-0", "-0"},
		{"NaN", telemetry.Double(math.NaN()), "NaN", `"NaN"`},
		{"infinity", telemetry.Double(math.Inf(-1)), "-Inf", `"-Inf"`},
		{"bytes", telemetry.Bytes([]byte{0, 255}), "AP8=", `"AP8="`},
		{"empty array", telemetry.Array(nil), "[]", "[]"},
		{
			"array", telemetry.Array([]telemetry.Value{telemetry.Int(1), telemetry.String("x"), {}}),
			`[1,"x",null]`, `[1,"x",null]`,
		},
		{"empty map", telemetry.Map(nil), "{}", "{}"},
		{
			"map", telemetry.Map(telemetry.NewAttrs([]telemetry.Attr{str("b", "2"), attr("a", telemetry.Array([]telemetry.Value{telemetry.Bool(true)}))})),
			`{"a":[true],"b":"2"}`, `{"a":[true],"b":"2"}`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			require.Equal(t, tt.text, tt.v.Text())
			require.Equal(t, tt.json, string(tt.v.AppendJSON(nil)))
			b, err := json.Marshal(tt.v)
			require.NoError(t, err)
			var any any
			require.NoError(t, json.Unmarshal(b, &any), "valid JSON")
			require.Equal(t, tt.name == "empty", tt.v.IsZero())
		})
	}
}

// TestJSONStrings compares with encoding/json, which escapes a little more but must mean the same.
func TestJSONStrings(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := string(rapid.SliceOf(rapid.Byte()).Draw(t, "bytes"))
		if rapid.Bool().Draw(t, "unicode") {
			s = rapid.String().Draw(t, "text")
		}
		var got, want string
		require.NoError(t, json.Unmarshal(telemetry.AppendJSONString(nil, s), &got))
		b, err := json.Marshal(s)
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(b, &want))
		require.Equal(t, want, got)
	})
}

func TestValuesAreComparable(t *testing.T) {
	one := telemetry.Double(math.Float64frombits(0x7ff8000000abcdef))
	same, other := telemetry.Double(math.Float64frombits(0x7ff8000000abcdef)), telemetry.Double(math.NaN())
	require.Equal(t, one, same, "a NaN equals itself")
	require.NotEqual(t, one, other, "and no other")
	require.NotEqual(t, telemetry.Value{}, telemetry.String(""))
	require.NotEqual(t, telemetry.String("x"), telemetry.Bytes([]byte("x")))
	require.NotEqual(t, telemetry.Int(0), telemetry.Bool(false))
}

func TestAttrsOrderAndRepeats(t *testing.T) {
	tests := []struct {
		name     string
		in, want []telemetry.Attr
	}{
		{"none", nil, nil},
		{"sorted", []telemetry.Attr{str("a", "1"), str("b", "2")}, []telemetry.Attr{str("a", "1"), str("b", "2")}},
		{"unsorted", []telemetry.Attr{str("b", "2"), str("a", "1")}, []telemetry.Attr{str("a", "1"), str("b", "2")}},
		{"the last of a key stays", []telemetry.Attr{str("a", "1"), str("b", "2"), str("a", "3")}, []telemetry.Attr{str("a", "3"), str("b", "2")}},
		{"neighbours", []telemetry.Attr{str("a", "1"), str("a", "2"), str("a", "3")}, []telemetry.Attr{str("a", "3")}},
		{"byte order", []telemetry.Attr{str("a.b", ""), str("a", ""), str("A", ""), str("é", "")}, []telemetry.Attr{str("A", ""), str("a", ""), str("a.b", ""), str("é", "")}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			as := telemetry.NewAttrs(tt.in)
			require.Equal(t, telemetry.Attrs(tt.want), as)
			for _, a := range tt.want {
				v, ok := as.Get(a.Key)
				require.True(t, ok)
				require.Equal(t, a.Value, v)
			}
			_, ok := as.Get("absent")
			require.False(t, ok)
			require.Empty(t, as.Text("absent"))
		})
	}
}

func TestLabelSetIsCanonical(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := rapid.MapOf(rapid.StringN(1, 4, -1), rapid.StringN(0, 4, -1)).Draw(t, "labels")
		s := telemetry.NewLabelSet(labels.FromMap(m))
		require.NoError(t, s.Check())
		n := 0
		prev := ""
		s.Range(func(name, value string) {
			require.Equal(t, m[name], value)
			require.NotEmpty(t, value)
			if n > 0 {
				require.Less(t, prev, name)
			}
			prev = name
			n++
		})
		for name, value := range m {
			require.Equal(t, value, s.Get(name))
			if value == "" {
				delete(m, name)
			}
		}
		require.Len(t, m, n)
		require.Equal(t, s, telemetry.NewLabelSet(s.Labels()), "there and back")
		require.Equal(t, 0, labels.Compare(labels.FromMap(m), s.Labels()))
	})
}

func TestLabelSetCheck(t *testing.T) {
	pair := func(name, value string) string {
		return string(telemetry.AppendString(telemetry.AppendString(nil, name), value))
	}
	require.NoError(t, telemetry.LabelSet("").Check())
	require.NoError(t, telemetry.LabelSet(pair("a", "1")+pair("b", "2")).Check())
	for name, bad := range map[string]string{
		"unsorted":    pair("b", "2") + pair("a", "1"),
		"repeated":    pair("a", "1") + pair("a", "2"),
		"empty value": pair("a", ""),
		"empty name":  pair("", "1"),
		"cut off":     pair("a", "12")[:4],
		"no value":    pair("a", "1")[:2],
	} {
		require.ErrorIs(t, telemetry.LabelSet(bad).Check(), telemetry.ErrDecode, name)
		telemetry.LabelSet(bad).Range(func(string, string) {}) // no panic
		telemetry.LabelSet(bad).Labels()
	}
}

func TestIDs(t *testing.T) {
	tests := []struct{ in, want, err string }{
		{"0102030405060708090a0b0c0d0e0f10", "0102030405060708090a0b0c0d0e0f10", ""},
		{"1", "00000000000000000000000000000001", ""},
		{"ABCDEF", "00000000000000000000000000abcdef", ""},
		{"", "", "want 1 to 32"},
		{strings.Repeat("0", 33), "", "want 1 to 32"},
		{"xyz", "", "invalid byte"},
	}
	for _, tt := range tests {
		id, err := telemetry.ParseTraceID(tt.in)
		if tt.err != "" {
			require.ErrorContains(t, err, tt.err)
			continue
		}
		require.NoError(t, err)
		require.Equal(t, tt.want, id.String())
		require.False(t, id.IsZero())
	}
	require.True(t, telemetry.SpanID{}.IsZero())
	require.Equal(t, "0000000000000000", telemetry.SpanID{}.String())
}

func TestTenants(t *testing.T) {
	for name, want := range map[telemetry.Tenant]bool{
		"default": true, "_self": true, "A-b_9": true, telemetry.Tenant(strings.Repeat("x", 64)): true,
		"": false, telemetry.Tenant(strings.Repeat("x", 65)): false, "a/b": false, "a|b": false, "..": false, "é": false, "a b": false,
	} {
		require.Equal(t, want, name.Valid(), string(name))
	}
}

func TestResourceIDs(t *testing.T) {
	as := func() telemetry.Attrs { return telemetry.NewAttrs([]telemetry.Attr{str("a", "1"), str("b", "2")}) }
	one := telemetry.NewResource("", as())
	require.Equal(t, one.ID, telemetry.NewResource("", as()).ID)
	require.NotEqual(t, one.ID, telemetry.NewResource("u", as()).ID)
	require.NotEqual(t, one.ID, telemetry.NewResource("", as()[:1]).ID)
	require.NotEqual(t, telemetry.NewResource("", telemetry.Attrs{str("a", "1")}).ID, telemetry.NewResource("", telemetry.Attrs{attr("a", telemetry.Int(1))}).ID)
}
