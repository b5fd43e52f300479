// Package forward delivers what the node agent has collected to the backend, as OTLP over HTTP.
//
// A Client sends one request and tries again until the backend has it. Whoever can read again what it sends (the
// tailer of log files) uses it directly and counts as acknowledged what Deliver returned for. A Queue is for what
// cannot be read again: it makes a request durable on disk, then delivers in order. Requests carry positions (see
// telemetry.Source), so that the backend stores once what is sent twice.
package forward

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/collector/pdata/plog/plogotlp"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/braidobs/braid/ingest/otlp"
	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

// Request is one export.
type Request struct {
	Signal  storage.Signal
	Tenant  telemetry.Tenant
	Body    []byte            // OTLP protobuf, compressed with Compress
	Records int               // for the metrics
	Source  *telemetry.Source // of the whole request; nil for none
}

// Refused is the error of a request that the backend will not take however often it is sent.
type Refused struct {
	Code    int // of HTTP
	Message string
}

// Error tells what the backend said.
func (r *Refused) Error() string {
	return fmt.Sprintf("the backend refused the request with code %d: %s", r.Code, r.Message)
}

// TooLarge says whether less at once may be taken.
func (r *Refused) TooLarge() bool { return r.Code == http.StatusRequestEntityTooLarge }

const (
	firstPause = 250 * time.Millisecond
	maxPause   = 30 * time.Second
	maxAnswer  = 64 << 10 // bytes of an answer that are read
	// remindEvery is how often a log line says that the backend is still away.
	remindEvery = time.Minute
)

// Client sends requests to the backend. It is safe for concurrent use.
type Client struct {
	cfg  Config
	http *http.Client
	enc  *zstd.Encoder
	log  *slog.Logger
	now  func() time.Time

	failing  atomic.Int64 // Unix nanoseconds of the last log line about failing, 0 while all is well
	requests *prometheus.CounterVec
	records  *prometheus.CounterVec
	rejected *prometheus.CounterVec
	bytes    *prometheus.CounterVec
	up       prometheus.Gauge
}

// NewClient returns a client. The configuration must be valid.
func NewClient(c Config, now func() time.Time, log *slog.Logger, reg prometheus.Registerer) (*Client, error) {
	tc, err := c.tls()
	if err != nil {
		return nil, err
	}
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(2), zstd.WithWindowSize(1<<20))
	if err != nil {
		return nil, fmt.Errorf("create zstd encoder: %w", err)
	}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "braid_forward_" + name, Help: help}, labels)
		reg.MustRegister(v)
		return v
	}
	cl := &Client{
		cfg: c, enc: enc, log: log, now: now,
		http: &http.Client{Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, TLSClientConfig: tc, ForceAttemptHTTP2: true,
			MaxIdleConnsPerHost: 16, IdleConnTimeout: 90 * time.Second,
		}},
		requests: counter("requests_total", "Requests to the backend, by signal and the code of the answer; error when there was none.", "signal", "code"),
		records:  counter("records_total", "Records that the backend has.", "signal"),
		rejected: counter("records_rejected_total", "Records that the backend rejected or refused; they are lost.", "signal"),
		bytes:    counter("bytes_total", "Compressed bytes sent to the backend.", "signal"),
		up:       prometheus.NewGauge(prometheus.GaugeOpts{Name: "braid_forward_up", Help: "Whether the last request reached the backend."}),
	}
	reg.MustRegister(cl.up)
	return cl, nil
}

// Close ends idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Compress returns the body of a request as it is sent.
func (c *Client) Compress(body []byte) []byte { return c.enc.EncodeAll(body, nil) }

// Deliver sends r until the backend has it. It returns nil then, a *Refused when the backend will not take it, or the
// error of ctx. Overload, faults of the backend, missing rights and a backend that is not there are waited out.
func (c *Client) Deliver(ctx context.Context, r Request) error {
	pause := firstPause
	for {
		after, err := c.once(ctx, r)
		if err == nil {
			return nil
		}
		if _, ok := errors.AsType[*Refused](err); ok {
			c.rejected.WithLabelValues(r.Signal.String()).Add(float64(r.Records))
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		c.fails(err)
		wait := after
		if wait == 0 {
			wait = time.Duration(rand.Int64N(int64(pause))) + time.Millisecond
			pause = min(2*pause, maxPause)
		} else { // many agents were told the same
			wait += time.Duration(rand.Int64N(int64(wait)/4 + 1))
		}
		t := time.NewTimer(min(wait, maxPause))
		select {
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		case <-t.C:
		}
	}
}

// fails notes that the backend cannot be reached, in the log now and then.
func (c *Client) fails(err error) {
	c.up.Set(0)
	now, last := c.now().UnixNano(), c.failing.Load()
	if last != 0 && now-last < int64(remindEvery) {
		return
	}
	if c.failing.CompareAndSwap(last, now) {
		c.log.Warn("the backend does not take what is sent; it is tried again until it does", "endpoint", c.cfg.Endpoint, "err", err)
	}
}

func (c *Client) works() {
	c.up.Set(1)
	if c.failing.Swap(0) != 0 {
		c.log.Info("the backend takes what is sent again", "endpoint", c.cfg.Endpoint)
	}
}

// once makes one try. A positive duration is what the backend asked to wait.
func (c *Client) once(ctx context.Context, r Request) (after time.Duration, err error) {
	signal := r.Signal.String()
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout.Std())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(c.cfg.Endpoint, "/")+"/v1/"+signal, bytes.NewReader(r.Body))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", "application/x-protobuf")
	req.Header.Set("Content-Encoding", "zstd")
	req.Header.Set(httpapi.TenantHeader, string(r.Tenant))
	for k, v := range c.cfg.Headers {
		req.Header.Set(k, v.Reveal())
	}
	if s := r.Source; s != nil {
		req.Header.Set(otlp.SourceHeader, url.Values{
			"stream": {s.Stream}, "file": {s.File}, "from": {strconv.FormatUint(s.From, 10)}, "to": {strconv.FormatUint(s.To, 10)},
		}.Encode())
	}
	resp, err := c.http.Do(req)
	if err != nil {
		c.requests.WithLabelValues(signal, "error").Inc()
		return 0, err
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	_ = resp.Body.Close()
	c.requests.WithLabelValues(signal, strconv.Itoa(resp.StatusCode)).Inc()
	c.bytes.WithLabelValues(signal).Add(float64(len(r.Body)))
	switch {
	case resp.StatusCode == http.StatusOK && err == nil:
		c.works()
		c.accepted(r, body)
		return 0, nil
	case resp.StatusCode == http.StatusOK:
		return 0, fmt.Errorf("read the answer: %w", err)
	}
	said := message(resp.Header.Get("Content-Type"), body)
	switch resp.StatusCode {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity:
		return 0, &Refused{Code: resp.StatusCode, Message: said}
	}
	if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && s > 0 {
		after = time.Duration(min(s, int(maxPause/time.Second))) * time.Second
	}
	return after, fmt.Errorf("the backend answered with code %d: %s", resp.StatusCode, said)
}

// accepted counts what the backend has and what of it it rejected.
func (c *Client) accepted(r Request, body []byte) {
	var rejected int64
	var why string
	if len(body) > 0 {
		switch r.Signal {
		case storage.Traces:
			m := ptraceotlp.NewExportResponse()
			if m.UnmarshalProto(body) == nil {
				rejected, why = m.PartialSuccess().RejectedSpans(), m.PartialSuccess().ErrorMessage()
			}
		case storage.Logs:
			m := plogotlp.NewExportResponse()
			if m.UnmarshalProto(body) == nil {
				rejected, why = m.PartialSuccess().RejectedLogRecords(), m.PartialSuccess().ErrorMessage()
			}
		case storage.Metrics:
			m := pmetricotlp.NewExportResponse()
			if m.UnmarshalProto(body) == nil {
				rejected, why = m.PartialSuccess().RejectedDataPoints(), m.PartialSuccess().ErrorMessage()
			}
		}
	}
	if rejected > 0 {
		c.rejected.WithLabelValues(r.Signal.String()).Add(float64(rejected))
		c.log.Warn("the backend rejected records", "signal", r.Signal.String(), "records", rejected, "why", why)
	}
	if n := int64(r.Records) - rejected; n > 0 {
		c.records.WithLabelValues(r.Signal.String()).Add(float64(n))
	}
}

// message returns what an answer says to a person.
func message(contentType string, body []byte) string {
	text := string(body)
	if strings.HasPrefix(contentType, "application/x-protobuf") {
		var st spb.Status
		if proto.Unmarshal(body, &st) == nil {
			text = st.GetMessage()
		}
	}
	if len(text) > 300 {
		text = text[:300] + "..."
	}
	return strconv.Quote(strings.ToValidUTF8(text, "\uFFFD"))
}
