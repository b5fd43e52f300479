// Package daemonset is the node agent: it reads the logs of a node's containers and of configured files, scrapes
// metrics, takes OTLP from the node's pods, writes on everything which pod it is of, and sends it to the backend.
//
// Log files are their own queue: how far they are read moves when the backend has acknowledged, so nothing is written
// to disk twice. What has no file, scraped metrics and OTLP, goes through a queue on disk.
package daemonset

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/pprof"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"google.golang.org/grpc"

	"github.com/braidobs/braid/daemonset/forward"
	"github.com/braidobs/braid/daemonset/kube"
	agentotlp "github.com/braidobs/braid/daemonset/otlp"
	"github.com/braidobs/braid/daemonset/scrape"
	"github.com/braidobs/braid/daemonset/tail"
	"github.com/braidobs/braid/ingest"
	"github.com/braidobs/braid/ingest/otlp"
	"github.com/braidobs/braid/internal/config"
	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/lifecycle"
	"github.com/braidobs/braid/internal/selfobs"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/vfs"
)

// Options are what an agent is given beside its configuration.
type Options struct {
	Version string
	Banner  io.Writer // where the banner goes
	Log     io.Writer // where logs go
	Now     func() time.Time
	// Self is the name of the agent's own container in its pod, whose logs are left alone: SelfUID its pod's UID.
	SelfUID string
}

// Agent is one agent.
type Agent struct {
	cfg   Config
	opts  Options
	reg   *prometheus.Registry
	obs   *selfobs.Obs
	log   *slog.Logger
	began time.Time
	fs    vfs.FS

	pods    *kube.Table // nil without Kubernetes
	watcher *kube.Watcher
	client  *forward.Client
	queue   *forward.Queue
	shipper *shipper
	tailer  *tail.Tailer
	scraper *scrape.Scraper
	admin   *httpapi.Server
	ready   atomic.Bool
}

// New checks the configuration and puts the agent together; Run starts it.
func New(cfg Config, opts Options) (*Agent, error) {
	if err := config.Validate(&cfg); err != nil {
		return nil, err
	}
	a := &Agent{cfg: cfg, opts: opts, reg: prometheus.NewRegistry(), began: opts.Now(), fs: vfs.OS{}}
	var err error
	a.obs, err = selfobs.New(selfobs.Options{
		Config: cfg.Self, Service: "braid-agent", Version: opts.Version, Output: opts.Log, Registry: a.reg, Now: opts.Now,
	})
	if err != nil {
		return nil, fmt.Errorf("self-observation: %w", err)
	}
	a.log = a.obs.Log()
	if a.client, err = forward.NewClient(cfg.Backend, opts.Now, a.log, a.reg); err != nil {
		return nil, err
	}
	if cfg.Kubernetes.Enabled() {
		a.pods = kube.NewTable()
	}
	static := a.static()
	tenant := telemetry.Tenant(cfg.Backend.Tenant)
	sources := make(map[string]map[string]string)
	for _, s := range cfg.Logs.Sources {
		sources[s.Name] = s.Attributes
	}
	a.shipper = newShipper(a.client, tenant, a.pods, static, sources, a.log, a.reg)
	a.tailer, err = tail.New(cfg.Logs, tail.Deps{
		Sink: a.shipper, Now: opts.Now, FS: a.fs, StateDir: filepath.Join(cfg.State, "logs"), Skip: a.skip, Log: a.log, Metrics: a.reg,
	})
	if err != nil {
		return nil, fmt.Errorf("logs: %w", err)
	}
	a.scraper, err = scrape.New(cfg.Scrape, scrape.Deps{
		Send: a.sendMetrics, Pods: a.pods, Node: cfg.Kubernetes.Node, Log: a.log, Metrics: a.reg,
	})
	if err != nil {
		return nil, err
	}
	return a, nil
}

// static are the attributes that everything gets: the cluster, and the node or the host.
func (a *Agent) static() []kube.Attr {
	out := []kube.Attr{{Key: "k8s.cluster.name", Value: a.cfg.Cluster}}
	if a.cfg.Kubernetes.Node != "" {
		return append(out, kube.Attr{Key: "k8s.node.name", Value: a.cfg.Kubernetes.Node})
	}
	return append(out, kube.Attr{Key: "host.name", Value: hostname()})
}

// skip leaves out the agent's own log, which would feed itself, and pods that ask for it.
func (a *Agent) skip(k tail.StreamKey) bool {
	if k.PodUID == "" {
		return false
	}
	if k.PodUID == a.opts.SelfUID {
		return true
	}
	if a.pods == nil {
		return false
	}
	p := a.pods.ByUID(k.PodUID)
	return p != nil && p.Excluded()
}

// inUse says whether lines of a pod may still come.
func (a *Agent) inUse(p *kube.Pod) bool {
	return slices.ContainsFunc(a.tailer.Streams(), func(s tail.StreamStatus) bool {
		return s.Key.PodUID != "" && (s.Key.PodUID == p.UID || s.Key.PodUID == p.Mirror) && s.Lag > 0
	})
}

// sendMetrics queues the metrics of a scrape.
func (a *Agent) sendMetrics(ctx context.Context, md pmetric.Metrics, points int) error {
	body, err := pmetricotlp.NewExportRequestFromMetrics(md).MarshalProto()
	if err != nil {
		return fmt.Errorf("encode metrics: %w", err)
	}
	return a.queue.Put(ctx, forward.Request{
		Signal: storage.Metrics, Tenant: telemetry.Tenant(a.cfg.Backend.Tenant), Body: a.client.Compress(body), Records: points,
	})
}

// Run serves until ctx ends, then stops everything in order: reading and scraping first, the way to the backend last.
func (a *Agent) Run(ctx context.Context) error {
	limit := lifecycle.LimitMemory(int64(a.cfg.Memory))
	a.log.Debug("memory limit of the garbage collector", "bytes", limit)
	otlp.RegisterCompression()
	drain := a.cfg.Server.Drain.Std()
	a.admin = httpapi.NewServer(httpapi.ServerOptions{Addr: a.cfg.Server.HTTP, Handler: a.handler(), Log: a.log, Drain: drain})
	parts := []lifecycle.Part{
		{Name: "state", Start: a.openState, Stop: a.closeState},
		a.obs.Part(),
		{Name: "pods", Start: a.openPods, Run: a.watchPods},
		{Name: "queue", Start: a.openQueue, Run: func(ctx context.Context) error { return a.queue.Run(ctx) }, Stop: func(context.Context) error { return a.queue.Close() }, Grace: drain},
		{Name: "backend", Run: a.shipper.Run, Grace: drain},
		{Name: "logs", Run: a.tailer.Run, Grace: drain + 5*time.Second},
		{Name: "scraping", Run: a.scraper.Run, Grace: drain},
		a.admin.Part("status listener"),
	}
	parts = append(parts, a.receivers()...) //nolint:contextcheck // the stream carries it
	parts = append(parts, lifecycle.Part{Name: "readiness", Start: a.announce, Stop: func(context.Context) error { a.ready.Store(false); return nil }})
	return lifecycle.Run(ctx, a.log, parts...)
}

func (a *Agent) openState(context.Context) error {
	for _, dir := range []string{a.cfg.State, filepath.Join(a.cfg.State, "logs"), filepath.Join(a.cfg.State, "queue")} {
		if err := vfs.MkdirAllSync(a.fs, dir); err != nil {
			return fmt.Errorf("create the folder of setting state: %w", err)
		}
	}
	return nil
}

func (a *Agent) closeState(context.Context) error {
	a.client.Close()
	return nil
}

func (a *Agent) openPods(context.Context) error {
	if a.pods == nil {
		return nil
	}
	var err error
	a.watcher, err = kube.NewWatcher(a.cfg.Kubernetes, kube.Deps{
		Table: a.pods, FS: a.fs, File: filepath.Join(a.cfg.State, "pods.json"), InUse: a.inUse, Now: a.opts.Now, Log: a.log, Metrics: a.reg,
	})
	return err
}

func (a *Agent) watchPods(ctx context.Context) error {
	if a.watcher == nil {
		<-ctx.Done()
		return nil
	}
	return a.watcher.Run(ctx)
}

func (a *Agent) openQueue(ctx context.Context) error {
	var err error
	a.queue, err = forward.OpenQueue(ctx, forward.QueueOptions{
		FS: a.fs, Dir: filepath.Join(a.cfg.State, "queue"), Max: a.cfg.Backend.MaxQueue, Now: a.opts.Now, Log: a.log, Metrics: a.reg,
	}, a.client)
	return err
}

// receivers are the listeners for OTLP that are configured.
func (a *Agent) receivers() []lifecycle.Part {
	if a.cfg.Server.OTLPGRPC == "" && a.cfg.Server.OTLPHTTP == "" {
		return nil
	}
	pods := a.pods
	if pods == nil {
		pods = kube.NewTable()
	}
	id := agentotlp.New(agentotlp.Deps{
		Pods: pods, Compress: a.client.Compress, Put: func(ctx context.Context, r forward.Request) error { return a.queue.Put(ctx, r) },
		RefuseForged: a.cfg.OTLP.RefuseForged, Static: a.static(), Metrics: a.reg,
	})
	oc := otlp.DefaultConfig()
	oc.MaxBody = a.cfg.OTLP.MaxBody
	errs := httpapi.Errors{Log: a.log}
	// The pipeline only counts: limits of records are the backend's.
	recv := otlp.New(oc, otlp.Deps{
		Pipeline: ingest.New(ingest.DefaultConfig(), ingest.Deps{Now: a.opts.Now, Metrics: a.reg}), Forward: id.Forward, Errors: errs, Now: a.opts.Now,
	})
	metrics := httpapi.NewMetrics(a.reg, a.opts.Now)
	drain := a.cfg.Server.Drain.Std()
	var parts []lifecycle.Part
	if addr := a.cfg.Server.OTLPHTTP; addr != "" {
		rt := httpapi.NewRouter(metrics.Requests(), metrics.Recover(httpapi.Ingest, errs))
		for pattern, h := range recv.Routes() {
			rt.Handle(pattern, h)
		}
		srv := httpapi.NewServer(httpapi.ServerOptions{Addr: config.Addr(addr), Handler: rt, Log: a.log, Drain: drain})
		parts = append(parts, srv.Part("OTLP/HTTP listener"))
	}
	if addr := a.cfg.Server.OTLPGRPC; addr != "" {
		side := httpapi.GRPC{Surface: httpapi.Ingest, Errors: errs, Metrics: metrics}
		rpc := grpc.NewServer(append(recv.ServerOptions(), append(side.Options(), grpc.MaxConcurrentStreams(128), grpc.ConnectionTimeout(20*time.Second))...)...)
		recv.Register(rpc)
		parts = append(parts, httpapi.NewRPCServer(config.Addr(addr), rpc, drain).Part("OTLP/gRPC listener"))
	}
	return parts
}

// handler serves the agent's own metrics, health and status.
func (a *Agent) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(a.reg, promhttp.HandlerOpts{EnableOpenMetrics: true}))
	mux.HandleFunc("GET /-/healthy", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "The agent is healthy.") })
	mux.HandleFunc("GET /-/ready", a.readiness)
	mux.HandleFunc("GET /{$}", a.status)
	mux.HandleFunc("GET /api/v1/status", a.status)
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	return mux
}

// readiness does not wait for the backend, nor for a backlog: the agent does its work without.
func (a *Agent) readiness(w http.ResponseWriter, _ *http.Request) {
	err := a.tailer.Ready()
	if err == nil && !a.ready.Load() {
		err = errors.New("starting or stopping")
	}
	if err != nil {
		w.Header().Set("Retry-After", "1")
		http.Error(w, "The agent is not ready: "+err.Error(), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "The agent is ready.")
}

// Status is what the agent tells about itself.
type Status struct {
	Version string          `json:"version"`
	Backend string          `json:"backend"`
	Waiting int             `json:"queuedRequests"`
	Pods    int             `json:"pods"`
	Streams []Stream        `json:"streams"`
	Targets []scrape.Status `json:"targets"`
}

// Stream is the state of a log stream.
type Stream struct {
	Name    string   `json:"name"`
	Files   []string `json:"files"`
	Read    int64    `json:"readBytes"`
	Acked   int64    `json:"ackedBytes"`
	Lag     int64    `json:"lagBytes"`
	Lost    int64    `json:"lostBytes"`
	Records int64    `json:"records"`
}

func (a *Agent) status(w http.ResponseWriter, _ *http.Request) {
	st := Status{Version: a.opts.Version, Backend: a.cfg.Backend.Endpoint, Waiting: a.queue.Waiting(), Streams: []Stream{}, Targets: a.scraper.Targets()}
	if a.pods != nil {
		st.Pods = len(a.pods.All())
	}
	for _, s := range a.tailer.Streams() {
		st.Streams = append(st.Streams, Stream{Name: s.Key.String(), Files: s.Files, Read: s.Read, Acked: s.Acked, Lag: s.Lag, Lost: s.Lost, Records: s.Records})
	}
	slices.SortFunc(st.Streams, func(a, b Stream) int { return strings.Compare(a.Name, b.Name) })
	httpapi.WriteJSON(w, http.StatusOK, map[string]any{"status": "success", "data": st})
}

func (a *Agent) announce(context.Context) error {
	a.ready.Store(true)
	took := a.opts.Now().Sub(a.began).Round(time.Millisecond)
	none := func(s string) string {
		if s == "" {
			return "not received"
		}
		return s
	}
	_, err := fmt.Fprintf(a.opts.Banner, `
The Braid agent %s is ready after %s.

  sends to    %s
  logs        %s and %d sources
  scrapes     every %s
  OTLP/gRPC   %s
  OTLP/HTTP   %s
  own status  http://%s/ and /metrics
  state       %s

`, a.opts.Version, took, a.cfg.Backend.Endpoint, none(a.cfg.Logs.PodsDir), len(a.cfg.Logs.Sources), a.cfg.Scrape.Interval, none(a.cfg.Server.OTLPGRPC), none(a.cfg.Server.OTLPHTTP), a.admin.Addr(), a.cfg.State)
	a.log.Info("ready", "version", a.opts.Version, "http", a.admin.Addr(), "backend", a.cfg.Backend.Endpoint, "took", took.String())
	return err
}
