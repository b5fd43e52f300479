package daemonset

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/plog/plogotlp"

	"github.com/braidobs/braid/daemonset/forward"
	"github.com/braidobs/braid/daemonset/kube"
	"github.com/braidobs/braid/daemonset/tail"
	"github.com/braidobs/braid/ingest/extract"
	"github.com/braidobs/braid/ingest/otlp"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

const (
	shippers  = 4 // requests under way
	batchSize = 1 << 20
	// smallBatch is below what a shipper waits for more, and for how long.
	smallBatch = 64 << 10
	linger     = 100 * time.Millisecond
	// podPatience is how long the lines of a pod wait for its labels.
	podPatience = 2 * time.Second
	// maxParsers bounds the guesses about the formats of streams.
	maxParsers = 10_000
)

// shipper is the tail.Sink of the agent: it makes OTLP of chunks, many streams to a request, and returns when the
// backend has them.
type shipper struct {
	client  *forward.Client
	tenant  telemetry.Tenant
	pods    *kube.Table // nil without Kubernetes
	static  []kube.Attr
	sources map[string]map[string]string // attributes of configured files
	log     *slog.Logger
	items   chan item
	dropped prometheus.Counter

	mu      sync.Mutex // guards parsers
	parsers map[string]*extract.Parser
}

type item struct {
	ctx   context.Context //nolint:containedctx // ends the wait of the sender, which owns the bytes
	chunk tail.Chunk
	size  int
	done  chan error
}

func newShipper(c *forward.Client, tenant telemetry.Tenant, pods *kube.Table, static []kube.Attr, sources map[string]map[string]string, log *slog.Logger, reg prometheus.Registerer) *shipper {
	s := &shipper{
		client: c, tenant: tenant, pods: pods, static: static, sources: sources, log: log, items: make(chan item), parsers: make(map[string]*extract.Parser),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{Name: "braid_agent_lines_refused_total", Help: "Lines that the backend refused one by one; they are lost."}),
	}
	reg.MustRegister(s.dropped)
	return s
}

// Send implements tail.Sink.
func (s *shipper) Send(ctx context.Context, c tail.Chunk) error {
	if err := s.await(ctx, c.Stream); err != nil {
		return err
	}
	it := item{ctx: ctx, chunk: c, done: make(chan error, 1)}
	for i := range c.Records {
		it.size += len(c.Records[i].Body) + 64
	}
	select {
	case s.items <- it:
	case <-ctx.Done():
		return ctx.Err()
	}
	return <-it.done // which comes soon after ctx has ended; until then the bytes are in use
}

// await waits a while for a pod that has not been seen, so that its first lines carry its labels as the later ones do.
func (s *shipper) await(ctx context.Context, k tail.StreamKey) error {
	if s.pods == nil || k.PodUID == "" || s.pods.ByUID(k.PodUID) != nil {
		return nil
	}
	t := time.NewTimer(podPatience)
	defer t.Stop()
	for {
		changed := s.pods.Changed()
		if s.pods.ByUID(k.PodUID) != nil {
			return nil
		}
		select {
		case <-changed:
		case <-t.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Run ships until ctx ends. Chunks that are under way get its error.
func (s *shipper) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for range shippers {
		wg.Go(func() { s.work(ctx) })
	}
	wg.Wait()
	return nil
}

func (s *shipper) work(ctx context.Context) {
	for {
		var batch []item
		size := 0
		take := func(it item) { batch, size = append(batch, it), size+it.size }
		select {
		case <-ctx.Done():
			return
		case it := <-s.items:
			take(it)
		}
		t := time.NewTimer(linger)
	more:
		for size < batchSize {
			select {
			case it := <-s.items:
				take(it)
				continue
			default:
			}
			if size >= smallBatch {
				break
			}
			select {
			case it := <-s.items:
				take(it)
			case <-t.C:
				break more
			case <-ctx.Done():
				break more
			}
		}
		t.Stop()
		s.ship(ctx, batch)
	}
}

// ship delivers a batch. What the backend refuses is sent in halves, until the bad line is found, and goes on without it.
func (s *shipper) ship(ctx context.Context, batch []item) {
	finish := func(err error) {
		for _, it := range batch {
			it.done <- err
		}
	}
	body, n, err := s.encode(batch)
	if err != nil {
		finish(err)
		return
	}
	if n == 0 {
		finish(nil)
		return
	}
	sending, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(batch[0].ctx, cancel) //nolint:contextcheck // the tailer ends all its sends at once
	err = s.client.Deliver(sending, forward.Request{Signal: storage.Logs, Tenant: s.tenant, Body: s.client.Compress(body), Records: n})
	stop()
	cancel()
	refused, ok := errors.AsType[*forward.Refused](err)
	switch {
	case !ok:
		finish(err)
	case len(batch) > 1:
		s.ship(ctx, batch[:len(batch)/2])
		s.ship(ctx, batch[len(batch)/2:])
	case n > 1:
		batch[0].done <- s.halves(ctx, batch[0])
	default:
		s.dropped.Inc()
		s.log.Warn("the backend refused a line; it is lost", "stream", batch[0].chunk.Stream.String(), "why", refused.Message)
		finish(nil)
	}
}

// halves ships the records of one chunk in two.
func (s *shipper) halves(ctx context.Context, it item) error {
	c := it.chunk
	k := len(c.Records) / 2
	a, b := c, c
	a.Records, a.To = c.Records[:k], c.Records[k-1].End
	b.Records, b.From = c.Records[k:], a.To
	for _, half := range []tail.Chunk{a, b} {
		one := item{ctx: it.ctx, chunk: half, done: make(chan error, 1)}
		s.ship(ctx, []item{one})
		if err := <-one.done; err != nil {
			return err
		}
	}
	return nil
}

// encode makes one OTLP request of chunks.
func (s *shipper) encode(batch []item) (body []byte, records int, err error) {
	ld := plog.NewLogs()
	ld.ResourceLogs().EnsureCapacity(len(batch))
	for _, it := range batch {
		c := &it.chunk
		rl := ld.ResourceLogs().AppendEmpty()
		s.resource(rl.Resource().Attributes(), c)
		lrs := rl.ScopeLogs().AppendEmpty().LogRecords()
		lrs.EnsureCapacity(len(c.Records))
		p := s.parser(c.Stream)
		var f extract.Fields
		for i := range c.Records {
			record(lrs.AppendEmpty(), &c.Records[i], p, &f)
		}
		records += len(c.Records)
	}
	if body, err = plogotlp.NewExportRequestFromLogs(ld).MarshalProto(); err != nil {
		return nil, 0, fmt.Errorf("encode log records: %w", err)
	}
	return body, records, nil
}

// parser returns what is known about the format of a stream. One stream is encoded by one goroutine at a time.
func (s *shipper) parser(k tail.StreamKey) *extract.Parser {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := k.String()
	p := s.parsers[name]
	if p == nil {
		for old := range s.parsers { // any: a guess is made anew within a line
			if len(s.parsers) < maxParsers {
				break
			}
			delete(s.parsers, old)
		}
		p = new(extract.Parser)
		s.parsers[name] = p
	}
	return p
}

// resource writes what a stream is of: the pod as its path names it, and what is known of it.
func (s *shipper) resource(as pcommon.Map, c *tail.Chunk) {
	k := &c.Stream
	var pod *kube.Pod
	if s.pods != nil && k.PodUID != "" {
		pod = s.pods.ByUID(k.PodUID)
	}
	switch {
	case pod != nil:
		for _, a := range pod.Attrs(k.Container) {
			as.PutStr(a.Key, a.Value)
		}
		as.PutInt("k8s.container.restart_count", int64(k.Restart))
	case k.PodUID != "":
		as.PutStr("service.name", k.Container)
		as.PutStr("k8s.namespace.name", k.Namespace)
		as.PutStr("k8s.pod.name", k.Pod)
		as.PutStr("k8s.pod.uid", k.PodUID)
		as.PutStr("k8s.container.name", k.Container)
		as.PutInt("k8s.container.restart_count", int64(k.Restart))
	default:
		as.PutStr("service.name", k.Source)
		as.PutStr("log.file.path", k.Path)
		for name, v := range s.sources[k.Source] {
			as.PutStr(name, v)
		}
	}
	for _, a := range s.static {
		if _, ok := as.Get(a.Key); !ok && a.Value != "" {
			as.PutStr(a.Key, a.Value)
		}
	}
	as.PutStr(otlp.SourceStream, k.String())
	as.PutStr(otlp.SourceFile, c.File)
	as.PutInt(otlp.SourceFrom, int64(c.From))
	as.PutInt(otlp.SourceTo, int64(c.To))
}

// Limits of what is written on a line beside its text, so that the backend does not reject it: it takes 256 attributes,
// names of 1 KiB, and records of 2 MiB.
const (
	maxAttributes = 240
	maxKey        = 1 << 10
	maxAttrBytes  = 512 << 10
)

// record writes one record: its text as it is, and what the text tells.
func record(lr plog.LogRecord, r *tail.Record, p *extract.Parser, f *extract.Fields) {
	lr.Body().SetStr(string(r.Body))
	lr.SetObservedTimestamp(pcommon.Timestamp(r.Observed))
	as := lr.Attributes()
	if r.Lost != nil {
		lr.SetTimestamp(pcommon.Timestamp(cmp.Or(r.Time, r.Lost.Before, r.Lost.After, r.Observed)))
		lr.SetSeverityNumber(plog.SeverityNumberWarn)
		lr.SetSeverityText("WARN")
		as.PutStr("log.lost.reason", string(r.Lost.Reason))
		as.PutInt("log.lost.bytes", r.Lost.Bytes)
		as.PutInt(otlp.SourceEnd, int64(r.End))
		return
	}
	p.Parse(r.Body, f)
	// The runtime's clock keeps the lines of a stream in order; what the application writes may be coarse.
	lr.SetTimestamp(pcommon.Timestamp(cmp.Or(r.Time, f.Time, r.Observed)))
	lr.SetSeverityNumber(plog.SeverityNumber(f.Severity))
	lr.SetSeverityText(string(f.SeverityText))
	lr.SetTraceID(f.TraceID)
	lr.SetSpanID(f.SpanID)
	as.EnsureCapacity(len(f.Attributes) + 3)
	dropped, size := f.Dropped, 0
	for i := range f.Attributes {
		a := &f.Attributes[i]
		size += len(a.Key) + len(a.Value.Bytes)
		if as.Len() >= maxAttributes || len(a.Key) > maxKey || size > maxAttrBytes {
			dropped++
			continue
		}
		key := string(a.Key)
		switch a.Value.Kind {
		case extract.Int:
			as.PutInt(key, a.Value.Int)
		case extract.Float:
			as.PutDouble(key, a.Value.Float)
		case extract.Bool:
			as.PutBool(key, a.Value.Bool)
		case extract.String, extract.JSON:
			as.PutStr(key, string(a.Value.Bytes))
		}
	}
	lr.SetDroppedAttributesCount(uint32(dropped))
	if r.Stderr {
		as.PutStr("log.iostream", "stderr")
	} else {
		as.PutStr("log.iostream", "stdout")
	}
	if r.Truncated {
		as.PutBool("log.truncated", true)
		as.PutInt("log.size", int64(r.Size))
	}
	if r.Partial {
		as.PutBool("log.partial", true)
	}
	if r.Torn {
		as.PutBool("log.torn", true)
	}
	as.PutInt(otlp.SourceEnd, int64(r.End))
}

// hostname is the name of the machine, as a static attribute outside Kubernetes.
func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return ""
	}
	return name
}
