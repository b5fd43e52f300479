package alerting_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/braidobs/braid/alerting"
	"github.com/braidobs/braid/alerting/notify"
	"github.com/braidobs/braid/internal/config"
	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/testkit"
	"github.com/braidobs/braid/query/promql"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const first = `groups:
- name: one
  interval: 10s
  limit: 7
  rules:
  - {record: x, expr: vector(2), labels: {kind: rec}}
  - alert: Now
    expr: x > 1
    labels: {severity: page}
    annotations: {summary: "value {{ $value }}"}
  - alert: Later
    expr: x > 1
    for: 1h
    keep_firing_for: 5m
  - {alert: Never, expr: x > 5}
- name: two
  rules:
  - {record: y, expr: x + on() (x or vector(1))}
`

// nobody is a network without an Alertmanager.
type nobody struct{}

func (nobody) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, errors.New("nobody is there")
}

type server struct {
	*alerting.Alerting
	http.Handler
	dir  string
	stop func()
}

func serve(t *testing.T) *server {
	t.Helper()
	s := &server{dir: t.TempDir()}
	s.write(t, "a.yml", first)
	s.write(t, "b.yml", "groups:\n- name: one\n  rules:\n  - {record: z, expr: vector(1)}\n")
	store := testkit.NewStore("c")
	engine, err := promql.New(promql.Deps{Config: promql.DefaultConfig(), Reader: store, Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	cfg := alerting.DefaultConfig()
	cfg.Rules = []string{filepath.Join(s.dir, "*.yml")}
	cfg.Tenant = "shop"
	am, err := notify.ParseURL("http://me:secret@am.example:9093/p")
	require.NoError(t, err)
	cfg.Alertmanagers = []notify.URL{am}
	s.Alerting, err = alerting.New(alerting.Deps{
		Config: cfg, Engine: engine, Writer: store, Addr: "127.0.0.1:9090",
		Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(), Now: time.Now,
		Client: &http.Client{Transport: nobody{}},
	})
	require.NoError(t, err)
	require.NoError(t, s.Start(t.Context()))
	rt := httpapi.NewRouter(httpapi.Tenant(httpapi.Query, httpapi.Errors{}))
	s.Register(rt)
	s.Handler = rt
	return s
}

func (s *server) write(t *testing.T, name, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600))
}

func (s *server) ask(t *testing.T, method, tenant, target string) (int, string) {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, target, nil)
	r.Header.Set(httpapi.TenantHeader, tenant)
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w.Code, strings.ReplaceAll(w.Body.String(), s.dir, "DIR")
}

// evaluated returns a server whose rules were evaluated twice.
func evaluated(t *testing.T) *server {
	t.Helper()
	s := serve(t)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	s.stop = func() {
		cancel()
		require.NoError(t, <-done)
	}
	time.Sleep(2*time.Minute + time.Second)
	return s
}

func TestRulesJSON(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := evaluated(t)
		defer s.stop()
		code, body := s.ask(t, "GET", "shop", "/api/v1/rules")
		require.Equal(t, 200, code)
		for _, r := range [][2]string{{`"(evaluationTime)":[0-9.e-]+`, `"$1":0`}, {`"(lastError)":"found[^]]*];(many-to-many)[^"]*"`, `"$1":"$2"`}, {`"(lastEvaluation|activeAt)":"2000-01-01T00:[^"]*Z"`, `"$1":"T"`}} {
			body = regexp.MustCompile(r[0]).ReplaceAllString(body, r[1])
		}
		require.JSONEq(t, `{"status":"success","data":{"groups":[
{"name":"one","file":"DIR/a.yml","interval":10,"limit":7,"evaluationTime":0,"lastEvaluation":"T","rules":[
 {"type":"recording","name":"x","query":"vector(2)","labels":{"kind":"rec"},"health":"ok","evaluationTime":0,"lastEvaluation":"T"},
 {"type":"alerting","state":"firing","name":"Now","query":"x > 1","duration":0,"keepFiringFor":0,"labels":{"severity":"page"},
  "annotations":{"summary":"value {{ $value }}"},"health":"ok","evaluationTime":0,"lastEvaluation":"T",
  "alerts":[{"labels":{"alertname":"Now","kind":"rec","severity":"page"},"annotations":{"summary":"value 2"},"state":"firing","activeAt":"T","value":"2e+00"}]},
 {"type":"alerting","state":"pending","name":"Later","query":"x > 1","duration":3600,"keepFiringFor":300,"labels":{},"annotations":{},"health":"ok","evaluationTime":0,"lastEvaluation":"T",
  "alerts":[{"labels":{"alertname":"Later","kind":"rec"},"annotations":{},"state":"pending","activeAt":"T","value":"2e+00"}]},
 {"type":"alerting","state":"inactive","name":"Never","query":"x > 5","duration":0,"keepFiringFor":0,"labels":{},"annotations":{},"health":"ok","evaluationTime":0,"lastEvaluation":"T","alerts":[]}]},
{"name":"two","file":"DIR/a.yml","interval":60,"limit":0,"evaluationTime":0,"lastEvaluation":"T","rules":[
 {"type":"recording","name":"y","query":"x + on () (x or vector(1))","labels":{},"health":"err","lastError":"many-to-many","evaluationTime":0,"lastEvaluation":"T"}]},
{"name":"one","file":"DIR/b.yml","interval":60,"limit":0,"evaluationTime":0,"lastEvaluation":"T","rules":[
 {"type":"recording","name":"z","query":"vector(1)","labels":{},"health":"ok","evaluationTime":0,"lastEvaluation":"T"}]}
]}}`, body)

		code, body = s.ask(t, "GET", "shop", "/api/v1/alerts")
		require.Equal(t, 200, code)
		body = regexp.MustCompile(`"activeAt":"[^"]*"`).ReplaceAllString(body, `"activeAt":"T"`)
		require.JSONEq(t, `{"status":"success","data":{"alerts":[
{"labels":{"alertname":"Now","kind":"rec","severity":"page"},"annotations":{"summary":"value 2"},"state":"firing","activeAt":"T","value":"2e+00"},
{"labels":{"alertname":"Later","kind":"rec"},"annotations":{},"state":"pending","activeAt":"T","value":"2e+00"}]}}`, body)
	})
}

func TestOtherTenantsSeeNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := evaluated(t)
		defer s.stop()
		for path, want := range map[string]string{
			"/api/v1/rules": `{"groups":[]}`, "/api/v1/alerts": `{"alerts":[]}`,
			"/api/v1/alertmanagers": `{"activeAlertmanagers":[],"droppedAlertmanagers":[]}`,
		} {
			code, body := s.ask(t, "GET", "other", path)
			require.Equal(t, 200, code)
			require.JSONEq(t, `{"status":"success","data":`+want+`}`, body)
		}
		_, body := s.ask(t, "GET", "shop", "/api/v1/alertmanagers")
		require.JSONEq(t, `{"status":"success","data":{"activeAlertmanagers":[{"url":"http://am.example:9093/p/api/v2/alerts"}],"droppedAlertmanagers":[]}}`, body)
	})
}

func TestRulesParameters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := evaluated(t)
		defer s.stop()
		type page struct {
			Data struct {
				Groups []struct {
					Name, File string
					Rules      []struct {
						Name   string
						Alerts []any
					}
				}
				GroupNextToken string
			}
		}
		ask := func(q string) (p page, names string) {
			code, body := s.ask(t, "GET", "shop", "/api/v1/rules?"+q)
			require.Equal(t, 200, code, body)
			require.NoError(t, json.Unmarshal([]byte(body), &p))
			var b strings.Builder
			for _, g := range p.Data.Groups {
				b.WriteString(g.Name + ":")
				for _, r := range g.Rules {
					b.WriteString(r.Name + " ")
				}
			}
			return p, strings.TrimSpace(b.String())
		}
		for q, want := range map[string]string{
			"type=record":                 "one:x two:y one:z",
			"type=Alert":                  "one:Now Later Never",
			"rule_name[]=x&rule_name[]=z": "one:x one:z",
			"rule_group[]=two":            "two:y",
			"file[]=" + url.QueryEscape(s.dir+"/b.yml"): "one:z",
			"file[]=none":                 "",
			"match[]={severity=\"page\"}": "one:Now",
			"match[]={severity=\"page\"}&match[]={kind=~\"r.*\"}": "one:x Now",
			"group_limit=1&type=alert":                            "one:Now Later Never",
		} {
			_, names := ask(strings.NewReplacer("[", "%5B", "]", "%5D", "{", "%7B", "}", "%7D", "\"", "%22").Replace(q))
			require.Equal(t, want, names, q)
		}
		p, _ := ask("exclude_alerts=true&rule_name[]=Now")
		require.Nil(t, p.Data.Groups[0].Rules[0].Alerts)

		var all []string
		token := ""
		for range 3 {
			p, names := ask("group_limit=1&group_next_token=" + token)
			all = append(all, names)
			token = p.Data.GroupNextToken
		}
		require.Equal(t, []string{"one:x Now Later Never", "two:y", "one:z"}, all)
		require.Empty(t, token)

		for q, want := range map[string]string{
			"type=x":                           `invalid parameter "type": not supported value "x"`,
			"exclude_alerts=x":                 `invalid parameter "exclude_alerts": error converting exclude_alerts`,
			"group_limit=x":                    `invalid parameter "group_limit": group_limit needs to be a valid number`,
			"group_limit=0":                    `group_limit needs to be greater than 0`,
			"group_next_token=x":               `group_limit needs to be present`,
			"group_limit=1&group_next_token=x": `invalid group_next_token 'x'. were rule groups changed?`,
			"match%5B%5D=%7B":                  `parse error`,
			"match%5B%5D=%7Ba%3D~%22.*%22%7D":  `match[] must contain at least one non-empty matcher`,
		} {
			code, body := s.ask(t, "GET", "shop", "/api/v1/rules?"+q)
			require.Equal(t, 400, code, q)
			var e struct{ Status, ErrorType, Error string }
			require.NoError(t, json.Unmarshal([]byte(body), &e))
			require.Equal(t, []string{"error", "bad_data"}, []string{e.Status, e.ErrorType})
			require.Contains(t, e.Error, want)
		}
	})
}

func TestReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := evaluated(t)
		defer s.stop()
		s.write(t, "a.yml", "groups:\n- name: one\n  rules:\n  - {record: x, expr: \"(\"}\n")
		s.write(t, "b.yml", "groups:\n- name: one\n  rulez: 1\n")
		code, body := s.ask(t, "POST", "shop", "/-/reload")
		require.Equal(t, 500, code)
		require.Contains(t, body, `DIR/a.yml:4:23: group "one", rule "x": could not parse expression`)
		require.Contains(t, body, `DIR/b.yml:3:3: group "one": unknown field "rulez"`)
		_, body = s.ask(t, "GET", "shop", "/api/v1/rules")
		require.Contains(t, body, "Later")
		s.write(t, "a.yml", "groups:\n- name: new\n  rules:\n  - {record: x, expr: vector(1)}\n")
		require.NoError(t, os.Remove(filepath.Join(s.dir, "b.yml")))
		code, _ = s.ask(t, "PUT", "shop", "/-/reload")
		require.Equal(t, 200, code)
		_, body = s.ask(t, "GET", "shop", "/api/v1/rules")
		require.Contains(t, body, `"name":"new"`)
		require.NotContains(t, body, "Later")
		code, _ = s.ask(t, "GET", "shop", "/-/reload")
		require.Equal(t, http.StatusMethodNotAllowed, code)
	})
}

func TestGraph(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := evaluated(t)
		defer s.stop()
		w := httptest.NewRecorder()
		s.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/graph?g0.expr=up+%3D%3D+0&g0.tab=1", nil))
		require.Equal(t, http.StatusFound, w.Code)
		require.Equal(t, "api/v1/query?query=up+%3D%3D+0", w.Header().Get("Location"))
	})
}

func TestConfig(t *testing.T) {
	cfg := struct {
		Alerting alerting.Config `yaml:"alerting"`
	}{alerting.DefaultConfig()}
	require.NoError(t, config.Validate(&cfg))
	err := config.Load(strings.NewReader(`alerting:
  rules: ["a.yml", ""]
  evaluation_interval: 0s
  alertmanagers: ["http://am:9093", "ftp://me:secret@am"]
  external_url: braid.example
  external_labels: {__name__: x, ok: "yes"}
  tenant: "a b"
`), "braid.yaml", &cfg)
	require.Error(t, err)
	for _, want := range []string{
		"braid.yaml:2: alerting.rules[1]: must name a file", "braid.yaml:3: alerting.evaluation_interval: must be at least 1ms",
		"alerting.alertmanagers[1]: ftp://me:***@am: must begin with http:// or https://",
		`braid.yaml:5: alerting.external_url: "braid.example" is not a URL`, `alerting.external_labels: "__name__" is no name of a label`,
		"braid.yaml:7: alerting.tenant: must be 1 to 64",
	} {
		require.ErrorContains(t, err, want)
	}
	require.NotContains(t, err.Error(), "secret")
	require.Len(t, strings.Split(err.Error(), "\n"), 6)
}
