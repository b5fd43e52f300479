package ingest_test

import (
	"encoding/binary"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/ingest"
	"github.com/braidobs/braid/internal/telemetry"
)

func numbered(i int) []byte { return binary.LittleEndian.AppendUint64(nil, uint64(i)) }

func TestInternerForgetsTheUnused(t *testing.T) {
	reg := prometheus.NewRegistry()
	in := ingest.NewInterner(1<<20, reg)
	text := telemetry.LabelSet(strings.Repeat("x", 200))
	used := in.Sum(numbered(0))
	in.Intern(used, text)
	for i := 1; i < 100_000; i++ { // many times what fits
		in.Intern(in.Sum(numbered(i)), text)
		_, ok := in.Lookup(used, nil)
		require.True(t, ok, "what is used stays, at %d", i)
	}
	known := 0
	for i := range 100_000 {
		if _, ok := in.Lookup(in.Sum(numbered(i)), nil); ok {
			known++
		}
	}
	require.LessOrEqual(t, known, 1<<20/200, "the bound holds")
	require.GreaterOrEqual(t, known, 1<<20/2/400)
	evicted := testutil.ToFloat64(collector(t, reg, "braid_ingest_label_cache_evictions_total"))
	require.Greater(t, evicted, 90_000.0)
}

// collector returns a counter of the registry as a collector of its own.
func collector(t *testing.T, reg *prometheus.Registry, name string) prometheus.Collector {
	t.Helper()
	families, err := reg.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() == name {
			c := prometheus.NewCounter(prometheus.CounterOpts{Name: name})
			c.Add(f.GetMetric()[0].GetCounter().GetValue())
			return c
		}
	}
	t.Fatal(name, "is not there")
	return nil
}

func TestInternerForgetsTheOld(t *testing.T) {
	in := ingest.NewInterner(1<<20, nil)
	at := now
	in.Age(at)
	a, b := in.Sum([]byte("a")), in.Sum([]byte("b"))
	in.Intern(a, "a")
	in.Intern(b, "b")
	for range 5 {
		at = at.Add(6 * time.Minute)
		in.Age(at)
		in.Age(at.Add(time.Minute)) // too early for another generation
		ls, ok := in.Lookup(a, nil)
		require.True(t, ok)
		require.Equal(t, telemetry.LabelSet("a"), ls.Labels)
	}
	_, ok := in.Lookup(b, nil)
	require.False(t, ok)
}

func TestInternerRefusesTheHuge(t *testing.T) {
	in := ingest.NewInterner(1<<20, nil)
	f := in.Sum([]byte("huge"))
	in.Intern(f, telemetry.LabelSet(make([]byte, 1<<20)))
	_, ok := in.Lookup(f, nil)
	require.False(t, ok)
}

func TestInternerConcurrently(t *testing.T) {
	in := ingest.NewInterner(1<<16, nil)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 20_000 {
				n := (i * (g + 1)) % 5000
				f := in.Sum(numbered(n))
				want := telemetry.LabelSet(numbered(n))
				if ls, ok := in.Lookup(f, nil); !ok {
					in.Intern(f, want)
				} else if ls.Labels != want {
					t.Errorf("%d: another's labels", n)
					return
				}
				if i%1000 == 0 {
					in.Age(now.Add(time.Duration(i) * time.Minute))
				}
			}
		})
	}
	wg.Wait()
}

// TestInternerGuesses looks labels up in the order in which they came before, and in another.
func TestInternerGuesses(t *testing.T) {
	in := ingest.NewInterner(1<<20, nil)
	const n = 100
	for i := range n {
		in.Intern(in.Sum(numbered(i)), telemetry.LabelSet(numbered(i)))
	}
	for _, step := range []int{1, 1, 7, 1, 99} {
		var last *ingest.Labels
		for i := range n {
			k := i * step % n
			got, ok := in.Lookup(in.Sum(numbered(k)), last)
			require.True(t, ok)
			require.Equal(t, telemetry.LabelSet(numbered(k)), got.Labels)
			last = got
		}
		_, ok := in.Lookup(in.Sum([]byte("another")), last)
		require.False(t, ok)
	}
}

func BenchmarkInterner(b *testing.B) {
	in := ingest.NewInterner(64<<20, nil)
	raw := make([]byte, 300)
	const n = 100_000
	for i := range n {
		binary.LittleEndian.PutUint64(raw, uint64(i))
		in.Intern(in.Sum(raw), "x")
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		binary.LittleEndian.PutUint64(raw, uint64(i*7919%n))
		if _, ok := in.Lookup(in.Sum(raw), nil); !ok {
			b.Fatal("forgotten")
		}
		i++
	}
}
