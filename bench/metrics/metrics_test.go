package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"
)

// decoded returns the series of a pod at its next scrapes.
func decoded(t *testing.T, p *pod, scrapes int) (out [][]prompb.TimeSeries) {
	t.Helper()
	at := time.Unix(1_700_000_000, 0)
	for n := range scrapes {
		at = at.Add(interval)
		p.step(at)
		var req prompb.WriteRequest
		require.NoError(t, req.Unmarshal(p.appendTo(nil, at.UnixMilli())), "scrape %d", n)
		out = append(out, req.Timeseries)
	}
	return out
}

func TestPod(t *testing.T) {
	start := time.Unix(1_700_000_000, 0)
	scrapes := decoded(t, newPod(1, 5, 0, start), 100)
	require.Equal(t, scrapes, decoded(t, newPod(1, 5, 0, start), 100), "the same numbers give the same pod")
	require.NotEqual(t, scrapes[0], decoded(t, newPod(2, 5, 0, start), 1)[0])
	require.NotEqual(t, scrapes[0], decoded(t, newPod(1, 5, 1, start), 1)[0])

	names, sets, size := map[string]bool{}, map[string]bool{}, 0
	for _, ts := range scrapes[0] {
		names[ts.Labels[0].Value] = true
		var set strings.Builder
		for i, l := range ts.Labels {
			require.NotEmpty(t, l.Value)
			if i > 0 {
				require.Less(t, ts.Labels[i-1].Name, l.Name)
			}
			set.WriteString(l.Name + "=" + l.Value + ",")
		}
		require.False(t, sets[set.String()], set.String())
		sets[set.String()] = true
		size += ts.Size()
	}
	require.Len(t, sets, seriesOfPod)
	require.Len(t, names, 47)
	require.InDelta(t, 300, size/seriesOfPod, 50, "bytes of a series in a request")

	for n, series := range scrapes {
		require.Len(t, series, seriesOfPod, "scrape %d", n)
		for i, ts := range series {
			if i > 0 && strings.HasSuffix(ts.Labels[0].Value, "_bucket") && ts.Labels[0].Value == series[i-1].Labels[0].Value && handlerOf(ts) == handlerOf(series[i-1]) {
				require.GreaterOrEqual(t, ts.Samples[0].Value, series[i-1].Samples[0].Value)
			}
		}
	}
}

// TestRestarts checks that counters fall now and then, and between that rise.
func TestRestarts(t *testing.T) {
	at := time.Unix(1_700_000_000, 0)
	p := newPod(1, 5, 0, at)
	falls := 0
	for range 10 * resetChance {
		at = at.Add(interval)
		before := make([]float64, len(p.series))
		for i := range p.series {
			before[i] = p.series[i].value
		}
		p.step(at)
		fell := 0
		for i := range p.series {
			if s := &p.series[i]; (s.kind == counter || s.kind == seconds) && s.value < before[i] {
				fell++
			}
		}
		if fell > 0 {
			require.Greater(t, fell, 15, "all at once")
			falls++
		}
	}
	require.InDelta(t, 10, falls, 9)
}

func TestLoad(t *testing.T) {
	end := time.Unix(1_700_000_000, 0).Truncate(interval)
	l := load{pods: 4, generations: 10, duration: time.Hour, end: end}
	require.Equal(t, 240, l.scrapes())
	require.Equal(t, end, l.at(239))
	require.Equal(t, end.Add(-time.Hour+interval), l.at(0))
	require.Equal(t, "4 pods, 5320 series in 10 generations, 1h0m0s, 127680 samples", l.name())
}

func TestCompare(t *testing.T) {
	vector := func(v string) string {
		return `{"status":"success","data":{"resultType":"vector","result":[{"metric":{"a":"1","b":"2"},"value":[10,"` + v + `"]}]}}`
	}
	matrix := func(v string) string {
		return `{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"a":"1"},"values":[[10,"1"],[20,"` + v + `"]]}]}}`
	}
	tests := []struct{ name, want, got, diff string }{
		{"equal", vector("1"), vector("1"), ""},
		{"close", vector("1"), vector("1.0000000001"), ""},
		{"not close", vector("1"), vector("1.00000001"), `1.00000001 instead of 1 at 10 in {"a":"1","b":"2"}`},
		{"NaN", vector("NaN"), vector("NaN"), ""},
		{"infinities", vector("+Inf"), vector("-Inf"), `-Inf instead of +Inf at 10 in {"a":"1","b":"2"}`},
		{"ranges", matrix("2"), matrix("3"), `3 instead of 2 at 20 in {"a":"1"}`},
		{"missing", vector("1"), `{"data":{"result":[]}}`, "0 series instead of 1"},
		{"other", `{"data":["x"]}`, `{"data":["y"]}`, `without "x"`},
		{"series", `{"data":[{"a":"1","b":"2"}]}`, `{"data":[{"b":"2","a":"1"}]}`, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			diff, err := compare([]byte(tt.want), []byte(tt.got))
			require.NoError(t, err)
			require.Equal(t, tt.diff, diff)
		})
	}
	_, err := compare([]byte("no JSON"), []byte(vector("1")))
	require.Error(t, err)
}

func TestParamsDiffer(t *testing.T) {
	l := load{pods: 1, generations: 1, duration: 10 * time.Minute, end: time.Unix(1_700_000_000, 0)}
	for _, q := range queries() {
		require.NotEqual(t, q.params(l, 0), q.params(l, 1), q.name)
	}
}

func TestDisk(t *testing.T) {
	dir := t.TempDir()
	for name, n := range map[string]int{"a/chunks/1": 10, "a/index": 5, "indexed": 3} {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), make([]byte, n), 0o600))
	}
	s, err := diskOf(dir, "index")
	require.NoError(t, err)
	require.Equal(t, size{samples: 13, index: 5}, s)
}

func handlerOf(ts prompb.TimeSeries) string {
	for _, l := range ts.Labels {
		if l.Name == "handler" {
			return l.Value
		}
	}
	return ""
}
