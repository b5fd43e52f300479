package block_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/braidobs/braid/ingest"
	"github.com/braidobs/braid/ingest/block"
	"github.com/braidobs/braid/ingest/remotewrite"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// point names a sample in a test.
type point struct {
	labels telemetry.LabelSet
	t      int64
}

// store is a storage.Writer that keeps samples and counts how often each arrives.
type store struct {
	values  map[point]string
	times   map[point]int
	sources []telemetry.Source
}

func (s *store) Write(_ context.Context, r storage.Request) (storage.Position, storage.Rejected, error) {
	for _, b := range r.Batches {
		s.sources = append(s.sources, *b.Source)
		for _, x := range b.Series {
			for _, p := range x.Samples {
				s.put(point{x.Labels, p.T}, strconv.FormatUint(math.Float64bits(p.V), 16))
			}
			for _, h := range x.Histograms {
				if h.H != nil {
					s.put(point{x.Labels, h.T}, h.H.String())
				} else {
					s.put(point{x.Labels, h.T}, h.FH.String()+" float")
				}
			}
		}
	}
	return 1, r.Rejected, nil
}

func (s *store) put(p point, v string) {
	s.values[p] = v
	s.times[p]++
}

// server answers imports into a store; before may answer first.
func server(t *testing.T, before func(w http.ResponseWriter) bool) (*store, string) {
	t.Helper()
	s := &store{values: map[point]string{}, times: map[point]int{}}
	clock := func() time.Time { return now }
	pipe := ingest.New(ingest.DefaultConfig(), ingest.Deps{Writer: s, Now: clock})
	mux := http.NewServeMux()
	for p, h := range remotewrite.New(remotewrite.DefaultConfig(), remotewrite.Deps{Pipeline: pipe, Now: clock}).Routes() {
		mux.Handle(p, h)
	}
	hs := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if before == nil || !before(w) {
			mux.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(hs.Close)
	return s, hs.URL
}

// data makes blocks of two hours each, from start on, and returns what is in them.
func data(t *testing.T, dir string, start time.Time, blocks, series int) map[point]string {
	t.Helper()
	want := map[point]string{}
	for b := range blocks {
		from := start.Add(time.Duration(b) * 2 * time.Hour)
		w, err := tsdb.NewBlockWriter(slog.New(slog.DiscardHandler), dir, 2*time.Hour.Milliseconds())
		require.NoError(t, err)
		app := w.Appender(t.Context())
		for i := range series {
			ls := labels.FromStrings("__name__", "m", "i", fmt.Sprintf("%03d", i))
			for n := range 120 {
				at := from.Add(time.Duration(n) * time.Minute).UnixMilli()
				var text string
				switch i % 3 {
				case 0:
					v := float64(n) / 3
					if n == 7 {
						v = math.Float64frombits(0x7ff0000000000002)
					}
					_, err = app.Append(0, ls, at, v)
					text = strconv.FormatUint(math.Float64bits(v), 16)
				case 1:
					h := tsdbutil.GenerateTestHistogram(int64(n))
					_, err = app.AppendHistogram(0, ls, at, h, nil)
					text = h.String()
				default:
					h := tsdbutil.GenerateTestFloatHistogram(int64(n))
					_, err = app.AppendHistogram(0, ls, at, nil, h)
					text = h.String() + " float"
				}
				require.NoError(t, err)
				want[point{telemetry.NewLabelSet(ls), at}] = text
			}
		}
		require.NoError(t, app.Commit())
		_, err = w.Flush(t.Context())
		require.NoError(t, err)
		require.NoError(t, w.Close())
	}
	return want
}

// run imports dir.
func run(t *testing.T, ctx context.Context, dir, url, state string) (block.Totals, string, error) { //nolint:revive // the test comes first
	t.Helper()
	var out bytes.Buffer
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	totals, err := block.Import(ctx, block.Options{Dir: dir, URL: url, State: state, Client: client, Out: &out, Now: func() time.Time { return now }})
	return totals, out.String(), err
}

func TestImport(t *testing.T) {
	dir := t.TempDir()
	want := data(t, dir, now.Add(-24*time.Hour).Truncate(2*time.Hour), 3, 200)
	s, url := server(t, nil)
	totals, text, err := run(t, t.Context(), dir, url, "")
	require.NoError(t, err)
	require.Equal(t, block.Totals{Blocks: 3, Samples: uint64(len(want))}, totals)
	require.Contains(t, text, "block 3 of 3")
	require.True(t, maps.Equal(want, s.values), "everything arrives as it was")
	for p, n := range s.times {
		require.Equal(t, 1, n, "%v", p)
	}
	last := map[string]uint64{}
	for _, src := range s.sources { // positions without gaps
		require.Equal(t, last[src.File], src.From)
		require.Greater(t, src.To, src.From)
		last[src.File] = src.To
	}
	require.Len(t, last, 3)
	require.Greater(t, len(s.sources), 3)

	one := s.sources[0].File
	s.values = map[point]string{}
	totals, _, err = run(t, t.Context(), filepath.Join(dir, one), url+"/", "")
	require.NoError(t, err)
	require.Equal(t, 1, totals.Blocks)
	require.Len(t, s.values, len(want)/3)
}

// TestResume cuts imports off, which then go on: with the state nothing is sent twice but the request under way.
func TestResume(t *testing.T) {
	dir := t.TempDir()
	want := data(t, dir, now.Add(-24*time.Hour).Truncate(2*time.Hour), 2, 450)
	state := filepath.Join(t.TempDir(), "state.json")
	var cut context.CancelFunc
	var requests atomic.Int32
	s, url := server(t, func(w http.ResponseWriter) bool {
		switch requests.Add(1) % 4 {
		case 1:
			w.Header().Set("Retry-After", "0")
			http.Error(w, "not now", http.StatusServiceUnavailable)
			return true
		case 0:
			cut()
		}
		return false
	})
	runs := 0
	for {
		ctx, cancel := context.WithCancel(t.Context())
		cut = cancel
		totals, _, err := run(t, ctx, dir, url, state)
		cancel()
		runs++
		if err == nil {
			require.Equal(t, uint64(len(want)), totals.Samples)
			break
		}
		require.ErrorIs(t, err, context.Canceled)
		require.Less(t, runs, 20)
	}
	require.Greater(t, runs, 1)
	require.True(t, maps.Equal(want, s.values))
	before := requests.Load()
	_, text, err := run(t, t.Context(), dir, url, state)
	require.NoError(t, err)
	require.Contains(t, text, "was imported before")
	require.Equal(t, before, requests.Load(), "nothing is left to send")
}

func TestRefused(t *testing.T) {
	dir := t.TempDir()
	want := data(t, dir, now.AddDate(0, 0, -60).Truncate(2*time.Hour), 1, 3)
	data(t, dir, now.Add(-24*time.Hour).Truncate(2*time.Hour), 1, 3)
	s, url := server(t, nil)
	totals, _, err := run(t, t.Context(), dir, url, "")
	require.NoError(t, err)
	require.Equal(t, 2, totals.Blocks)
	require.Equal(t, uint64(len(want)), totals.Refused)
	require.Contains(t, totals.Reason, "older than the retention")
	require.Len(t, s.values, 360)
}

func TestMistakes(t *testing.T) {
	dir := t.TempDir()
	data(t, dir, now.Add(-24*time.Hour).Truncate(2*time.Hour), 1, 3)
	broken := filepath.Join(t.TempDir(), "block")
	require.NoError(t, os.Mkdir(broken, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(broken, "meta.json"), []byte("{"), 0o600))
	badState := filepath.Join(t.TempDir(), "state")
	require.NoError(t, os.WriteFile(badState, []byte("?"), 0o600))
	_, url := server(t, nil)
	_, refusing := server(t, func(w http.ResponseWriter) bool {
		http.Error(w, "no such tenant", http.StatusBadRequest)
		return true
	})
	tests := []struct{ name, dir, url, state, want string }{
		{"no blocks", t.TempDir(), url, "", "there are no blocks in"},
		{"no folder", filepath.Join(dir, "none"), url, "", "look for blocks"},
		{"broken meta", broken, url, "", "meta.json"},
		{"broken state", dir, url, badState, "without the file everything is sent again"},
		{"not stored at all", dir, refusing, "", "400 Bad Request: no such tenant"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := run(t, t.Context(), tt.dir, tt.url, tt.state)
			require.ErrorContains(t, err, tt.want)
		})
	}
}

// TestCorrupt flips bytes of a block: an error, and no panic.
func TestCorrupt(t *testing.T) {
	dir := t.TempDir()
	data(t, dir, now.Add(-24*time.Hour).Truncate(2*time.Hour), 1, 30)
	_, url := server(t, nil)
	files, err := filepath.Glob(filepath.Join(dir, "*", "chunks", "*"))
	require.NoError(t, err)
	b, err := os.ReadFile(files[0])
	require.NoError(t, err)
	b[len(b)/2] ^= 0xff
	require.NoError(t, os.WriteFile(files[0], b, 0o600))
	_, _, err = run(t, t.Context(), dir, url, "")
	require.ErrorContains(t, err, "checksum")
	require.ErrorContains(t, err, "import block")
}

func TestHeaderIsWanted(t *testing.T) {
	_, url := server(t, nil)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+remotewrite.ImportPath, strings.NewReader(""))
	require.NoError(t, err)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusBadRequest, resp.StatusCode)
	http.DefaultClient.CloseIdleConnections()
}
