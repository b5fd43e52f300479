//go:build long

package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"testing"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/prometheus/prometheus/model/labels"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/bench/harness"
)

var (
	soakTime     = flag.Duration("soak", 10*time.Minute, "how long TestSoak writes; memory is compared from 8m on")
	soakPods     = flag.Int("soak-pods", 38, "pods of TestSoak at a time, 133 series each")
	soakInterval = flag.Duration("soak-interval", 5*time.Second, "between two scrapes of a pod of TestSoak")
)

// process starts the server, built from this tree.
func process(t *testing.T, config string) *target {
	t.Helper()
	dir := t.TempDir()
	binary, err := harness.Build(t.Context(), dir)
	require.NoError(t, err)
	s, err := start(t.Context(), braid, binary, dir, config)
	require.NoError(t, err)
	t.Cleanup(s.s.Kill)
	return s
}

// number returns the value of the only series of an instant query, 0 without one.
func number(t *testing.T, s *target, query string, at time.Time) float64 {
	t.Helper()
	vs := instant(t, s, query, at)
	require.LessOrEqual(t, len(vs), 1, query)
	for _, v := range vs {
		return v
	}
	return 0
}

// instant returns the values of an instant query by the labels, as JSON.
func instant(t *testing.T, s *target, query string, at time.Time) map[string]float64 {
	t.Helper()
	b, err := s.get(t.Context(), http.MethodGet, "/api/v1/query", url.Values{"query": {query}, "time": {strconv.FormatInt(at.Unix(), 10)}})
	require.NoError(t, err)
	var a struct {
		Data struct {
			Result []struct {
				Metric map[string]string
				Value  [2]any
			}
		}
	}
	require.NoError(t, json.Unmarshal(b, &a))
	out := make(map[string]float64)
	for _, r := range a.Data.Result {
		key, err := json.Marshal(r.Metric)
		require.NoError(t, err)
		x, err := strconv.ParseFloat(r.Value[1].(string), 64)
		require.NoError(t, err)
		require.NotContains(t, out, string(key))
		out[string(key)] = x
	}
	return out
}

// key returns the labels of a series in the form of instant.
func (s *series) key(t *testing.T) string {
	t.Helper()
	ls := make(map[string]string)
	for b := s.labels; len(b) > 0; {
		var pair []string
		n, k := binary.Uvarint(b[1:])
		field := b[1+k : 1+k+int(n)]
		b = b[1+k+int(n):]
		for len(field) > 0 {
			n, k := binary.Uvarint(field[1:])
			pair = append(pair, string(field[1+k:1+k+int(n)]))
			field = field[1+k+int(n):]
		}
		ls[pair[0]] = pair[1]
	}
	out, err := json.Marshal(ls)
	require.NoError(t, err)
	return string(out)
}

// account is all that was sent of pods: the samples of each series as text, by its labels.
type account struct {
	keys    map[*pod][]string
	sent    map[string][]string
	samples int
}

func newAccount() *account {
	return &account{keys: make(map[*pod][]string), sent: make(map[string][]string)}
}

// scrape moves pods by one scrape, and returns the request that tells so.
func (a *account) scrape(t *testing.T, pods []*pod, at time.Time) []byte {
	t.Helper()
	var body []byte
	for _, p := range pods {
		if a.keys[p] == nil {
			for i := range p.series {
				a.keys[p] = append(a.keys[p], p.series[i].key(t))
			}
		}
		p.step(at)
		body = p.appendTo(body, at.UnixMilli())
		for i, k := range a.keys[p] {
			a.sent[k] = append(a.sent[k], sample(float64(at.UnixMilli())/1000, p.series[i].value))
		}
		a.samples += len(p.series)
	}
	return body
}

func sample(at, value float64) string {
	return strconv.FormatFloat(at, 'f', 3, 64) + " " + strconv.FormatFloat(value, 'g', -1, 64)
}

// check requires that the server has what was sent, to the bit, and nothing else.
func (a *account) check(t *testing.T, s *target, over time.Duration, end time.Time) {
	t.Helper()
	b, err := s.get(t.Context(), http.MethodGet, "/api/v1/query", url.Values{
		"query": {fmt.Sprintf(`{cluster="production-eu-1"}[%ds]`, int(over.Seconds()))}, "time": {strconv.FormatInt(end.Unix(), 10)},
	})
	require.NoError(t, err)
	var m struct {
		Data struct {
			Result []struct {
				Metric map[string]string
				Values [][2]any
			}
		}
	}
	require.NoError(t, json.Unmarshal(b, &m))
	require.Len(t, m.Data.Result, len(a.sent), "series")
	for _, r := range m.Data.Result {
		key, err := json.Marshal(r.Metric)
		require.NoError(t, err)
		got := make([]string, len(r.Values))
		for i, v := range r.Values {
			x, err := strconv.ParseFloat(v[1].(string), 64)
			require.NoError(t, err)
			got[i] = sample(v[0].(float64), x)
		}
		require.Equal(t, a.sent[string(key)], got, string(key))
	}
}

func mean(xs []float64) float64 {
	sum := 0.0
	for _, x := range xs {
		sum += x
	}
	return sum / float64(len(xs))
}

// deadSeries bounds the memory that a series takes from its last sample until it is forgotten, 15 minutes later.
const deadSeries = 2 << 10

// TestSoak writes while a tenth of the pods is replaced each minute. The memory must stay about what it is, although the
// series that were ever seen become more, and everything must be there in the end.
func TestSoak(t *testing.T) {
	s := process(t, "storage:\n  flush_interval: 1m\n")
	ctx := t.Context()
	began := time.Now().Truncate(time.Second)
	var pods []*pod
	for i := range *soakPods {
		pods = append(pods, newPod(1, i, 0, began))
	}
	var rss, heap []float64
	var now time.Time
	sent, replaced := newAccount(), 0
	tick := time.NewTicker(*soakInterval)
	defer tick.Stop()
	for n := 0; time.Since(began) < *soakTime; n++ {
		<-tick.C
		now = time.Now()
		for due := int(now.Sub(began).Minutes() * float64(len(pods)) / 10); replaced < due; replaced++ {
			i := replaced % len(pods)
			pods[i] = newPod(1, i, 1+replaced/len(pods), now)
		}
		require.NoError(t, post(ctx, s.http, s.url("/api/v1/write"), s2.EncodeSnappy(nil, sent.scrape(t, pods, now))))
		u, err := s.s.Usage()
		require.NoError(t, err)
		h, err := s.s.Metric(ctx, "go_memstats_heap_inuse_bytes")
		require.NoError(t, err)
		rss, heap = append(rss, float64(u.RSS)), append(heap, h)
		if n%12 == 0 { // somebody looks at a dashboard
			number(t, s, `sum(rate(http_requests_total[2m]))`, now)
		}
	}
	fifth := len(rss) / 5
	u, err := s.s.Usage()
	require.NoError(t, err)
	early, late := mean(rss[fifth:2*fifth]), mean(rss[len(rss)-fifth:])
	earlyHeap, lateHeap := mean(heap[fifth:2*fifth]), mean(heap[len(heap)-fifth:])
	t.Logf("%s, %d series at a time, %d in all, %d samples; resident memory %.1f MiB in the second fifth, %.1f MiB in the last, heap %.1f and %.1f MiB, peak %d MiB, CPU %s",
		*soakTime, len(pods)*seriesOfPod, len(sent.sent), sent.samples, early/(1<<20), late/(1<<20), earlyHeap/(1<<20), lateHeap/(1<<20), u.PeakRSS>>20, u.CPU)
	if *soakTime >= 8*time.Minute { // before that it is still finding its size
		require.LessOrEqual(t, late, 1.15*early, "resident memory")
		between := (soakTime.Minutes() * 6 / 100) * float64(len(pods)*seriesOfPod) // series that died between the two
		require.LessOrEqual(t, lateHeap, earlyHeap+min(between, 1.5*float64(len(pods)*seriesOfPod))*deadSeries, "heap")
	}
	sent.check(t, s, *soakTime+time.Minute, now.Add(time.Second))
	require.NoError(t, s.s.Stop(ctx))
}

// users returns series of the metric sessions, each with a value of the label user of its own.
func users(from, n int, at time.Time) []byte {
	var body []byte
	for i := from; i < from+n; i++ {
		ls := labelFields("sessions", map[string]string{"job": "shop"}, []string{"user", "u-" + strconv.Itoa(i)})
		var sample []byte
		sample = binary.LittleEndian.AppendUint64(append(sample, 1<<3|1), math.Float64bits(float64(i)))
		sample = binary.AppendUvarint(append(sample, 2<<3), uint64(at.UnixMilli()))
		body = append(body, 1<<3|2)
		body = binary.AppendUvarint(body, uint64(len(ls)+2+len(sample)))
		body = append(append(body, ls...), 2<<3|2, byte(len(sample)))
		body = append(body, sample...)
	}
	return body
}

// tell sends a request of remote write and returns what the server says.
func tell(ctx context.Context, t *testing.T, s *target, contentType string, body []byte) (int, http.Header, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url("/api/v1/write"), bytes.NewReader(s2.EncodeSnappy(nil, body)))
	require.NoError(t, err)
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("Content-Encoding", "snappy")
	resp, err := s.http.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, resp.Header, string(text)
}

// TestCardinality writes a million values of one label, beside pods that are scraped as ever. The server must take as
// many as storage.max_series_per_metric allows, say so to the sender, name the metric, and keep everything else exact,
// also over a restart.
func TestCardinality(t *testing.T) {
	const (
		values  = 1_000_000
		limit   = 200_000 // the default
		each    = 10_000
		maxRSS  = 700 << 20
		typeV1  = "application/x-protobuf"
		typeV2  = "application/x-protobuf;proto=io.prometheus.write.v2.Request"
		setting = "storage.max_series_per_metric"
	)
	s := process(t, "")
	ctx := t.Context()
	at := time.Now().Add(-time.Hour).Truncate(time.Second)
	var pods []*pod
	for i := range 20 {
		pods = append(pods, newPod(1, i, 0, at))
	}
	sent, stored := newAccount(), 0
	for n := 0; n < values; n += each {
		at = at.Add(interval)
		code, header, text := tell(ctx, t, s, typeV1, users(n, each, at))
		over := min(max(n+each-limit, 0), each)
		stored += each - over
		if over == 0 {
			require.Equal(t, http.StatusNoContent, code, text)
		} else {
			require.Equal(t, http.StatusBadRequest, code, text)
			require.Equal(t, strconv.Itoa(over), header.Get("Braid-Refused"))
			require.Contains(t, text, setting)
			require.Contains(t, text, "sessions")
		}
		code, _, text = tell(ctx, t, s, typeV1, sent.scrape(t, pods, at))
		require.Equal(t, http.StatusNoContent, code, "the others go on: %s", text)
	}
	require.Equal(t, limit, stored)

	// A request with both kinds, of version 2: it tells how much was written.
	st := writev2.NewSymbolTable()
	req := &writev2.Request{Timeseries: []writev2.TimeSeries{
		{LabelsRefs: st.SymbolizeLabels(labels.FromStrings("__name__", "sessions", "user", "one more"), nil), Samples: []writev2.Sample{{Timestamp: at.UnixMilli(), Value: 1}}},
		{LabelsRefs: st.SymbolizeLabels(labels.FromStrings("__name__", "beside", "user", "one more"), nil), Samples: []writev2.Sample{{Timestamp: at.UnixMilli(), Value: 5}}},
	}}
	req.Symbols = st.Symbols()
	body, err := req.Marshal()
	require.NoError(t, err)
	code, header, text := tell(ctx, t, s, typeV2, body)
	require.Equal(t, http.StatusBadRequest, code, text)
	require.Contains(t, text, setting)
	require.Equal(t, "1", header.Get("X-Prometheus-Remote-Write-Samples-Written"))

	u, err := s.s.Usage()
	require.NoError(t, err)
	t.Logf("%d values, %d stored; resident memory %d MiB, peak %d MiB, CPU %s", values, stored, u.RSS>>20, u.PeakRSS>>20, u.CPU)
	require.Less(t, u.PeakRSS, int64(maxRSS))
	refused, err := s.s.Metric(ctx, "braid_storage_series_refused_samples_total", `setting="`+setting+`"`)
	require.NoError(t, err)
	require.InDelta(t, values-limit+1, refused, 0)

	check := func() {
		end := at.Add(time.Second)
		require.Equal(t, map[string]float64{`{"__name__":"braid_series_overflow_total","metric":"sessions"}`: values - limit + 1}, instant(t, s, "braid_series_overflow_total", end))
		require.InDelta(t, limit, number(t, s, `count(count_over_time(sessions[2h]))`, end), 0)
		require.InDelta(t, float64(limit)*(limit-1)/2, number(t, s, `sum(last_over_time(sessions[2h]))`, end), 0)
		sent.check(t, s, 2*time.Hour, end)
		require.InDelta(t, 5, number(t, s, `beside`, end), 0)
		for _, i := range []int{0, limit / 2, limit - 1} {
			require.InDelta(t, i, number(t, s, `last_over_time(sessions{user="u-`+strconv.Itoa(i)+`"}[2h])`, end), 0)
		}
		require.Empty(t, instant(t, s, `last_over_time(sessions{user=~"u-200000|u-999999|one more"}[2h])`, end))
	}
	check()
	s.s.Kill()
	again, err := harness.Start(ctx, harness.Options{Binary: s.dir + "/braid", Data: s.dir, Like: s.s})
	require.NoError(t, err)
	t.Cleanup(again.Kill)
	s.s = again
	check()
	require.NoError(t, s.s.Stop(ctx))
}
