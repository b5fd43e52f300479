package ingest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

// Deps are what a pipeline depends on.
type Deps struct {
	Writer  storage.Writer
	Now     func() time.Time
	Metrics prometheus.Registerer // nil registers nothing
}

// Pipeline is where the protocols meet. It may be used concurrently.
type Pipeline struct {
	config Config
	writer storage.Writer
	now    func() time.Time
	labels *Interner

	requests *prometheus.CounterVec
	records  *prometheus.CounterVec
	rejected *prometheus.CounterVec
	bytes    *prometheus.CounterVec
	cut      prometheus.Counter

	mu      sync.Mutex // guards tenants; nothing is called under it
	tenants map[telemetry.Tenant]struct{}
}

// New returns a pipeline. A registry takes its metrics once. The configuration must be valid.
func New(c Config, d Deps) *Pipeline {
	f := promauto.With(d.Metrics)
	return &Pipeline{
		config: c, writer: d.Writer, now: d.Now, tenants: make(map[telemetry.Tenant]struct{}),
		labels: NewInterner(c.LabelCache.Bytes(), d.Metrics),
		requests: f.NewCounterVec(prometheus.CounterOpts{
			Name: "braid_ingest_requests_total", Help: "Write requests, by how they were answered.",
		}, []string{"protocol", "signal", "code"}),
		records: f.NewCounterVec(prometheus.CounterOpts{
			Name: "braid_ingest_records_total", Help: "Spans, log records and samples that were stored.",
		}, []string{"signal"}),
		rejected: f.NewCounterVec(prometheus.CounterOpts{
			Name: "braid_ingest_rejected_total", Help: "Records that were refused one by one, by the limit they were over.",
		}, []string{"signal", "reason"}),
		bytes: f.NewCounterVec(prometheus.CounterOpts{
			Name: "braid_ingest_bytes_total", Help: "Decompressed bytes of write requests.",
		}, []string{"protocol", "signal"}),
		cut: f.NewCounter(prometheus.CounterOpts{
			Name: "braid_ingest_cut_lines_total", Help: "Log lines over 1 MiB, of which only the beginning was kept; they have the attribute log.truncated.",
		}),
	}
}

// Config returns the limits, for protocols that check them on the way.
func (p *Pipeline) Config() Config { return p.config }

// Labels returns the label sets that protocols share. What is interned there must have passed CheckLabels.
func (p *Pipeline) Labels() *Interner { return p.labels }

// CheckLabels returns which limit the labels of a series are over, a word of a small set for Refuse, and what the
// sender is told; both are empty when it is none.
func (p *Pipeline) CheckLabels(ls telemetry.LabelSet) (reason, message string) {
	l := limiter{c: p.config}
	br := l.labels(ls)
	return br.reason, br.message
}

// Checker tells which records of one request the limits refuse, for protocols that answer record by record.
type Checker struct{ l *limiter }

// Checker returns a checker for a request that arrives now.
func (p *Pipeline) Checker() *Checker { return &Checker{newLimiter(p)} }

// Log returns which limit a log record is over and what the sender is told, like CheckLabels.
func (c *Checker) Log(r *telemetry.LogRecord) (reason, message string) {
	br := c.l.record(r)
	if br.none() && r.Size()-max(r.Body.Size()-MaxLine, 0) > int(c.l.c.MaxRecord) {
		br = c.l.tooLarge("a log record")
	}
	return br.reason, br.message
}

// KeyOf returns the key of a request: a hash of the tenant, the route and the body, decompressed or as it came.
func KeyOf(tenant telemetry.Tenant, route string, body []byte) storage.Key {
	h := sha256.New()
	head := telemetry.AppendString(nil, string(tenant))
	head = telemetry.AppendString(head, route)
	h.Write(head)
	h.Write(body)
	var sum [sha256.Size]byte
	return storage.Key(h.Sum(sum[:0])[:len(storage.Key{})])
}

// Observe counts a request as it was answered: the protocol and the signal, its decompressed bytes, and the code of
// the answer. All three words are from small sets.
func (p *Pipeline) Observe(protocol string, signal storage.Signal, code string, bodyBytes int) {
	p.requests.WithLabelValues(protocol, signal.String(), code).Inc()
	p.bytes.WithLabelValues(protocol, signal.String()).Add(float64(bodyBytes))
}

// Refuse counts n records that a protocol refused while translating, which it adds to its Rejected itself. The
// reason is from a small set.
func (p *Pipeline) Refuse(signal storage.Signal, reason string, n int) {
	p.rejected.WithLabelValues(signal.String(), reason).Add(float64(n))
}

// Write stores what of the batches is within the limits, and takes ownership of them. The rejected are those that
// the protocol refused before; they come back together with those refused here and by the store. The key is KeyOf
// the request, or zero when a record had no time of its own, so that a second one like it is not a retry. Errors
// are those of storage.Writer, and an *httpapi.Error when there are too many tenants.
func (p *Pipeline) Write(
	ctx context.Context, tenant telemetry.Tenant, key storage.Key, batches []telemetry.Batch, rejected storage.Rejected,
) (storage.Rejected, error) {
	_, rejected, err := p.write(ctx, tenant, key, batches, rejected)
	return rejected, err
}

// Written counts what of a request for series was stored.
type Written struct{ Samples, Histograms, Exemplars int }

// WriteSeries is Write for batches of series, and tells apart what was stored.
func (p *Pipeline) WriteSeries(
	ctx context.Context, tenant telemetry.Tenant, key storage.Key, batches []telemetry.Batch, rejected storage.Rejected,
) (Written, storage.Rejected, error) {
	var w Written
	for i := range batches {
		for j := range batches[i].Series {
			s := &batches[i].Series[j]
			w.Samples, w.Histograms, w.Exemplars = w.Samples+len(s.Samples), w.Histograms+len(s.Histograms), w.Exemplars+len(s.Exemplars)
		}
	}
	before := rejected.Samples
	refused, rejected, err := p.write(ctx, tenant, key, batches, rejected)
	if err != nil {
		return Written{}, rejected, err
	}
	w.Histograms -= refused.Histograms
	w.Exemplars -= refused.Exemplars
	w.Samples -= rejected.Samples - before - refused.Histograms
	if w.Samples < 0 { // the store refused histograms, too
		w.Histograms, w.Samples = max(w.Histograms+w.Samples, 0), 0
	}
	return w, rejected, nil
}

// write returns what the limits refused of kinds that storage.Rejected does not tell apart.
func (p *Pipeline) write(
	ctx context.Context, tenant telemetry.Tenant, key storage.Key, batches []telemetry.Batch, rejected storage.Rejected,
) (Written, storage.Rejected, error) {
	if err := p.admit(tenant); err != nil {
		return Written{}, storage.Rejected{}, err
	}
	l := newLimiter(p)
	kept := batches[:0]
	var stored tally
	for i := range batches {
		b := &batches[i]
		b.Tenant = tenant
		if l.batch(b) {
			kept = append(kept, *b)
			stored.add(b)
		}
	}
	l.flush()
	rejected.Add(l.rejected)
	if len(kept) == 0 {
		return l.refused, rejected, nil
	}
	_, out, err := p.writer.Write(ctx, storage.Request{Key: key, Batches: kept, Rejected: rejected})
	if err != nil {
		return Written{}, storage.Rejected{}, fmt.Errorf("store the request: %w", err)
	}
	for s, n := range map[storage.Signal]int{storage.Metrics: stored.samples, storage.Logs: stored.logs, storage.Traces: stored.spans} {
		if n > 0 {
			p.records.WithLabelValues(s.String()).Add(float64(n))
		}
	}
	return l.refused, out, nil
}

// admit refuses tenants that would be one too many.
func (p *Pipeline) admit(t telemetry.Tenant) error {
	if !t.Valid() {
		return httpapi.BadDataf("tenant %q is not a legal name", string(t))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.tenants[t]; ok {
		return nil
	}
	if len(p.tenants) >= p.config.MaxTenants {
		return httpapi.Errorf(httpapi.TenantLimit, "%d tenants write already (setting ingest.max_tenants); tenant %s is not one of them",
			p.config.MaxTenants, t)
	}
	p.tenants[t] = struct{}{}
	return nil
}

// tally counts records by signal.
type tally struct{ spans, logs, samples int }

func (t *tally) add(b *telemetry.Batch) {
	t.spans += len(b.Spans)
	t.logs += len(b.Logs)
	for i := range b.Series {
		t.samples += len(b.Series[i].Samples) + len(b.Series[i].Histograms)
	}
}

// Classify knows the errors of the storage contract, for httpapi.Errors. It returns nil for others.
func Classify(err error) *httpapi.Error {
	if o, ok := errors.AsType[*storage.Overloaded](err); ok {
		out := httpapi.NewOverloaded(o.RetryAfter, o.Error())
		out.Err = err
		return out
	}
	switch {
	case errors.Is(err, storage.ErrOverloaded):
		out := httpapi.NewOverloaded(0, "overloaded")
		out.Err = err
		return out
	case errors.Is(err, storage.ErrTooLarge):
		return &httpapi.Error{Kind: httpapi.TooLarge, Message: "the request is too large to be stored at once; send less in one request", Err: err}
	case errors.Is(err, storage.ErrClosed):
		return &httpapi.Error{Kind: httpapi.Unavailable, Message: "the store is closed", Err: err}
	}
	return nil
}
