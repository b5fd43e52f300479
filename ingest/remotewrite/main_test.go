package remotewrite_test

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/braidobs/braid/ingest"
	"github.com/braidobs/braid/ingest/remotewrite"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// now is the time of the tests.
var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const (
	type1 = "application/x-protobuf"
	type2 = "application/x-protobuf;proto=io.prometheus.write.v2.Request"
)

// writer is a storage.Writer that keeps what it is given and answers what it is told.
type writer struct {
	mu       sync.Mutex // guards requests
	requests []storage.Request
	extra    storage.Rejected
	err      error
}

func (w *writer) Write(_ context.Context, r storage.Request) (storage.Position, storage.Rejected, error) {
	if w.err != nil {
		return 0, storage.Rejected{}, w.err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.requests = append(w.requests, r)
	out := r.Rejected
	out.Add(w.extra)
	return 1, out, nil
}

// series returns all series written so far.
func (w *writer) series() (out []telemetry.Series) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.requests {
		for _, b := range r.Batches {
			out = append(out, b.Series...)
		}
	}
	return out
}

// rig is a server over a writer.
type rig struct {
	*writer
	server *remotewrite.Server
	reg    *prometheus.Registry
}

func newRig(t require.TestingT, change func(*ingest.Config, *remotewrite.Config)) *rig {
	ic, rc := ingest.DefaultConfig(), remotewrite.DefaultConfig()
	if change != nil {
		change(&ic, &rc)
	}
	require.NoError(t, ic.Validate())
	require.NoError(t, rc.Validate())
	clock := func() time.Time { return now }
	r := &rig{writer: &writer{}, reg: prometheus.NewRegistry()}
	r.server = remotewrite.New(rc, remotewrite.Deps{
		Pipeline: ingest.New(ic, ingest.Deps{Writer: r.writer, Now: clock, Metrics: r.reg}), Now: clock,
	})
	return r
}

// send sends a body, compressed here.
func (r *rig) send(contentType string, body []byte) *httptest.ResponseRecorder {
	return r.raw(contentType, "snappy", s2.EncodeSnappy(nil, body))
}

// raw sends a body as it is.
func (r *rig) raw(contentType, encoding string, body []byte) *httptest.ResponseRecorder {
	req := httptest.NewRequest(http.MethodPost, "/api/v1/write", bytes.NewReader(body))
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	if encoding != "" {
		req.Header.Set("Content-Encoding", encoding)
	}
	w := httptest.NewRecorder()
	r.server.ServeHTTP(w, req)
	return w
}

// written returns the counts that an answer of version 2 has.
func written(w *httptest.ResponseRecorder) [3]string {
	h := w.Header()
	return [3]string{h.Get(remotewrite.SamplesWritten), h.Get(remotewrite.HistogramsWritten), h.Get(remotewrite.ExemplarsWritten)}
}
