package otlp_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/braidobs/braid/ingest"
	"github.com/braidobs/braid/ingest/otlp"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

const (
	typeProto = "application/x-protobuf"
	typeText  = "application/json"
)

func readStatus(t *testing.T, resp reply, body []byte) *spb.Status {
	t.Helper()
	st := new(spb.Status)
	if resp.Header.Get("Content-Type") == typeText {
		require.NoError(t, protojson.Unmarshal(body, st), "%s", body)
	} else {
		require.Equal(t, typeProto, resp.Header.Get("Content-Type"))
		require.NoError(t, proto.Unmarshal(body, st))
	}
	return st
}

func (c signalCase) body(contentType string, n int) []byte {
	if contentType == typeText {
		return c.json(n)
	}
	return c.proto(n)
}

// TestHTTP is the table of OTLP/HTTP: every signal, type and encoding against every outcome.
func TestHTTP(t *testing.T) {
	r := newRig(t, func(_ *ingest.Config, c *otlp.Config) { c.MaxBody = 1 << 20 })
	for _, sig := range signals() {
		for _, ct := range []string{typeProto, typeText} {
			for _, enc := range []string{"", "gzip", "zstd"} {
				send := func(t *testing.T, body []byte) (reply, []byte) {
					t.Helper()
					resp, out := r.post(t, sig.path, ct, enc, compress(t, enc, body))
					require.Equal(t, ct, resp.Header.Get("Content-Type"))
					return resp, out
				}
				whole := func(t *testing.T, resp reply, out []byte) {
					t.Helper()
					require.Equal(t, http.StatusOK, resp.StatusCode, "%s", out)
					if ct == typeText {
						require.JSONEq(t, "{}", string(out))
					} else {
						require.Empty(t, out)
					}
				}
				name := fmt.Sprintf("%s %s %s", sig.name, strings.TrimPrefix(ct, "application/"), enc)
				t.Run(name+" ok", func(t *testing.T) {
					r.writer.script(nil)
					resp, out := send(t, sig.body(ct, 3))
					whole(t, resp, out)
					reqs := r.writer.written()
					require.Len(t, reqs, 1)
					require.Equal(t, 3, sig.records(reqs[0]))
					require.Equal(t, ingest.KeyOf(telemetry.DefaultTenant, "otlp/"+sig.name, sig.body(ct, 3)), reqs[0].Key)
					require.Equal(t, telemetry.DefaultTenant, reqs[0].Batches[0].Tenant)
					roundTrip(t, reqs[0].Batches)
				})
				t.Run(name+" empty", func(t *testing.T) {
					r.writer.script(nil)
					body := []byte{}
					if ct == typeText {
						body = []byte("{}")
					}
					resp, out := send(t, body)
					whole(t, resp, out)
					require.Empty(t, r.writer.written())
				})
				t.Run(name+" partial", func(t *testing.T) {
					r.writer.script(func(_ context.Context, req storage.Request) (storage.Rejected, error) {
						out := req.Rejected
						out.Add(sig.rejected(2))
						out.Reason("the store says no")
						return out, nil
					})
					resp, out := send(t, sig.body(ct, 3))
					require.Equal(t, http.StatusOK, resp.StatusCode)
					n, msg, err := sig.partial(ct, out)
					require.NoError(t, err)
					require.EqualValues(t, 2, n)
					require.Equal(t, "the store says no", msg)
				})
				t.Run(name+" unknown fields", func(t *testing.T) {
					r.writer.script(nil)
					body := sig.body(ct, 2)
					if ct == typeText {
						body = append([]byte(`{"unknown":{"a":[1,{"b":null}]},`), body[1:]...)
					} else {
						body = protowire.AppendTag(body, 999, protowire.BytesType)
						body = protowire.AppendString(body, "unknown")
						body = protowire.AppendTag(body, 998, protowire.VarintType)
						body = protowire.AppendVarint(body, 1<<60)
					}
					resp, out := send(t, body)
					whole(t, resp, out)
					require.Equal(t, 2, sig.records(r.writer.written()[0]))
				})
				t.Run(name+" malformed", func(t *testing.T) {
					r.writer.script(nil)
					for _, body := range []string{"{\"resourceSpans\": 7,,}", "\x0a\xff\xff\xff\xff\x0f", "{} {}", "[]"} {
						resp, out := send(t, []byte(body))
						require.Equal(t, http.StatusBadRequest, resp.StatusCode, "%q", body)
						st := readStatus(t, resp, out)
						require.Equal(t, int32(codes.InvalidArgument), st.GetCode())
						require.Contains(t, st.GetMessage(), "malformed")
					}
					require.Empty(t, r.writer.written())
				})
				t.Run(name+" too large", func(t *testing.T) {
					r.writer.script(nil)
					resp, out := send(t, sig.body(ct, 12_000))
					require.Equal(t, http.StatusRequestEntityTooLarge, resp.StatusCode)
					st := readStatus(t, resp, out)
					require.Equal(t, int32(codes.ResourceExhausted), st.GetCode())
					require.Empty(t, st.GetDetails())
					require.Empty(t, resp.Header.Get("Retry-After"))
					require.Empty(t, r.writer.written())
				})
				if enc != "" {
					t.Run(name+" not compressed", func(t *testing.T) {
						resp, out := r.post(t, sig.path, ct, enc, sig.body(ct, 1))
						require.Equal(t, http.StatusBadRequest, resp.StatusCode)
						require.Equal(t, int32(codes.InvalidArgument), readStatus(t, resp, out).GetCode())
					})
				}
				t.Run(name+" errors", func(t *testing.T) {
					for _, tt := range storeErrors() {
						r.writer.script(func(context.Context, storage.Request) (storage.Rejected, error) { return storage.Rejected{}, tt.err })
						resp, out := send(t, sig.body(ct, 1))
						require.Equal(t, tt.http, resp.StatusCode, tt.name)
						st := readStatus(t, resp, out)
						require.Equal(t, int32(tt.grpc), st.GetCode(), tt.name)
						require.Contains(t, st.GetMessage(), tt.message)
						require.NotContains(t, st.GetMessage(), "secret")
						want := ""
						if tt.retry > 0 {
							want = strconv.Itoa(int(tt.retry.Seconds()))
						}
						require.Equal(t, want, resp.Header.Get("Retry-After"), tt.name)
						require.Equal(t, tt.retry, retryInfo(status.FromProto(st)), tt.name)
					}
				})
			}
		}
	}
	require.Positive(t, testutil.CollectAndCount(r.reg, "braid_ingest_requests_total"))
	problems, err := testutil.GatherAndLint(r.reg)
	require.NoError(t, err)
	require.Empty(t, problems)
}

type storeError struct {
	name    string
	err     error
	http    int
	grpc    codes.Code
	retry   time.Duration
	message string
}

func storeErrors() []storeError {
	return []storeError{
		{"overloaded", fmt.Errorf("queue: %w", &storage.Overloaded{Reason: "the head is full", RetryAfter: 3 * time.Second}), 503, codes.Unavailable, 3 * time.Second, "the head is full"},
		{"full", &storage.Overloaded{Reason: "no space", RetryAfter: time.Second, Err: storage.ErrFull}, 503, codes.Unavailable, time.Second, "no space"},
		{"bare overload", storage.ErrOverloaded, 503, codes.Unavailable, time.Second, "overloaded"},
		{"too large", fmt.Errorf("append: %w", storage.ErrTooLarge), 413, codes.ResourceExhausted, 0, "too large"},
		{"closed", storage.ErrClosed, 503, codes.Unavailable, 0, "closed"},
		{"cancelled", context.Canceled, 499, codes.Canceled, 0, "canceled"},
		{"deadline", fmt.Errorf("wait: %w", context.DeadlineExceeded), 504, codes.DeadlineExceeded, 0, "too long"},
		{"internal", errors.New("secret"), 500, codes.Internal, 0, "internal error, logged with ID"},
	}
}

func retryInfo(st *status.Status) time.Duration {
	for _, d := range st.Details() {
		if r, ok := d.(*errdetails.RetryInfo); ok {
			return r.GetRetryDelay().AsDuration()
		}
	}
	return 0
}

// TestGRPC is the table of OTLP/gRPC.
func TestGRPC(t *testing.T) {
	r := newRig(t, func(_ *ingest.Config, c *otlp.Config) { c.MaxBody = 1 << 20 })
	conn := r.dial(t)
	for _, sig := range signals() {
		for _, enc := range []string{encoding.Identity, "gzip", "zstd"} {
			opt := grpc.UseCompressor(enc)
			name := sig.name + " " + enc
			t.Run(name+" ok", func(t *testing.T) {
				r.writer.script(nil)
				n, msg, err := sig.export(t.Context(), conn, 3, opt)
				require.NoError(t, err)
				require.Zero(t, n)
				require.Empty(t, msg)
				reqs := r.writer.written()
				require.Len(t, reqs, 1)
				require.Equal(t, 3, sig.records(reqs[0]))
				require.Equal(t, ingest.KeyOf(telemetry.DefaultTenant, "otlp/"+sig.name, sig.proto(3)), reqs[0].Key)
				roundTrip(t, reqs[0].Batches)
			})
			t.Run(name+" empty", func(t *testing.T) {
				r.writer.script(nil)
				_, _, err := sig.export(t.Context(), conn, 0, opt)
				require.NoError(t, err)
				require.Empty(t, r.writer.written())
			})
			t.Run(name+" partial", func(t *testing.T) {
				r.writer.script(func(context.Context, storage.Request) (storage.Rejected, error) {
					out := sig.rejected(2)
					out.Reason("the store says no")
					return out, nil
				})
				n, msg, err := sig.export(t.Context(), conn, 3, opt)
				require.NoError(t, err)
				require.EqualValues(t, 2, n)
				require.Equal(t, "the store says no", msg)
			})
			t.Run(name+" too large", func(t *testing.T) {
				r.writer.script(nil)
				_, _, err := sig.export(t.Context(), conn, 12_000, opt)
				require.Equal(t, codes.ResourceExhausted, status.Code(err), "%v", err)
				require.Zero(t, retryInfo(status.Convert(err)))
				require.Empty(t, r.writer.written())
			})
			t.Run(name+" errors", func(t *testing.T) {
				for _, tt := range storeErrors() {
					r.writer.script(func(context.Context, storage.Request) (storage.Rejected, error) { return storage.Rejected{}, tt.err })
					_, _, err := sig.export(t.Context(), conn, 1, opt)
					require.Equal(t, tt.grpc, status.Code(err), "%s: %v", tt.name, err)
					require.Equal(t, tt.retry, retryInfo(status.Convert(err)), tt.name)
					require.Contains(t, err.Error(), tt.message)
					require.NotContains(t, err.Error(), "secret")
				}
			})
			t.Run(name+" malformed", func(t *testing.T) {
				r.writer.script(nil)
				method := map[string]string{
					"traces": "/opentelemetry.proto.collector.trace.v1.TraceService/Export", "logs": "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
					"metrics": "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
				}[sig.name]
				for _, body := range []string{"\x0a\xff\xff\xff\xff\x0f", "\x0a\x02\x0a\x7f"} {
					err := conn.Invoke(t.Context(), method, rawMessage(body), &rawMessage{}, opt, grpc.ForceCodec(rawCodec{}))
					require.Equal(t, codes.InvalidArgument, status.Code(err), "%v", err)
				}
				require.Empty(t, r.writer.written())
			})
		}
	}
}

// rawMessage is bytes that are sent as they are.
type rawMessage []byte

type rawCodec struct{}

func (rawCodec) Marshal(v any) ([]byte, error)      { return v.(rawMessage), nil }
func (rawCodec) Unmarshal(data []byte, v any) error { *v.(*rawMessage) = bytes.Clone(data); return nil }
func (rawCodec) Name() string                       { return "proto" }

func TestHTTPRefusals(t *testing.T) {
	r := newRig(t, nil)
	sig := signals()[0]
	t.Run("types", func(t *testing.T) {
		for _, ct := range []string{"", "text/plain", "application/xml", "application/grpc"} {
			resp, out := r.post(t, sig.path, ct, "", sig.proto(1))
			require.Equal(t, http.StatusUnsupportedMediaType, resp.StatusCode)
			require.Equal(t, int32(codes.InvalidArgument), readStatus(t, resp, out).GetCode())
		}
		for _, ct := range []string{"application/json; charset=utf-8", "Application/JSON", "application/json;charset"} {
			resp, _ := r.post(t, sig.path, ct, "", sig.json(1))
			require.Equal(t, http.StatusOK, resp.StatusCode, ct)
			require.Equal(t, typeText, resp.Header.Get("Content-Type"))
		}
		resp, _ := r.post(t, sig.path, "application/protobuf", "", sig.proto(1))
		require.Equal(t, http.StatusOK, resp.StatusCode)
	})
	t.Run("encodings", func(t *testing.T) {
		for _, enc := range []string{"br", "deflate", "gzip, gzip", "snappy"} {
			resp, out := r.post(t, sig.path, typeProto, enc, sig.proto(1))
			require.Equal(t, http.StatusUnsupportedMediaType, resp.StatusCode)
			require.Contains(t, readStatus(t, resp, out).GetMessage(), "gzip, zstd or none")
		}
	})
	t.Run("methods", func(t *testing.T) {
		for _, m := range []string{http.MethodGet, http.MethodPut, http.MethodDelete, http.MethodOptions} {
			req, err := http.NewRequestWithContext(t.Context(), m, r.http+sig.path, nil)
			require.NoError(t, err)
			resp, err := http.DefaultClient.Do(req)
			require.NoError(t, err)
			resp.Body.Close()
			require.Equal(t, http.StatusMethodNotAllowed, resp.StatusCode)
			require.Equal(t, http.MethodPost, resp.Header.Get("Allow"))
		}
	})
	t.Run("tenants", func(t *testing.T) {
		r.writer.script(nil)
		resp, _ := r.post(t, sig.path, typeProto, "", sig.proto(1), "X-Scope-OrgID", "blue")
		require.Equal(t, http.StatusOK, resp.StatusCode)
		require.Equal(t, telemetry.Tenant("blue"), r.writer.written()[0].Batches[0].Tenant)
		for _, name := range []string{"a|b", "no spaces", "_self"} {
			resp, out := r.post(t, sig.path, typeProto, "", sig.proto(1), "X-Scope-OrgID", name)
			require.Equal(t, http.StatusBadRequest, resp.StatusCode)
			require.Equal(t, int32(codes.InvalidArgument), readStatus(t, resp, out).GetCode())
		}
		ctx := metadata.AppendToOutgoingContext(t.Context(), "x-scope-orgid", "green")
		r.writer.script(nil)
		_, _, err := sig.export(ctx, r.dial(t), 1)
		require.NoError(t, err)
		require.Equal(t, telemetry.Tenant("green"), r.writer.written()[0].Batches[0].Tenant)
	})
	t.Run("aliases", func(t *testing.T) {
		r.writer.script(nil)
		resp, _ := r.post(t, "/otlp/v1/logs", typeProto, "", signals()[1].proto(1))
		require.Equal(t, http.StatusOK, resp.StatusCode)
		resp, _ = r.post(t, "/api/v1/otlp/v1/metrics", typeProto, "", signals()[2].proto(1))
		require.Equal(t, http.StatusOK, resp.StatusCode)
		require.Len(t, r.writer.written(), 2)
	})
}

// TestTooManyTenants refuses the tenant after the last one that is allowed, and none that was there.
func TestTooManyTenants(t *testing.T) {
	r := newRig(t, func(c *ingest.Config, _ *otlp.Config) { c.MaxTenants = 2 })
	sig := signals()[0]
	for _, tt := range []struct {
		tenant string
		code   int
	}{{"a", 200}, {"b", 200}, {"c", 429}, {"a", 200}} {
		resp, out := r.post(t, sig.path, typeProto, "", sig.proto(1), "X-Scope-OrgID", tt.tenant)
		require.Equal(t, tt.code, resp.StatusCode)
		if tt.code != 200 {
			require.Contains(t, readStatus(t, resp, out).GetMessage(), "ingest.max_tenants")
			require.Empty(t, resp.Header.Get("Retry-After"))
		}
	}
}

// TestCancelled has clients that go away while the store is busy: the store's context ends.
func TestCancelled(t *testing.T) {
	r := newRig(t, nil)
	conn := r.dial(t)
	sig := signals()[0]
	arrived, left := make(chan struct{}), make(chan error)
	r.writer.script(func(ctx context.Context, _ storage.Request) (storage.Rejected, error) {
		arrived <- struct{}{}
		<-ctx.Done()
		left <- ctx.Err()
		return storage.Rejected{}, ctx.Err()
	})
	t.Run("grpc", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			_, _, err := sig.export(ctx, conn, 1)
			done <- err
		}()
		<-arrived
		cancel()
		require.ErrorIs(t, <-left, context.Canceled)
		require.Equal(t, codes.Canceled, status.Code(<-done))
	})
	t.Run("http", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.http+sig.path, bytes.NewReader(sig.proto(1)))
			if err != nil {
				done <- err
				return
			}
			req.Header.Set("Content-Type", typeProto)
			resp, err := http.DefaultClient.Do(req)
			if err == nil {
				resp.Body.Close()
			}
			done <- err
		}()
		<-arrived
		cancel()
		require.ErrorIs(t, <-left, context.Canceled)
		require.ErrorIs(t, <-done, context.Canceled)
	})
}

// TestZipBomb sends a gibibyte of zeros, compressed, and requires that it is refused with little memory.
func TestZipBomb(t *testing.T) {
	const parts = 64 // of 16 MiB, one after the other: both formats allow it
	r := newRig(t, func(_ *ingest.Config, c *otlp.Config) { c.MaxBody = 8 << 20 })
	bombs := make(map[string][]byte)
	for _, enc := range []string{"gzip", "zstd"} {
		bombs[enc] = bytes.Repeat(compress(t, enc, make([]byte, 16<<20)), parts)
	}

	allocated := func(f func()) uint64 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		f()
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	const most = 128 << 20 // of all that is ever allocated, client and server
	for enc, bomb := range bombs {
		for _, ct := range []string{typeProto, typeText} {
			n := allocated(func() {
				resp, _ := r.post(t, "/v1/logs", ct, enc, bomb)
				require.Equal(t, http.StatusRequestEntityTooLarge, resp.StatusCode)
			})
			require.Less(t, n, uint64(most), "%s %s", enc, ct)
		}
		n := allocated(func() {
			// A gRPC call by hand: the library has no way to send what is compressed already.
			frame := binary.BigEndian.AppendUint32([]byte{1}, uint32(len(bomb)))
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost,
				"http://"+r.grpc+"/opentelemetry.proto.collector.logs.v1.LogsService/Export", bytes.NewReader(append(frame, bomb...)))
			require.NoError(t, err)
			req.Header.Set("Content-Type", "application/grpc")
			req.Header.Set("Grpc-Encoding", enc)
			req.Header.Set("Te", "trailers")
			tr := &http.Transport{Protocols: new(http.Protocols)}
			tr.Protocols.SetUnencryptedHTTP2(true)
			defer tr.CloseIdleConnections()
			resp, err := (&http.Client{Transport: tr}).Do(req)
			require.NoError(t, err)
			defer resp.Body.Close()
			_, err = io.Copy(io.Discard, resp.Body)
			require.NoError(t, err)
			got := resp.Trailer.Get("Grpc-Status") + resp.Header.Get("Grpc-Status")
			require.Equal(t, strconv.Itoa(int(codes.ResourceExhausted)), got)
		})
		require.Less(t, n, uint64(most), "grpc %s", enc)
	}
	require.Empty(t, r.writer.written())
}
