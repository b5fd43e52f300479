package ingest

import (
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

// maxPooled is the largest buffer that a Receiver keeps for the next request.
const maxPooled = 8 << 20

// Expansion is how many times the largest body a request may need in memory once it is decoded.
const Expansion = 8

// ReceiverDeps are what a Receiver depends on.
type ReceiverDeps struct {
	Pipeline *Pipeline
	MaxBody  int64          // bytes, compressed and decompressed
	Errors   httpapi.Errors // asked before Classify
	Now      func() time.Time
}

// Receiver is what protocols over HTTP have in common. It may be used concurrently.
type Receiver struct {
	Pipeline *Pipeline
	MaxBody  int64
	Errors   httpapi.Errors // which know those of the store
	Now      func() time.Time

	bodies  *httpapi.Bodies
	buffers sync.Pool // of *[]byte
}

// NewReceiver returns a receiver.
func NewReceiver(d ReceiverDeps) *Receiver {
	first := d.Errors.Classify
	d.Errors.Classify = func(err error) *httpapi.Error {
		if first != nil {
			if out := first(err); out != nil {
				return out
			}
		}
		return Classify(err)
	}
	return &Receiver{Pipeline: d.Pipeline, MaxBody: d.MaxBody, Errors: d.Errors, Now: d.Now, bodies: httpapi.NewBodies(d.MaxBody).WithDeflate()}
}

// Tenant returns the tenant that middleware found or, without middleware, the one that the header names.
func (rc *Receiver) Tenant(r *http.Request) (telemetry.Tenant, error) {
	if t := httpapi.TenantFrom(r.Context()); t != "" {
		return t, nil
	}
	return httpapi.ParseTenant(r.Header.Values(httpapi.TenantHeader), httpapi.Ingest)
}

// Serve answers a POST with a status when handle stored it, or with its error as text, and counts it. Handle returns the size
// of the decompressed body.
func (rc *Receiver) Serve(w http.ResponseWriter, r *http.Request, protocol string, signal storage.Signal, stored int, handle func(r *http.Request) (size int, err error)) {
	code, size := stored, 0
	err := error(httpapi.BadDataf("method %q is not allowed; use POST", r.Method))
	if r.Method == http.MethodPost {
		size, err = handle(r)
	}
	if err == nil {
		w.WriteHeader(code)
	} else {
		var e *httpapi.Error
		e, code = rc.Errors.Header(w, r, httpapi.Ingest, err)
		if r.Method != http.MethodPost {
			w.Header().Set("Allow", http.MethodPost)
			code = http.StatusMethodNotAllowed
		}
		http.Error(w, strings.ToValidUTF8(e.Message, "\uFFFD"), code)
	}
	rc.Pipeline.Observe(protocol, signal, strconv.Itoa(code), size)
}

// Read calls f with the body of r, decompressed by its Content-Encoding (none, gzip, zstd or deflate). With raw, it is
// as it came. The body is valid until f returns.
func (rc *Receiver) Read(r *http.Request, raw bool, f func(body []byte) error) error {
	if raw {
		plain := r.WithContext(r.Context())
		plain.Header = nil // its encoding is part of the protocol
		r = plain
	}
	return rc.buffer(func(buf []byte) ([]byte, error) {
		body, err := rc.bodies.Read(r, buf)
		if err != nil {
			return buf, err
		}
		return body, f(body)
	})
}

// Snappy calls f with the snappy block src decompressed. It is valid until f returns.
func (rc *Receiver) Snappy(src []byte, f func(body []byte) error) error {
	return rc.buffer(func(buf []byte) ([]byte, error) {
		body, err := rc.bodies.Snappy(src, buf)
		if err != nil {
			return buf, err
		}
		return body, f(body)
	})
}

// buffer calls f with an empty buffer and keeps the one that f returns.
func (rc *Receiver) buffer(f func(buf []byte) ([]byte, error)) error {
	b, _ := rc.buffers.Get().(*[]byte)
	if b == nil {
		b = new([]byte)
	}
	out, err := f((*b)[:0])
	if cap(out) <= maxPooled {
		*b = out
		rc.buffers.Put(b)
	}
	return err
}

// Room says how much memory decoded records may take that come with one request. Its methods count what they will take
// before they are made.
type Room struct{ left int64 }

// NewRoom returns the room that a request has.
func (rc *Receiver) NewRoom() *Room { return &Room{left: Expansion * rc.MaxBody} }

// recordSize is what a log record takes without its texts.
const recordSize = 232

// Take takes room for n records and so many bytes. The error, a TooLarge, says that there is none left.
func (m *Room) Take(records, bytes int) error {
	m.left -= int64(records)*recordSize + int64(bytes)
	if m.left < 0 {
		return httpapi.Errorf(httpapi.TooLarge, "the request needs too much memory once it is decoded; send less in one request")
	}
	return nil
}
