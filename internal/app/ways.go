package app

import (
	"context"
	"maps"
	"net/http"

	"github.com/braidobs/braid/ingest"
	"github.com/braidobs/braid/ingest/elastic"
	"github.com/braidobs/braid/ingest/jsonlines"
	lokipush "github.com/braidobs/braid/ingest/loki"
	"github.com/braidobs/braid/ingest/syslog"
	"github.com/braidobs/braid/ingest/zipkin"
	"github.com/braidobs/braid/internal/config"
	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/lifecycle"
	"github.com/braidobs/braid/query"
	"github.com/braidobs/braid/query/api/loki"
)

// waysIn are the ways in over HTTP beside OTLP and remote write.
type waysIn struct {
	writes    map[string]http.Handler // by their patterns
	handshake *httpapi.Router         // of paths for which elastic.IsHandshake
	info      http.Handler            // what clients of Elasticsearch see at the root
}

// newWaysIn returns the ways in. Their requests are as large as those of OTLP may be.
func (a *App) newWaysIn(pipe *ingest.Pipeline) waysIn {
	rc := ingest.NewReceiver(ingest.ReceiverDeps{Pipeline: pipe, MaxBody: a.cfg.OTLP.MaxBody.Bytes(), Errors: a.errs, Now: a.opts.Now})
	es := elastic.New(rc)
	out := waysIn{
		writes: make(map[string]http.Handler), info: es.Info(),
		handshake: httpapi.NewRouter(a.http.Requests(), a.http.Recover(httpapi.Ingest, a.errs), httpapi.LimitBody(4<<20)),
	}
	for _, routes := range []map[string]http.Handler{lokipush.New(rc).Routes(), es.Routes(), jsonlines.New(rc).Routes(), zipkin.New(rc).Routes()} {
		maps.Copy(out.writes, routes)
	}
	for pattern, h := range es.Handshake() {
		out.handshake.Handle(pattern, h)
	}
	a.syslog = syslog.New(a.cfg.Syslog, syslog.Deps{Pipeline: pipe, Now: a.opts.Now, Log: a.log, Metrics: a.reg})
	return out
}

// lokiAPI adds the Loki API to the router of queries, and returns the handler of what stays open.
func (a *App) lokiAPI(observer *query.Observer, reads *httpapi.Router) http.Handler {
	deps := loki.Deps{
		Config: a.cfg.Loki, Reader: a.db, Follower: a.db, Observer: observer, Errors: a.errs, Now: a.opts.Now, Version: a.opts.Version,
	}
	if a.cfg.Server.AdminAPI {
		deps.Admin = a.db
	}
	api := loki.New(deps)
	api.Register(reads)
	// Without what is for answers that end: compression, and limits on how many there are.
	streams := httpapi.NewRouter(a.http.Requests(), a.http.Recover(httpapi.Query, a.errs), httpapi.Tenant(httpapi.Query, a.errs))
	api.RegisterStreams(streams)
	return streams
}

// printConfig answers with the configuration, without secrets.
func (a *App) printConfig(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	cfg := a.cfg
	if err := config.Print(w, &cfg); err != nil {
		a.log.Debug("configuration was not sent", "err", err)
	}
}

// root answers the root of the query port: to a browser with a page, to shippers as Elasticsearch.
func (a *App) root(info http.Handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if elastic.Asked(r) {
			info.ServeHTTP(w, r)
			return
		}
		a.index(w, r)
	}
}

// syslogPart returns the receiver of syslog as a part of the process, which comes after the one that assembles it.
func (a *App) syslogPart() lifecycle.Part {
	p := lifecycle.Part{Name: "syslog"}
	if len(a.cfg.Syslog.Listen) == 0 {
		return p
	}
	p.Start = func(ctx context.Context) error { return a.syslog.Part().Start(ctx) }
	p.Run = func(ctx context.Context) error { return a.syslog.Part().Run(ctx) }
	p.Stop = func(ctx context.Context) error { return a.syslog.Part().Stop(ctx) }
	return p
}
