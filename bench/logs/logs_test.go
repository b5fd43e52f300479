package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"
)

// TestSend decodes what is sent: all lines of all streams, in the order of time, with one needle and one trace.
func TestSend(t *testing.T) {
	l := load{lines: 504 * 50, duration: time.Hour, request: 64 << 10, senders: 3, seed: 1, end: time.Unix(1_700_000_000, 0)}
	var mu sync.Mutex
	last := map[string]int64{}
	lines, needles, traces, size := 0, 0, 0, 0
	kinds := map[string]int{}
	var trace string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		packed := make([]byte, r.ContentLength)
		for n := 0; n < len(packed); {
			k, err := r.Body.Read(packed[n:])
			if n += k; err != nil && n < len(packed) {
				return
			}
		}
		body, err := s2.Decode(nil, packed)
		mu.Lock()
		defer mu.Unlock()
		if err != nil || len(body) > 2*l.request {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		each(body, func(_ protowire.Number, stream []byte) {
			name := ""
			each(stream, func(f protowire.Number, b []byte) {
				if f == 1 {
					name = string(b)
					return
				}
				var at int64
				each(b, func(f protowire.Number, b []byte) {
					if f == 1 {
						_, n1 := protowire.ConsumeVarint(b[1:])
						s, _ := protowire.ConsumeVarint(b[1:])
						ns, _ := protowire.ConsumeVarint(b[2+n1:])
						at = int64(s)*1e9 + int64(ns)
						return
					}
					lines++
					size += len(b) + 1
					if strings.Contains(string(b), needleWord) {
						needles++
					}
					if i := strings.Index(string(b), `"trace_id":"`); i > 0 {
						traces++
						trace += string(b[i+12 : i+44])
					}
					kinds[string(b[:1])]++
				})
				if last[name] > at+int64(2*time.Minute) || at > l.end.Add(2*time.Minute).UnixNano() {
					kinds["late"]++
				}
				last[name] = max(last[name], at)
			})
		})
		w.WriteHeader(http.StatusNoContent)
	}))
	defer srv.Close()
	s, err := l.send(t.Context(), srv.Client(), srv.URL)
	require.NoError(t, err)
	require.EqualValues(t, l.lines, s.lines)
	require.Equal(t, l.lines, lines)
	require.EqualValues(t, size, s.bytes)
	require.Len(t, last, streams)
	require.Equal(t, 1, needles)
	require.Contains(t, trace, s.traceID)
	require.Len(t, s.traceID, 32)
	require.InEpsilon(t, 0.05, float64(traces)/float64(lines), 0.3)
	require.InEpsilon(t, 0.47, float64(kinds["{"])/float64(lines), 0.05)
	require.Zero(t, kinds["late"])
	require.NotZero(t, s.needleAt)
}

// each calls f for each field of a message that is bytes.
func each(b []byte, f func(protowire.Number, []byte)) {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return
		}
		b = b[n:]
		if typ != protowire.BytesType {
			n = protowire.ConsumeFieldValue(num, typ, b)
			b = b[n:]
			continue
		}
		v, n := protowire.ConsumeBytes(b)
		if n < 0 {
			return
		}
		b = b[n:]
		f(num, v)
	}
}

func TestSum(t *testing.T) {
	points, total, err := sum([]byte(`{"data":{"result":[{"metric":{"app":"a"},"values":[[1,"2"],[2,"3.5"]]},{"metric":{},"value":[1,"1"]}]}}`))
	require.NoError(t, err)
	require.Equal(t, 3, points)
	require.InDelta(t, 6.5, total, 0)
	points, total, err = sum([]byte(`{"data":{"result":[{"stream":{"app":"a"},"values":[["1","x"],["2","y"]]}]}}`))
	require.NoError(t, err)
	require.Equal(t, 2, points)
	require.Zero(t, total)
}
