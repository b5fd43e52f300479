//go:build e2e

package conformance

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/braidobs/braid/bench/harness"
)

const smallBody = "otlp:\n  max_body: 2MiB\n"

// TestOTLP is the table: every signal by every client against every outcome, and what is stored afterwards.
func TestOTLP(t *testing.T) {
	s := start(t, t.TempDir(), smallBody)
	all := clients(t, s)
	require.Len(t, all, 9)
	for _, c := range all {
		for _, sig := range signals() {
			code := func(t *testing.T, a answer, want codes.Code) {
				t.Helper()
				require.Equal(t, want, a.code, a.message)
				if a.http != 0 {
					require.Equal(t, httpStatus(want), a.http)
				}
			}
			whole := func(t *testing.T, a answer) {
				t.Helper()
				code(t, a, codes.OK)
				require.Zero(t, a.count)
				require.Empty(t, a.message)
			}
			t.Run(c.name+" "+sig.name, func(t *testing.T) {
				t.Run("ok", func(t *testing.T) {
					r := newRecord()
					whole(t, c.send(t, sig, "", c.encode(t, sig.request(r))))
					require.Equal(t, 1, sig.stored(t, s, "", r))
				})
				t.Run("retry", func(t *testing.T) {
					r := newRecord()
					for range 3 {
						whole(t, c.send(t, sig, "", c.encode(t, sig.request(r))))
					}
					require.Equal(t, 1, sig.stored(t, s, "", r))
				})
				t.Run("empty", func(t *testing.T) {
					whole(t, c.send(t, sig, "", c.encode(t, sig.request())))
				})
				t.Run("partial", func(t *testing.T) {
					for _, tt := range []struct {
						at      time.Duration
						setting string
					}{{2 * time.Hour, "ingest.max_future"}, {-31 * 24 * time.Hour, "storage.retention"}} {
						good, bad := newRecord(), newRecord()
						bad.at = time.Now().Add(tt.at)
						a := c.send(t, sig, "", c.encode(t, sig.request(good, bad, bad)))
						code(t, a, codes.OK)
						require.EqualValues(t, 2, a.count)
						require.Contains(t, a.message, tt.setting)
						require.Equal(t, 1, sig.stored(t, s, "", good))
						require.Zero(t, sig.stored(t, s, "", bad))
					}
				})
				t.Run("unknown fields", func(t *testing.T) {
					r := newRecord()
					body := c.encode(t, sig.request(r))
					if c.json {
						body = append([]byte(`{"unknown":{"a":[1,{"b":null}]},`), body[1:]...)
					} else {
						body = protowire.AppendTag(body, 999, protowire.BytesType)
						body = protowire.AppendString(body, "unknown")
					}
					whole(t, c.send(t, sig, "", body))
					require.Equal(t, 1, sig.stored(t, s, "", r))
				})
				t.Run("malformed", func(t *testing.T) {
					for _, body := range []string{"\x0a\xff\xff\xff\xff\x0f", "\x0a\x02\x0a\x7f", `{"resourceSpans": 7,,}`} {
						a := c.send(t, sig, "", []byte(body))
						code(t, a, codes.InvalidArgument)
						require.Contains(t, a.message, "malformed")
					}
				})
				t.Run("oversized", func(t *testing.T) {
					r := newRecord()
					r.pad = 3 << 20
					code(t, c.send(t, sig, "", c.encode(t, sig.request(r))), codes.ResourceExhausted)
					require.Zero(t, sig.stored(t, s, "", r))
				})
				t.Run("tenants", func(t *testing.T) {
					r := newRecord()
					whole(t, c.send(t, sig, "blue", c.encode(t, sig.request(r))))
					require.Equal(t, 1, sig.stored(t, s, "blue", r))
					require.Zero(t, sig.stored(t, s, "", r))
					require.Zero(t, sig.stored(t, s, "green", r))
					for _, bad := range []string{"a|b", "a/b", "two words", "_self", strings.Repeat("a", 65)} {
						code(t, c.send(t, sig, bad, c.encode(t, sig.request(newRecord()))), codes.InvalidArgument)
					}
				})
			})
		}
	}
	require.NotContains(t, s.Log(), "level=ERROR")
}

// TestRefusals has what only HTTP has: types, encodings and methods.
func TestRefusals(t *testing.T) {
	s := start(t, t.TempDir(), "")
	for _, sig := range signals() {
		body, err := sig.request(newRecord()).MarshalProto()
		require.NoError(t, err)
		for _, ct := range []string{"", "text/plain", "application/xml", "application/grpc"} {
			code, header, out := postHTTP(t, s, http.MethodPost, sig.path, map[string]string{"Content-Type": ct}, body)
			require.Equal(t, http.StatusUnsupportedMediaType, code, ct)
			readStatus(t, header, out)
		}
		for _, enc := range []string{"br", "deflate", "snappy", "gzip, gzip"} {
			code, header, out := postHTTP(t, s, http.MethodPost, sig.path, map[string]string{"Content-Type": typeProto, "Content-Encoding": enc}, body)
			require.Equal(t, http.StatusUnsupportedMediaType, code, enc)
			require.Contains(t, readStatus(t, header, out).GetMessage(), "gzip, zstd or none")
		}
		for _, enc := range []string{"gzip", "zstd"} {
			a := sendHTTP(t, s, sig, "", typeProto, enc, body)
			require.Equal(t, codes.InvalidArgument, a.code, "not compressed at all")
		}
		for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodDelete, http.MethodOptions} {
			code, header, _ := postHTTP(t, s, method, sig.path, nil, nil)
			require.Equal(t, http.StatusMethodNotAllowed, code, method)
			require.Equal(t, http.MethodPost, header.Get("Allow"))
		}
	}
	conn, err := grpc.NewClient(s.OTLPGRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	defer conn.Close()
	sig := signals()[0]
	sig.method = "/opentelemetry.proto.collector.trace.v1.TraceService/Import"
	require.Equal(t, codes.Unimplemented, sendGRPC(t.Context(), t, conn, sig, "", "", nil).code)
	n, err := s.Metric(t.Context(), "braid_ingest_requests_total", `code="415"`)
	require.NoError(t, err)
	require.InDelta(t, 3*8, n, 0)
	n, err = s.Metric(t.Context(), "braid_ingest_requests_total", `code="405"`)
	require.NoError(t, err)
	require.InDelta(t, 3*4, n, 0)
}

// TestZipBomb sends a gibibyte of zeros, compressed, many times at once.
func TestZipBomb(t *testing.T) {
	const (
		parts   = 64        // of 16 MiB, one after the other: both formats allow it
		allowed = 256 << 20 // more than before
	)
	s := start(t, t.TempDir(), smallBody)
	before, err := s.Usage()
	require.NoError(t, err)
	tr := &http.Transport{Protocols: new(http.Protocols)}
	tr.Protocols.SetUnencryptedHTTP2(true)
	defer tr.CloseIdleConnections()
	for _, enc := range []string{"gzip", "zstd"} {
		bomb := bytes.Repeat(compress(t, enc, make([]byte, 16<<20)), parts)
		require.Less(t, len(bomb), 2<<20, "smaller than the limit when compressed")
		var wg sync.WaitGroup
		results := make(chan string, 100)
		for range 8 {
			for _, ct := range []string{typeProto, typeJSON} {
				wg.Go(func() { results <- postBomb(t.Context(), s, ct, enc, bomb) })
			}
			wg.Go(func() { results <- callBomb(t.Context(), s, tr, enc, bomb) })
		}
		wg.Wait()
		close(results)
		count := make(map[string]int)
		for r := range results {
			count[r]++
		}
		require.Equal(t, map[string]int{"413": 16, "grpc 8": 8}, count, enc)
	}
	after, err := s.Usage()
	require.NoError(t, err)
	t.Logf("48 bombs of 1 GiB; RSS %d MiB before, at most %d MiB after", before.RSS>>20, after.PeakRSS>>20)
	require.Less(t, after.PeakRSS, before.RSS+allowed)
	healthy(t, s)
}

func postBomb(ctx context.Context, s *harness.Server, ct, enc string, bomb []byte) string {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.OTLPHTTP+"/v1/logs", bytes.NewReader(bomb))
	if err != nil {
		return err.Error()
	}
	req.Header.Set("Content-Type", ct)
	req.Header.Set("Content-Encoding", enc)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	return strconv.Itoa(resp.StatusCode)
}

// callBomb makes a gRPC call by hand: the library has no way to send what is compressed already.
func callBomb(ctx context.Context, s *harness.Server, tr *http.Transport, enc string, bomb []byte) string {
	frame := binary.BigEndian.AppendUint32([]byte{1}, uint32(len(bomb)))
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.OTLPGRPC+signals()[2].method, bytes.NewReader(append(frame, bomb...)))
	if err != nil {
		return err.Error()
	}
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("Grpc-Encoding", enc)
	req.Header.Set("Te", "trailers")
	resp, err := (&http.Client{Transport: tr}).Do(req)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err.Error()
	}
	return "grpc " + resp.Header.Get("Grpc-Status") + resp.Trailer.Get("Grpc-Status")
}

// healthy requires that every client can send and read.
func healthy(t *testing.T, s *harness.Server) {
	t.Helper()
	for _, c := range clients(t, s) {
		for _, sig := range signals() {
			r := newRecord()
			a := c.send(t, sig, "", c.encode(t, sig.request(r)))
			require.Equal(t, codes.OK, a.code, a.message)
			require.Equal(t, 1, sig.stored(t, s, "", r))
		}
	}
}

// TestCancelled has clients that go away: in the middle of a body, by a deadline, and right after the request.
func TestCancelled(t *testing.T) {
	s := start(t, t.TempDir(), "")
	answered := func() float64 {
		n, err := s.Metric(t.Context(), "braid_ingest_requests_total", `protocol="http"`)
		require.NoError(t, err)
		return n
	}
	inFlight := func() bool {
		n, err := s.Metric(t.Context(), "braid_httpapi_in_flight_requests")
		require.NoError(t, err)
		return n == 0
	}
	sig := signals()[2]
	r := newRecord()
	body, err := sig.request(r).MarshalProto()
	require.NoError(t, err)
	t.Run("connection ends", func(t *testing.T) {
		before := answered()
		for range 5 {
			conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", s.OTLPHTTP)
			require.NoError(t, err)
			_, err = fmt.Fprintf(conn, "POST /v1/logs HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s", typeProto, len(body), body[:len(body)/2])
			require.NoError(t, err)
			require.NoError(t, conn.Close())
		}
		require.Eventually(t, func() bool { return answered() == before+5 && inFlight() }, 10*time.Second, 20*time.Millisecond)
	})
	t.Run("deadline", func(t *testing.T) {
		before := answered()
		for range 5 {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			pr, pw := io.Pipe() // half of a body that does not go on
			go func() { _, _ = pw.Write(body[:len(body)/2]) }()
			// The transport waits for its reader of the body before Do returns.
			stop := context.AfterFunc(ctx, func() { _ = pr.CloseWithError(ctx.Err()) })
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.OTLPHTTP+sig.path, pr)
			require.NoError(t, err)
			req.Header.Set("Content-Type", typeProto)
			resp, err := http.DefaultClient.Do(req)
			if err == nil {
				resp.Body.Close()
			}
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.False(t, stop())
			cancel()
		}
		require.Eventually(t, func() bool { return answered() == before+5 && inFlight() }, 10*time.Second, 20*time.Millisecond)
	})
	ok, err := s.Metric(t.Context(), "braid_ingest_requests_total", `code="200"`)
	require.NoError(t, err)
	require.Zero(t, ok)
	require.Zero(t, sig.stored(t, s, "", r))

	// Deadlines that are over somewhere on the way. Whatever the client was told, what it saw acknowledged is there.
	t.Run("grpc", func(t *testing.T) {
		conn, err := grpc.NewClient(s.OTLPGRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
		require.NoError(t, err)
		defer conn.Close()
		outcomes := make(map[codes.Code]int)
		for n := range 200 {
			sig, r := signals()[n%3], newRecord()
			body, err := sig.request(r).MarshalProto()
			require.NoError(t, err)
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(n)*20*time.Microsecond)
			a := sendGRPC(ctx, t, conn, sig, "", "", body)
			cancel()
			outcomes[a.code]++
			if a.code == codes.OK {
				require.Equal(t, 1, sig.stored(t, s, "", r))
			} else {
				require.Contains(t, []codes.Code{codes.DeadlineExceeded, codes.Canceled}, a.code, a.message)
				require.LessOrEqual(t, sig.stored(t, s, "", r), 1)
			}
		}
		t.Logf("%v", outcomes)
		require.Positive(t, outcomes[codes.DeadlineExceeded])
		require.Eventually(t, inFlight, 10*time.Second, 20*time.Millisecond)
	})
	healthy(t, s)
	require.NotContains(t, s.Log(), "level=ERROR")
}
