package app

import (
	"context"
	"net/http"

	"google.golang.org/grpc"

	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/selfobs"
	"github.com/braidobs/braid/query"
	"github.com/braidobs/braid/query/api/jaeger"
	"github.com/braidobs/braid/query/api/tempo"
	"github.com/braidobs/braid/query/spanmetrics"
	"github.com/braidobs/braid/storage"
)

// maxCall is the largest request of a gRPC call that reads.
const maxCall = 4 << 20

// traceCalls adds the APIs that read traces to the router of queries, and returns the handler of their gRPC services, which
// share its port and its limit of queries.
func (a *App) traceCalls(observer *query.Observer, reads *httpapi.Router, queries httpapi.Middleware) http.Handler {
	tp := tempo.New(tempo.Deps{Config: a.cfg.Tempo, Reader: a.db, Observer: observer, Errors: a.errs, Now: a.opts.Now})
	tp.Register(reads)
	jg := jaeger.New(jaeger.Deps{Reader: a.db, Observer: observer, Errors: a.errs, Now: a.opts.Now, MaxSpans: a.cfg.Tempo.MaxSpans})
	jg.Register(reads)

	side := httpapi.GRPC{Surface: httpapi.Query, Errors: query.Errors(a.errs), Metrics: a.http, Tracer: a.obs.Tracer()}
	rpc := grpc.NewServer(append(side.Options(), grpc.MaxRecvMsgSize(maxCall), grpc.ForceServerCodecV2(httpapi.NewRawCodec()))...)
	tp.RegisterGRPC(rpc)
	jg.RegisterGRPC(rpc)
	return queries(rpc)
}

// recordSpans makes w tell what it writes to a recorder of the metrics of spans, when they are to be written.
func (a *App) recordSpans(w storage.Writer) storage.Writer {
	if !a.cfg.Tempo.SpanMetrics {
		return w
	}
	a.recorder = spanmetrics.NewRecorder(spanmetrics.RecorderDeps{Reader: a.db, Writer: a.db, Now: a.opts.Now, Log: a.log})
	return spanmetrics.Writer{Writer: w, Recorder: a.recorder}
}

// runRecorder writes the metrics of spans, when they are to be written.
func (a *App) runRecorder(ctx context.Context) error {
	if a.recorder == nil {
		return nil
	}
	return a.recorder.Run(selfobs.Suppress(ctx))
}

// spanMetrics returns the store with the metrics of spans.
func (a *App) spanMetrics() *spanmetrics.Reader {
	return spanmetrics.New(a.db, spanmetrics.Options{MaxRead: a.cfg.PromQL.MaxRead.Bytes()})
}
