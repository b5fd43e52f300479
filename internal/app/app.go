// Package app assembles the parts into a process. It is the only package that names implementations.
package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/pprof"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc"

	"github.com/braidobs/braid/alerting"
	"github.com/braidobs/braid/alerting/slo"
	"github.com/braidobs/braid/correlate"
	"github.com/braidobs/braid/ingest"
	"github.com/braidobs/braid/ingest/elastic"
	"github.com/braidobs/braid/ingest/otlp"
	"github.com/braidobs/braid/ingest/remotewrite"
	"github.com/braidobs/braid/ingest/scrape"
	"github.com/braidobs/braid/ingest/syslog"
	"github.com/braidobs/braid/internal/config"
	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/lifecycle"
	"github.com/braidobs/braid/internal/selfobs"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/query"
	"github.com/braidobs/braid/query/spanmetrics"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/blob/dir"
	"github.com/braidobs/braid/storage/catalog/badger"
	"github.com/braidobs/braid/storage/db"
	"github.com/braidobs/braid/storage/vfs"
	"github.com/braidobs/braid/storage/wal"
	"github.com/braidobs/braid/storage/wal/file"
)

// shard is the number of the write-ahead log of a single node.
const shard = 1

// Options are what a process gets from its main.
type Options struct {
	Version string
	Banner  io.Writer // where the banner goes
	Log     io.Writer // where logs go
	Now     func() time.Time
	Reload  <-chan os.Signal // makes the process read its rules anew; nil for never
}

// App is one process: a server with everything in it.
type App struct {
	cfg   Config
	opts  Options
	reg   *prometheus.Registry
	obs   *selfobs.Obs
	log   *slog.Logger
	errs  httpapi.Errors
	http  *httpapi.Metrics
	gate  *gate
	began time.Time

	db    *db.DB
	alert *alerting.Alerting
	cat   *badger.Catalog
	blobs *dir.Store
	mux   http.Handler // of the query port
	otlp  http.Handler // of the OTLP/HTTP port
	rpc   *grpc.Server
	grpc  *httpapi.RPCServer
	main  *httpapi.Server
	ohttp *httpapi.Server
	ready atomic.Bool

	queryLog io.Closer // nil when there is none
	syslog   *syslog.Server
	scraper  *scrape.Scraper       // nil when nothing is scraped
	recorder *spanmetrics.Recorder // nil when the metrics of spans are not written
}

// New prepares a process. The configuration must have been loaded or validated by config.
func New(cfg Config, opts Options) (*App, error) {
	if err := config.Validate(&cfg); err != nil {
		return nil, err
	}
	cfg.Ingest.Retention = cfg.Storage.Retention
	a := &App{cfg: cfg, opts: opts, reg: prometheus.NewRegistry(), began: opts.Now()}
	var err error
	a.obs, err = selfobs.New(selfobs.Options{
		Config: cfg.Self, Service: "braid", Version: opts.Version, Output: opts.Log, Registry: a.reg, Now: opts.Now,
	})
	if err != nil {
		return nil, fmt.Errorf("self-observation: %w", err)
	}
	a.log = a.obs.Log()
	a.errs = httpapi.Errors{Log: a.log}
	a.http = httpapi.NewMetrics(a.reg, opts.Now)
	a.gate = newGate(cfg.Server.Writes, cfg.Server.WriteQueue, a.reg)
	return a, nil
}

// Run serves until ctx ends, then stops everything in order.
func (a *App) Run(ctx context.Context) error {
	limit := lifecycle.LimitMemory(int64(a.cfg.Memory))
	a.log.Debug("memory limit of the garbage collector", "bytes", limit)
	if err := CheckRules(a.cfg, nil); err != nil { // before anything is touched
		return err
	}
	otlp.RegisterCompression()
	a.main = httpapi.NewServer(httpapi.ServerOptions{
		Addr: a.cfg.Server.HTTP, Log: a.log, Drain: a.cfg.Server.Drain.Std(),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { a.mux.ServeHTTP(w, r) }),
	})
	a.ohttp = httpapi.NewServer(httpapi.ServerOptions{
		Addr: a.cfg.Server.OTLPHTTP, Log: a.log, Drain: a.cfg.Server.Drain.Std(),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { a.otlp.ServeHTTP(w, r) }),
	})
	return lifecycle.Run(ctx, a.log,
		lifecycle.Part{Name: "storage", Start: a.openStorage, Run: a.runStorage, Stop: a.closeStorage, Grace: 2 * time.Minute},
		a.obs.Part(),
		lifecycle.Part{Name: "apis", Start: a.assemble, Stop: a.closeQueryLog},
		lifecycle.Part{Name: "scraper", Run: a.runScraper},
		lifecycle.Part{Name: "metrics of spans", Run: a.runRecorder},
		a.syslogPart(),
		a.alertingPart(),
		a.samplingPart(),
		a.main.Part("query listener"),
		a.ohttp.Part("OTLP/HTTP listener"),
		lifecycle.Part{Name: "OTLP/gRPC listener", Start: a.listenGRPC, Run: func(ctx context.Context) error { return a.grpc.Serve(ctx) }, Stop: func(context.Context) error { a.rpc.Stop(); return nil }, Grace: a.cfg.Server.Drain.Std() + time.Second},
		lifecycle.Part{Name: "readiness", Start: a.announce, Stop: func(context.Context) error { a.ready.Store(false); return nil }},
	)
}

func (a *App) openStorage(ctx context.Context) error {
	fs := vfs.OS{}
	var err error
	if a.blobs, err = dir.Open(fs, filepath.Join(a.cfg.Data, "blobs")); err != nil {
		return fmt.Errorf("open %s: %w", a.cfg.Data, err)
	}
	if a.cat, err = badger.Open(filepath.Join(a.cfg.Data, "catalog"), a.log); err != nil {
		return errors.Join(err, a.blobs.Close())
	}
	a.db, err = db.Open(ctx, a.cfg.Storage, db.Deps{
		OpenLog: func(at wal.Position) (wal.Log, error) {
			return file.Open(ctx, file.Options{
				FS: fs, Dir: filepath.Join(a.cfg.Data, "wal"), Shard: shard, AtLeast: at, Now: a.opts.Now, Log: a.log, Metrics: a.reg,
				MaxRecordBytes: 128 << 20,
			})
		},
		Blobs: a.blobs, Catalog: a.cat, Now: a.opts.Now, Log: a.log, Metrics: a.reg,
	})
	if err != nil {
		return errors.Join(fmt.Errorf("open the store in %s: %w", a.cfg.Data, err), a.cat.Close(), a.blobs.Close())
	}
	a.obs.SetSink(func(ctx context.Context, e selfobs.Export) error {
		_, _, err := a.db.Write(ctx, storage.Request{Batches: []telemetryBatch{e.Batch()}})
		return err
	})
	return nil
}

func (a *App) runStorage(ctx context.Context) error {
	ctx = selfobs.Suppress(ctx)
	done := make(chan error, 1)
	go func() { done <- a.cat.Maintain(ctx, 10*time.Minute) }()
	return errors.Join(a.db.Run(ctx), <-done)
}

func (a *App) closeStorage(ctx context.Context) error {
	a.obs.SetSink(nil)
	return errors.Join(a.db.Close(selfobs.Suppress(ctx)), a.cat.Close(), a.blobs.Close())
}

// assemble connects the protocols and languages with the store.
func (a *App) assemble(context.Context) error {
	now := a.opts.Now
	counter := slo.NewCounter(a.db, telemetry.Tenant(a.cfg.Alerting.Tenant), slo.Options{Scale: a.cfg.Alerting.SLOScale}, a.reg)
	pipe := ingest.New(a.cfg.Ingest, ingest.Deps{Writer: a.recordSpans(slo.Writer{Writer: a.db, Counter: counter}), Now: now, Metrics: a.reg})
	receiver := otlp.New(a.cfg.OTLP, otlp.Deps{Pipeline: pipe, Errors: a.errs, Now: now})
	remote := remotewrite.New(a.cfg.RemoteWrite, remotewrite.Deps{Pipeline: pipe, Errors: a.errs, Now: now})
	observer := query.NewObserver(a.log, a.reg, now)
	engine, err := a.newEngine(counter, observer)
	if err != nil {
		return fmt.Errorf("PromQL engine: %w", err)
	}

	writes := httpapi.NewRouter(a.http.Requests(), a.http.Recover(httpapi.Ingest, a.errs), httpapi.Trace(a.obs.Tracer()), a.gate.HTTP(a.errs))
	for pattern, h := range receiver.Routes() {
		writes.Handle(pattern, h)
	}
	for pattern, h := range receiver.Aliases() {
		writes.Handle(pattern, h)
	}
	a.otlp = writes
	remoteWrites := httpapi.NewRouter(a.http.Requests(), a.http.Recover(httpapi.Ingest, a.errs), httpapi.Trace(a.obs.Tracer()), a.gate.HTTP(a.errs))
	for pattern, h := range remote.Routes() {
		remoteWrites.Handle(pattern, h)
	}
	ways := a.newWaysIn(pipe)
	for pattern, h := range ways.writes {
		writes.Handle(pattern, h)
	}

	grpcSide := httpapi.GRPC{Surface: httpapi.Ingest, Errors: a.errs, Metrics: a.http, Tracer: a.obs.Tracer()}
	opts := append(receiver.ServerOptions(),
		grpc.ChainUnaryInterceptor(grpcSide.Unary(), a.gate.Unary()), grpc.ChainStreamInterceptor(grpcSide.Stream()), //nolint:contextcheck // the stream carries it
		grpc.MaxConcurrentStreams(128), grpc.ConnectionTimeout(20*time.Second))
	a.rpc = grpc.NewServer(opts...)
	receiver.Register(a.rpc)

	queries := httpapi.LimitConcurrency(a.cfg.Server.Queries, httpapi.Query, a.errs)
	reads := httpapi.NewRouter(
		a.http.Requests(), a.http.Recover(httpapi.Query, a.errs), httpapi.Tenant(httpapi.Query, a.errs), httpapi.Trace(a.obs.Tracer()),
		queries, httpapi.LimitBody(4<<20), httpapi.Compression(),
	)
	if err := a.newScraper(pipe); err != nil {
		return fmt.Errorf("scraper: %w", err)
	}
	a.promAPI(engine, counter, observer).Register(reads)
	streams := a.lokiAPI(observer, reads)
	calls := a.traceCalls(observer, reads, queries) //nolint:contextcheck // streams carry theirs
	correlate.NewAPI(correlate.New(a.cfg.Correlate, a.db, now, a.reg), query.Errors(a.errs)).Register(reads)
	if err := a.assembleAlerting(engine, counter, reads); err != nil { //nolint:contextcheck // evaluations outlive the start
		return fmt.Errorf("alerting: %w", err)
	}
	root := http.NewServeMux()
	root.Handle("/", reads)
	for pattern := range receiver.Routes() {
		root.Handle(pattern, writes)
	}
	for pattern := range receiver.Aliases() {
		root.Handle(pattern, writes)
	}
	for pattern := range remote.Routes() {
		root.Handle(pattern, remoteWrites)
	}
	for pattern := range ways.writes {
		root.Handle(pattern, writes)
	}
	root.Handle("GET /metrics", promhttp.HandlerFor(a.reg, promhttp.HandlerOpts{EnableOpenMetrics: true}))
	root.HandleFunc("GET /-/healthy", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "Braid is healthy.") })
	root.HandleFunc("GET /-/ready", a.readiness)
	root.HandleFunc("GET /ready", a.readiness)
	root.HandleFunc("GET /config", a.printConfig)
	root.Handle("/loki/api/v1/tail", streams)
	root.Handle("/loki/api/v2alpha/tail", streams)
	root.HandleFunc("GET /{$}", a.root(ways.info))
	root.HandleFunc("GET /debug/pprof/", pprof.Index)
	root.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	root.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	a.mux = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case elastic.IsHandshake(r.URL.Path):
			ways.handshake.ServeHTTP(w, r)
		case r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc"):
			calls.ServeHTTP(w, r)
		default:
			root.ServeHTTP(w, r)
		}
	})
	return nil
}

func (a *App) readiness(w http.ResponseWriter, _ *http.Request) {
	err := a.db.Ready()
	if err == nil && !a.ready.Load() {
		err = errors.New("starting or stopping")
	}
	if err != nil {
		w.Header().Set("Retry-After", "1")
		http.Error(w, "Braid is not ready: "+err.Error(), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "Braid is ready.")
}

// listenGRPC binds the address of OTLP/gRPC.
func (a *App) listenGRPC(ctx context.Context) error {
	a.grpc = httpapi.NewRPCServer(a.cfg.Server.OTLPGRPC, a.rpc, a.cfg.Server.Drain.Std())
	return a.grpc.Listen(ctx)
}

// announce says that everything works, and where.
func (a *App) announce(context.Context) error {
	a.ready.Store(true)
	took := a.opts.Now().Sub(a.began).Round(time.Millisecond)
	_, err := fmt.Fprintf(a.opts.Banner, `
Braid %s is ready after %s.

  OTLP/gRPC   %s
  OTLP/HTTP   http://%s/v1/{traces,metrics,logs}
  queries     http://%-22s PromQL  /api/v1/query, query_range
                                               LogQL   /loki/api/v1/query_range
                                               traces  /api/search, /api/v2/traces/{id}
                                               joins   /api/v1/correlate/trace/{id}, /api/v1/correlate/resource?name=
  own metrics http://%s/metrics
  data        %s

`, a.opts.Version, took, a.grpc.Addr(), a.ohttp.Addr(), a.main.Addr(), a.main.Addr(), a.cfg.Data)
	a.log.Info("ready", "version", a.opts.Version, "http", a.main.Addr(), "otlp_grpc", a.grpc.Addr(), "otlp_http", a.ohttp.Addr(), "data", a.cfg.Data, "took", took.String())
	return err
}
