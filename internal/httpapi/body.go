package httpapi

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
)

// maxWindow is the largest zstd window that is accepted, and so the memory that one body being decompressed
// needs besides its content. Encoders use 8 MiB up to level 19.
const maxWindow = 8 << 20

// Bodies reads request bodies, decompressed, into memory. It may be used concurrently; decoders are pooled.
type Bodies struct {
	max     int64
	deflate bool
	gzip    sync.Pool // of *gzip.Reader
	zstd    sync.Pool // of *zstd.Decoder
}

// NewBodies returns a reader of bodies of at most maxDecoded bytes, compressed and decompressed.
func NewBodies(maxDecoded int64) *Bodies { return &Bodies{max: maxDecoded} }

// WithDeflate makes b read bodies that are encoded as deflate, too, with the header of zlib or, as some clients send it,
// without. It returns b.
func (b *Bodies) WithDeflate() *Bodies {
	b.deflate = true
	return b
}

// Read returns the body of r, decompressed by its Content-Encoding (none, gzip or zstd; one at most), appended to
// buf. The limit holds while decompressing: memory stays within about twice the limit and a window. Errors are
// TooLarge, UnsupportedMedia, BadData for what does not decompress, and Canceled or Timeout for what did not
// arrive. The caller may reuse buf's memory once it is done with the result.
func (b *Bodies) Read(r *http.Request, buf []byte) ([]byte, error) {
	src := &source{r: http.MaxBytesReader(nil, r.Body, b.max)}
	enc := strings.ToLower(strings.TrimSpace(strings.Join(r.Header.Values("Content-Encoding"), ",")))
	if r.ContentLength > b.max {
		return nil, b.tooLarge()
	}
	var out []byte
	var err error
	switch enc {
	case "", "identity":
		out, err = b.read(src, buf, r.ContentLength)
	case "gzip", "x-gzip":
		out, err = b.readGzip(src, buf, r.ContentLength)
	case "zstd":
		out, err = b.readZstd(src, buf, r.ContentLength)
	case "deflate":
		if !b.deflate {
			return nil, Errorf(UnsupportedMedia, "Content-Encoding %q is not supported; use gzip, zstd or none", enc)
		}
		out, err = b.readDeflate(src, buf, r.ContentLength)
	default:
		return nil, Errorf(UnsupportedMedia, "Content-Encoding %q is not supported; use gzip, zstd or none", short(enc))
	}
	if err == nil {
		return out, nil
	}
	return nil, b.explain(r.Context(), enc, src.err, err)
}

// explain says whose fault it is that a body could not be read: srcErr is the error of the connection.
func (b *Bodies) explain(ctx context.Context, enc string, srcErr, err error) error {
	switch {
	case errors.As(err, new(*Error)):
		return err
	case errors.As(srcErr, new(*http.MaxBytesError)):
		return b.tooLarge()
	case errors.Is(srcErr, io.ErrUnexpectedEOF):
		return &Error{Kind: BadData, Message: "the body ends too early", Err: srcErr}
	case srcErr != nil:
		if ne, ok := errors.AsType[net.Error](srcErr); ok && ne.Timeout() || errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return &Error{Kind: Timeout, Message: "the body did not arrive in time", Err: srcErr}
		}
		return &Error{Kind: Canceled, Message: "the body did not arrive", Err: srcErr}
	case errors.Is(err, zstd.ErrWindowSizeExceeded), errors.Is(err, zstd.ErrDecoderSizeExceeded):
		return &Error{Kind: TooLarge, Message: fmt.Sprintf("the body needs a zstd window of more than %d bytes", maxWindow), Err: err}
	default:
		return &Error{Kind: BadData, Message: fmt.Sprintf("the body is not valid %s: %s", enc, err), Err: err}
	}
}

func (b *Bodies) tooLarge() error {
	return &Error{Kind: TooLarge, Message: fmt.Sprintf("the body is larger than %d bytes", b.max)}
}

// read appends what src has to buf, up to the limit. The hint is the number of bytes to expect, negative when not
// known; it is not believed beyond a megabyte.
func (b *Bodies) read(src io.Reader, buf []byte, hint int64) ([]byte, error) {
	out := bytes.NewBuffer(buf)
	out.Grow(int(min(max(hint, 0), 1<<20)) + bytes.MinRead)
	n, err := out.ReadFrom(io.LimitReader(src, b.max+1))
	if err != nil {
		return nil, err
	}
	if n > b.max {
		return nil, b.tooLarge()
	}
	return out.Bytes(), nil
}

func (b *Bodies) readGzip(src io.Reader, buf []byte, hint int64) ([]byte, error) {
	z, _ := b.gzip.Get().(*gzip.Reader)
	if z == nil {
		z = new(gzip.Reader)
	}
	defer b.gzip.Put(z)
	if err := z.Reset(src); err != nil {
		return nil, err
	}
	return b.read(z, buf, 4*hint)
}

func (b *Bodies) readDeflate(src io.Reader, buf []byte, hint int64) ([]byte, error) {
	in := bufio.NewReader(src)
	head, err := in.Peek(2)
	if err != nil {
		return nil, io.ErrUnexpectedEOF
	}
	var z io.ReadCloser
	if head[0]&0x0f == 8 && (uint(head[0])<<8|uint(head[1]))%31 == 0 {
		if z, err = zlib.NewReader(in); err != nil {
			return nil, err
		}
	} else {
		z = flate.NewReader(in)
	}
	defer func() { _ = z.Close() }()
	return b.read(z, buf, 4*hint)
}

func (b *Bodies) readZstd(src io.Reader, buf []byte, hint int64) ([]byte, error) {
	z, _ := b.zstd.Get().(*zstd.Decoder)
	if z == nil {
		var err error
		z, err = zstd.NewReader(nil,
			zstd.WithDecoderConcurrency(1), // no goroutines
			zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(maxWindow),
			zstd.WithDecoderMaxMemory(maxWindow), // of a frame that is its own window
		)
		if err != nil {
			return nil, fmt.Errorf("open zstd decoder: %w", err)
		}
	}
	defer func() {
		_ = z.Reset(nil) // keeps nothing of src
		b.zstd.Put(z)
	}()
	if err := z.Reset(src); err != nil {
		return nil, err
	}
	return b.read(z, buf, 4*hint)
}

// Snappy appends the snappy block src to buf, decompressed, when that is at most the limit: for protocols whose
// bodies are snappy by definition. Errors are TooLarge and BadData.
func (b *Bodies) Snappy(src, buf []byte) ([]byte, error) {
	n, err := s2.DecodedLen(src)
	if err != nil {
		return nil, &Error{Kind: BadData, Message: "the body is not valid snappy: " + err.Error(), Err: err}
	}
	if int64(n) > b.max {
		return nil, b.tooLarge()
	}
	// A snappy block can tell a length that it does not have, but expands by less than 32 times plus a little;
	// what claims more is not believed before memory is taken.
	if int64(n) > 64*int64(len(src))+1024 {
		return nil, BadDataf("the body is not valid snappy: %d bytes cannot hold %d", len(src), n)
	}
	start := len(buf)
	buf = append(buf, make([]byte, n)...)
	if _, err := s2.Decode(buf[start:], src); err != nil {
		return nil, &Error{Kind: BadData, Message: "the body is not valid snappy: " + err.Error(), Err: err}
	}
	return buf, nil
}

// source keeps the error of the reader below a decoder, which decoders do not always pass on.
type source struct {
	r   io.Reader
	err error // not io.EOF
}

// Read reads from below.
func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

// short cuts text from a client to a length that fits a message.
func short(s string) string {
	if len(s) > 40 {
		return s[:40] + "..."
	}
	return s
}
