package httpapi_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/httpapi"
)

func gz(tb testing.TB, b []byte) []byte {
	tb.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, err := w.Write(b)
	require.NoError(tb, err)
	require.NoError(tb, w.Close())
	return out.Bytes()
}

func zs(tb testing.TB, b []byte, opts ...zstd.EOption) []byte {
	tb.Helper()
	var out bytes.Buffer
	w, err := zstd.NewWriter(&out, append(opts, zstd.WithEncoderConcurrency(1))...)
	require.NoError(tb, err)
	_, err = w.Write(b)
	require.NoError(tb, err)
	require.NoError(tb, w.Close())
	return out.Bytes()
}

func TestDeflate(t *testing.T) {
	const limit = 1 << 20
	text := bytes.Repeat([]byte("hello "), 1000)
	pack := func(b []byte, raw bool) []byte {
		var out bytes.Buffer
		var w io.WriteCloser = zlib.NewWriter(&out)
		if raw {
			var err error
			w, err = flate.NewWriter(&out, flate.DefaultCompression)
			require.NoError(t, err)
		}
		_, err := w.Write(b)
		require.NoError(t, err)
		require.NoError(t, w.Close())
		return out.Bytes()
	}
	tests := []struct {
		name string
		body []byte
		want []byte
		kind httpapi.Kind // when want is nil
	}{
		{"zlib", pack(text, false), text, 0},
		{"raw", pack(text, true), text, 0},
		{"bomb", pack(make([]byte, 64<<20), false), nil, httpapi.TooLarge},
		{"raw bomb", pack(make([]byte, 64<<20), true), nil, httpapi.TooLarge},
		{"garbage", text, nil, httpapi.BadData},
		{"cut off", pack(text, false)[:10], nil, httpapi.BadData},
		{"empty", nil, nil, httpapi.BadData},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(tt.body))
			r.Header.Set("Content-Encoding", "Deflate")
			got, err := httpapi.NewBodies(limit).WithDeflate().Read(r, nil)
			if tt.want != nil {
				require.NoError(t, err)
				require.Equal(t, tt.want, got)
				return
			}
			require.Equal(t, tt.kind, httpapi.FromError(err).Kind, err)
		})
	}
	r := httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(pack(text, false)))
	r.Header.Set("Content-Encoding", "deflate")
	_, err := httpapi.NewBodies(limit).Read(r, nil)
	require.Equal(t, httpapi.UnsupportedMedia, httpapi.FromError(err).Kind)
}

func TestBodies(t *testing.T) {
	const limit = 1 << 20
	text := bytes.Repeat([]byte("hello "), 1000)
	zeros := func(n int) []byte { return make([]byte, n) }
	oneFrame := func(n int) []byte {
		w, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
		require.NoError(t, err)
		defer w.Close()
		return w.EncodeAll(zeros(n), nil)
	}
	tests := []struct {
		name     string
		encoding string
		body     []byte
		want     []byte
		kind     httpapi.Kind // when want is nil
	}{
		{"plain", "", text, text, 0},
		{"identity", "Identity", text, text, 0},
		{"empty", "", nil, []byte{}, 0},
		{"gzip", "gzip", gz(t, text), text, 0},
		{"gzip of two members", " GZIP ", append(gz(t, text), gz(t, text)...), append(bytes.Clone(text), text...), 0},
		{"zstd", "zstd", zs(t, text), text, 0},
		{"zstd with a window larger than the limit", "zstd", zs(t, text, zstd.WithWindowSize(8<<20)), text, 0},
		{"zstd of two frames", "zstd", append(zs(t, text), zs(t, text)...), append(bytes.Clone(text), text...), 0},
		{"plain at the limit", "", zeros(limit), zeros(limit), 0},
		{"gzip at the limit", "gzip", gz(t, zeros(limit)), zeros(limit), 0},
		{"zstd at the limit", "zstd", zs(t, zeros(limit)), zeros(limit), 0},
		{"plain too large", "", zeros(limit + 1), nil, httpapi.TooLarge},
		{"gzip bomb", "gzip", gz(t, zeros(64<<20)), nil, httpapi.TooLarge},
		{"zstd bomb", "zstd", zs(t, zeros(64<<20)), nil, httpapi.TooLarge},
		{"zstd bomb in one frame", "zstd", oneFrame(64 << 20), nil, httpapi.TooLarge},
		{"zstd window", "zstd", zs(t, zeros(16<<20), zstd.WithWindowSize(16<<20)), nil, httpapi.TooLarge},
		{"gzip garbage", "gzip", text, nil, httpapi.BadData},
		{"gzip cut off", "gzip", gz(t, text)[:20], nil, httpapi.BadData},
		{"gzip empty", "gzip", nil, nil, httpapi.BadData},
		{"zstd garbage", "zstd", text, nil, httpapi.BadData},
		{"zstd cut off", "zstd", zs(t, text)[:20], nil, httpapi.BadData},
		{"unknown", "br", text, nil, httpapi.UnsupportedMedia},
		{"two encodings", "gzip, gzip", text, nil, httpapi.UnsupportedMedia},
	}
	bodies := httpapi.NewBodies(limit)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, known := range []bool{true, false} {
				r := httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(tt.body))
				if !known {
					r.ContentLength = -1
				}
				if tt.encoding != "" {
					r.Header.Set("Content-Encoding", tt.encoding)
				}
				got, err := bodies.Read(r, nil)
				if tt.want == nil {
					require.Error(t, err)
					require.Equal(t, tt.kind, httpapi.FromError(err).Kind, err.Error())
					continue
				}
				require.NoError(t, err)
				require.True(t, bytes.Equal(tt.want, got))
			}
		})
	}
}

func TestBodiesAppends(t *testing.T) {
	r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader("b"))
	got, err := httpapi.NewBodies(10).Read(r, []byte("a"))
	require.NoError(t, err)
	require.Equal(t, "ab", string(got))
}

func TestBodiesConnectionErrors(t *testing.T) {
	late, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	tests := []struct {
		name string
		ctx  context.Context
		err  error
		want httpapi.Kind
	}{
		{"reset", t.Context(), errors.New("connection reset"), httpapi.Canceled},
		{"too short", t.Context(), io.ErrUnexpectedEOF, httpapi.BadData},
		{"timeout", t.Context(), iotest.ErrTimeout, httpapi.Canceled},
		{"net timeout", t.Context(), timeout{}, httpapi.Timeout},
		{"deadline", late, errors.New("closed"), httpapi.Timeout},
	}
	for _, tt := range tests {
		for _, enc := range []string{"", "gzip", "zstd"} {
			t.Run(tt.name+" "+enc, func(t *testing.T) {
				body := io.MultiReader(bytes.NewReader(gz(t, []byte("hello"))[:12]), iotest.ErrReader(tt.err))
				if enc == "zstd" {
					body = io.MultiReader(bytes.NewReader(zs(t, []byte("hello"))[:6]), iotest.ErrReader(tt.err))
				}
				r := httptest.NewRequest(http.MethodPost, "/", body).WithContext(tt.ctx)
				r.Header.Set("Content-Encoding", enc)
				_, err := httpapi.NewBodies(100).Read(r, nil)
				require.Equal(t, tt.want, httpapi.FromError(err).Kind, "%v", err)
			})
		}
	}
}

type timeout struct{}

func (timeout) Error() string   { return "i/o timeout" }
func (timeout) Timeout() bool   { return true }
func (timeout) Temporary() bool { return true }

func TestSnappy(t *testing.T) {
	b := httpapi.NewBodies(1 << 20)
	text := bytes.Repeat([]byte("hello "), 10_000)
	got, err := b.Snappy(s2.EncodeSnappy(nil, text), []byte("x"))
	require.NoError(t, err)
	require.Equal(t, append([]byte("x"), text...), got)
	for name, tt := range map[string]struct {
		in   []byte
		kind httpapi.Kind
	}{
		"too large":   {s2.EncodeSnappy(nil, make([]byte, 2<<20)), httpapi.TooLarge},
		"empty":       {nil, httpapi.BadData},
		"garbage":     {[]byte("garbage"), httpapi.BadData},
		"false claim": {[]byte{0x80, 0x80, 0x20, 0, 0}, httpapi.BadData},
	} {
		_, err := b.Snappy(tt.in, nil)
		require.Error(t, err, name)
		require.Equal(t, tt.kind, httpapi.FromError(err).Kind, name)
	}
}

// FuzzBodies decompresses anything within its limit and without a panic, and an error has a kind.
func FuzzBodies(f *testing.F) {
	f.Add(uint8(0), []byte("hello"))
	f.Add(uint8(1), gz(f, []byte("hello")))
	f.Add(uint8(2), zs(f, []byte("hello")))
	f.Add(uint8(3), s2.EncodeSnappy(nil, []byte("hello")))
	bodies := httpapi.NewBodies(1 << 16)
	f.Fuzz(func(t *testing.T, enc uint8, body []byte) {
		var got []byte
		var err error
		if enc %= 4; enc == 3 {
			got, err = bodies.Snappy(body, nil)
		} else {
			r := httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(body))
			r.Header.Set("Content-Encoding", []string{"identity", "gzip", "zstd"}[enc])
			got, err = bodies.Read(r, nil)
		}
		require.LessOrEqual(t, len(got), 1<<16)
		if err != nil {
			require.NotEqual(t, httpapi.Internal, httpapi.FromError(err).Kind, "%v", err)
		}
	})
}
