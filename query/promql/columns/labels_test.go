package columns

import (
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/telemetry"
)

func TestAppendKey(t *testing.T) {
	series := labels.FromStrings("__name__", "m", "Zone", "z", "job", "a", "le", strings.Repeat("1", 300), "pod", "p")
	tests := []struct {
		name string
		by   grouping
		want labels.Labels
		meta bool
	}{
		{"each", grouping{all: true}, series, false},
		{"each without its name", grouping{all: true, drop: true}, labels.NewBuilder(series).Del("__name__").Labels(), false},
		{"by nothing", grouping{}, labels.EmptyLabels(), false},
		{"by two", grouping{names: []string{"job", "le"}}, labels.NewBuilder(series).Keep("job", "le").Labels(), false},
		{"by what is not there", grouping{names: []string{"a", "job", "zz"}}, labels.FromStrings("job", "a"), false},
		{"by name", grouping{names: []string{"__name__"}}, labels.FromStrings("__name__", "m"), false},
		{"by a name that is gone", grouping{names: []string{"__name__"}, drop: true}, labels.EmptyLabels(), false},
		{"without", grouping{names: []string{"job", "pod"}, without: true}, labels.NewBuilder(series).Del("job", "pod", "__name__").Labels(), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			key, meta, ok := tt.by.appendKey(nil, string(telemetry.NewLabelSet(series)))
			require.True(t, ok)
			require.Equal(t, tt.meta, meta)
			require.Equal(t, tt.want.String(), telemetry.LabelSet(key).Labels().String())
		})
	}
	_, meta, ok := (&grouping{all: true}).appendKey(nil, string(telemetry.NewLabelSet(labels.FromStrings("__type__", "counter"))))
	require.True(t, ok)
	require.True(t, meta)
}

func TestCompare(t *testing.T) {
	sets := []labels.Labels{
		labels.EmptyLabels(),
		labels.FromStrings("A", "1", "__name__", "m"),
		labels.FromStrings("__name__", "m"),
		labels.FromStrings("__name__", "m", "a", "1"),
		labels.FromStrings("__name__", "m", "a", "1", "b", "2"),
		labels.FromStrings("__name__", "m", "a", "10"),
		labels.FromStrings("__name__", "m", "a", "2"),
		labels.FromStrings("__name__", "m", "a", strings.Repeat("2", 200)),
		labels.FromStrings("__name__", "m", "ab", "1"),
		labels.FromStrings("__name__", "metric", "a", "1"),
	}
	for _, a := range sets {
		for _, b := range sets {
			want := labels.Compare(a, b)
			got := compare(string(telemetry.NewLabelSet(a)), string(telemetry.NewLabelSet(b)))
			require.Equal(t, want < 0, got < 0, "%s %s", a, b)
			require.Equal(t, want == 0, got == 0, "%s %s", a, b)
		}
	}
}

// FuzzLabels reads any bytes as labels: what is canonical is grouped and compared as Prometheus does, what is not
// harms nobody.
func FuzzLabels(f *testing.F) {
	f.Add("\x01a\x011", "\x01a\x012", "a")
	f.Add("\x08__name__\x01m\x03job\x01a", "\x08__name__\x01m", "job,a")
	f.Add("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "\x80", "")
	f.Fuzz(func(t *testing.T, a, b, names string) {
		by := grouping{names: slices.Compact(slices.Sorted(slices.Values(strings.Split(names, ","))))}
		without := by
		without.without = true
		key, _, ok := by.appendKey(nil, a)
		compare(a, b)
		if telemetry.LabelSet(a).Check() != nil || telemetry.LabelSet(b).Check() != nil {
			return
		}
		require.True(t, ok)
		la, lb := telemetry.LabelSet(a).Labels(), telemetry.LabelSet(b).Labels()
		require.Equal(t, labels.NewBuilder(la).Keep(by.names...).Labels().String(), telemetry.LabelSet(key).Labels().String())
		key, _, ok = without.appendKey(nil, a)
		require.True(t, ok)
		require.Equal(t, labels.NewBuilder(la).Del(by.names...).Del("__name__").Labels().String(), telemetry.LabelSet(key).Labels().String())
		require.Equal(t, labels.Compare(la, lb) < 0, compare(a, b) < 0)
		require.Equal(t, labels.Compare(la, lb) == 0, compare(a, b) == 0)
	})
}
