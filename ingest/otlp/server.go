package otlp

import (
	"context"
	"net/netip"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/plog/plogotlp"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
	"google.golang.org/grpc/metadata"

	"github.com/braidobs/braid/ingest"
	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

// Payload is one decoded request; what belongs to another signal is empty.
type Payload struct {
	Signal  storage.Signal
	Tenant  telemetry.Tenant
	Peer    netip.Addr // of the connection
	Traces  ptrace.Traces
	Logs    plog.Logs
	Metrics pmetric.Metrics
}

// Deps are what a server depends on.
type Deps struct {
	Pipeline *ingest.Pipeline
	// Forward, when set, takes the requests instead of the pipeline, which then only counts. It owns the payload.
	Forward func(ctx context.Context, p Payload) (storage.Rejected, error)
	Errors  httpapi.Errors // asked before ingest.Classify
	Now     func() time.Time
}

// Server answers OTLP requests. It may be used concurrently.
type Server struct {
	config   Config
	layout   *layout
	pipeline *ingest.Pipeline
	forward  func(ctx context.Context, p Payload) (storage.Rejected, error)
	errors   httpapi.Errors
	now      func() time.Time
	bodies   *httpapi.Bodies
	buffers  sync.Pool // of *[]byte
}

// New returns a server. The configuration must be valid. For zstd over gRPC see RegisterCompression.
func New(c Config, d Deps) *Server {
	first := d.Errors.Classify
	d.Errors.Classify = func(err error) *httpapi.Error {
		if first != nil {
			if out := first(err); out != nil {
				return out
			}
		}
		return ingest.Classify(err)
	}
	return &Server{
		config: c, layout: newLayout(), pipeline: d.Pipeline, forward: d.Forward, errors: d.Errors, now: d.Now, bodies: httpapi.NewBodies(c.MaxBody.Bytes()),
	}
}

// form is how a request is written.
type form uint8

const (
	protobuf form = iota
	jsonText
)

// incoming is one request as it came.
type incoming struct {
	signal storage.Signal
	tenant telemetry.Tenant
	peer   netip.Addr
	source *telemetry.Source // of the whole request
	enc    form
	body   []byte // not kept
}

// export decodes, translates and stores one request.
func (s *Server) export(ctx context.Context, in incoming) (storage.Rejected, error) {
	signal, tenant, body := in.signal, in.tenant, in.body
	g := newGuard(s.config, s.layout)
	if err := look(signal, in.enc, body, g); err != nil {
		return storage.Rejected{}, malformed(err)
	}
	var req request
	walked := errUnusual
	if signal == storage.Traces && in.enc == protobuf && s.forward == nil {
		req, walked = walkTraces(body, g.attrs)
	}
	if walked != nil {
		p, err := decode(signal, in.enc, body)
		if err != nil {
			return storage.Rejected{}, malformed(err)
		}
		if s.forward != nil {
			p.Tenant, p.Peer = tenant, in.peer
			return s.forward(ctx, p)
		}
		if req, err = s.translate(p, g); err != nil {
			return storage.Rejected{}, err
		}
	}
	if in.source != nil {
		for i := range req.batches {
			req.batches[i].Source = in.source
		}
	}
	if err := ctx.Err(); err != nil {
		return storage.Rejected{}, err
	}
	for reason, n := range req.refused {
		s.pipeline.Refuse(signal, reason, n)
	}
	var key storage.Key
	if !req.timeless {
		key = ingest.KeyOf(tenant, "otlp/"+signal.String(), body)
	}
	return s.pipeline.Write(ctx, tenant, key, req.batches, req.rejected)
}

// malformed is what the sender of a body is told that cannot be decoded.
func malformed(err error) error {
	if _, ok := err.(*httpapi.Error); ok { //nolint:errorlint // made by the guard
		return err
	}
	return &httpapi.Error{Kind: httpapi.BadData, Message: "the request is malformed: " + printable(err.Error()), Err: err}
}

// look has the guard look over a body.
func look(signal storage.Signal, enc form, body []byte, g *guard) error {
	if enc == jsonText {
		return g.json(body)
	}
	switch signal {
	case storage.Traces:
		return g.protobuf(body, spanRequest, 0)
	case storage.Logs:
		return g.protobuf(body, logRequest, 0)
	default:
		return g.protobuf(body, metricRequest, 0)
	}
}

// decode decodes a body that the guard has looked at.
func decode(signal storage.Signal, enc form, body []byte) (Payload, error) {
	p := Payload{Signal: signal}
	type message interface {
		UnmarshalProto(b []byte) error
		UnmarshalJSON(b []byte) error
	}
	unmarshal := func(m message) error {
		if enc == jsonText {
			return m.UnmarshalJSON(body)
		}
		return m.UnmarshalProto(body)
	}
	switch signal {
	case storage.Traces:
		m := ptraceotlp.NewExportRequest()
		if err := unmarshal(m); err != nil {
			return p, err
		}
		p.Traces = m.Traces()
	case storage.Logs:
		m := plogotlp.NewExportRequest()
		if err := unmarshal(m); err != nil {
			return p, err
		}
		p.Logs = m.Logs()
	case storage.Metrics:
		m := pmetricotlp.NewExportRequest()
		if err := unmarshal(m); err != nil {
			return p, err
		}
		p.Metrics = m.Metrics()
	}
	return p, nil
}

func (s *Server) translate(p Payload, g *guard) (request, error) {
	switch p.Signal {
	case storage.Traces:
		return translateTraces(p.Traces), nil
	case storage.Logs:
		return translateLogs(p.Logs, s.config, s.now()), nil
	default:
		return translateMetrics(p.Metrics, s.config, s.pipeline, s.now(), g)
	}
}

// tenant returns the tenant that middleware found or, without middleware, the one that the header names.
func tenant(ctx context.Context, header []string) (telemetry.Tenant, error) {
	if t := httpapi.TenantFrom(ctx); t != "" {
		return t, nil
	}
	return httpapi.ParseTenant(header, httpapi.Ingest)
}

func grpcTenant(ctx context.Context) (telemetry.Tenant, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	return tenant(ctx, md.Get(httpapi.TenantHeader))
}

// answer encodes the answer to a request of which something was rejected. One that was stored whole has the empty
// answer.
func answer(signal storage.Signal, enc form, r storage.Rejected) ([]byte, error) {
	count := int64(0)
	switch signal {
	case storage.Traces:
		count = int64(r.Spans)
	case storage.Logs:
		count = int64(r.Logs)
	case storage.Metrics:
		count = int64(r.Samples)
	}
	text := strings.Join(r.Reasons, "; ")
	if count == 0 && text == "" {
		if enc == jsonText {
			return []byte("{}"), nil
		}
		return nil, nil
	}
	type message interface {
		MarshalProto() ([]byte, error)
		MarshalJSON() ([]byte, error)
	}
	var out message
	switch signal {
	case storage.Traces:
		m := ptraceotlp.NewExportResponse()
		m.PartialSuccess().SetRejectedSpans(count)
		m.PartialSuccess().SetErrorMessage(text)
		out = m
	case storage.Logs:
		m := plogotlp.NewExportResponse()
		m.PartialSuccess().SetRejectedLogRecords(count)
		m.PartialSuccess().SetErrorMessage(text)
		out = m
	default:
		m := pmetricotlp.NewExportResponse()
		m.PartialSuccess().SetRejectedDataPoints(count)
		m.PartialSuccess().SetErrorMessage(text)
		out = m
	}
	if enc == jsonText {
		return out.MarshalJSON()
	}
	return out.MarshalProto()
}
