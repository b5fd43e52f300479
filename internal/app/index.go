package app

import (
	"html/template"
	"net/http"
)

// index shows a person who opens the port in a browser what there is.
func (a *App) index(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	page := template.Must(template.New("index").Parse(`<!doctype html>
<title>Braid</title>
<style>body{font:16px/1.5 system-ui;max-width:48rem;margin:3rem auto;padding:0 1rem}code{background:#eee;padding:.1em .3em}</style>
<h1>Braid {{.Version}}</h1>
<p>Metrics, logs and traces in one store. Send OTLP to <code>{{.GRPC}}</code> (gRPC) or <code>http://{{.HTTP}}</code> (HTTP).</p>
<ul>
<li><a href="/metrics">/metrics</a>: own metrics</li>
<li><a href="/-/ready">/-/ready</a>, <a href="/-/healthy">/-/healthy</a></li>
<li><a href="/api/v1/labels">/api/v1/labels</a>, <code>/api/v1/query?query=...</code>: PromQL</li>
<li><code>/loki/api/v1/query_range?query=...</code>, <code>/api/v1/logs/export?query=...</code>: LogQL</li>
<li><a href="/api/search">/api/search</a>, <code>/api/v2/traces/{id}</code>: traces</li>
<li><a href="/api/v1/rules">/api/v1/rules</a>, <a href="/api/v1/alerts">/api/v1/alerts</a>, <a href="/api/v1/slos">/api/v1/slos</a>: rules, alerts, objectives</li>
<li><code>/api/v1/correlate/trace/{id}</code>, <code>/api/v1/correlate/resource?name=...</code>: joins</li>
</ul>
`))
	err := page.Execute(w, map[string]string{"Version": a.opts.Version, "GRPC": a.grpc.Addr(), "HTTP": a.ohttp.Addr()})
	if err != nil {
		a.log.Debug("page was not sent", "err", err)
	}
}
