//go:build long || e2e

// Package e2e runs the whole of Braid at once: server, node agent, a real Alertmanager and a real node exporter around
// the demo shop. The shop's database is made slow, and it is looked at what reaches the people who are on call.
package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/bench/harness"
	"github.com/braidobs/braid/bench/shop/instrument"
)

// scale shortens the windows of the objective: an hour is ten seconds, five minutes are 0.8 s.
const scale = 360

const objectives = `
slos:
  - name: database-latency
    description: Queries are quick.
    service: database
    objective: 95
    sli:
      spans:
        total: {kind: server}
        good: {max_duration: 400ms}
`

// place is where the shop runs: as processes, or in containers.
type place struct {
	pods     string             // folder of the containers' logs
	injected func(t *testing.T) // makes the database slow
	database instrument.Identity
	metrics  string // host:port of the database's /metrics
}

// stack is what runs around the shop.
type stack struct {
	server, agent *harness.Server
	agentGRPC     string // OTLP addresses of the agent
	agentHTTP     string
	alertmanager  string // URL
	nodeExporter  string // host:port
	dir           string
	bin           string
}

// fact prints what was checked, for whoever reads the log of the run.
func fact(t *testing.T, format string, args ...any) {
	t.Helper()
	t.Logf("FACT "+format, args...)
}

func freeAddr(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	return ln.Addr().String()
}

// tool finds a program of Debian's. Without it the test is skipped, but on CI.
func tool(t *testing.T, name, pkg string) string {
	t.Helper()
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/bin", "/usr/sbin") {
		path := filepath.Join(dir, name)
		if fi, err := os.Stat(path); err == nil && !fi.IsDir() {
			return path
		}
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("%s is missing: apt-get install %s", name, pkg)
	}
	t.Skipf("%s is missing: apt-get install %s", name, pkg)
	return ""
}

// background starts a program that runs until the test ends, its output in a file of the test's folder.
func background(t *testing.T, dir, name string, args ...string) {
	t.Helper()
	log, err := os.Create(filepath.Join(dir, filepath.Base(name)+".log"))
	require.NoError(t, err)
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = log, log
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		done := make(chan struct{})
		go func() { _ = cmd.Wait(); close(done) }()
		select {
		case <-done:
		case <-time.After(5 * time.Second):
			_ = cmd.Process.Kill()
			<-done
		}
		_ = log.Close()
	})
}

func get(ctx context.Context, link string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, link, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s: %.300s", link, resp.Status, b)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(b, into)
}

// start starts everything but the shop. metrics is where the database will serve its own.
func start(t *testing.T, pods, databaseMetrics string, db instrument.Identity) *stack {
	t.Helper()
	ctx := t.Context()
	s := &stack{dir: t.TempDir(), bin: t.TempDir()}
	alertmanager := tool(t, "prometheus-alertmanager", "prometheus-alertmanager")
	exporter := tool(t, "prometheus-node-exporter", "prometheus-node-exporter")
	braid, err := harness.Build(ctx, s.bin)
	require.NoError(t, err)
	agentBin, err := harness.BuildPackage(ctx, s.bin, "cmd/braid-agent")
	require.NoError(t, err)

	am := freeAddr(t)
	amConfig := filepath.Join(s.dir, "alertmanager.yml")
	require.NoError(t, os.WriteFile(amConfig, []byte("route: {receiver: none, group_wait: 0s}\nreceivers: [{name: none}]\n"), 0o600))
	background(t, s.dir, alertmanager, "--config.file="+amConfig, "--storage.path="+filepath.Join(s.dir, "am"), "--web.listen-address="+am, "--cluster.listen-address=")
	s.alertmanager = "http://" + am
	s.nodeExporter = freeAddr(t)
	background(t, s.dir, exporter, "--web.listen-address="+s.nodeExporter)

	slos := filepath.Join(s.dir, "slos.yml")
	require.NoError(t, os.WriteFile(slos, []byte(objectives), 0o600))
	data := filepath.Join(s.dir, "braid")
	require.NoError(t, os.Mkdir(data, 0o755))
	s.server, err = harness.Start(ctx, harness.Options{Binary: braid, Data: data, Config: fmt.Sprintf(
		"alerting:\n  slos: [%q]\n  slo_scale: %d\n  resend_delay: 1s\n  alertmanagers: [%q]\n", slos, scale, s.alertmanager)})
	require.NoError(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(s.server.Log())
		}
		s.server.Kill()
	})

	s.agentGRPC, s.agentHTTP = freeAddr(t), freeAddr(t)
	agentDir := filepath.Join(s.dir, "agent")
	require.NoError(t, os.Mkdir(agentDir, 0o755))
	s.agent, err = harness.StartAgent(ctx, harness.AgentOptions{
		Binary: agentBin, Dir: agentDir, Backend: "http://" + s.server.OTLPHTTP,
		Server: fmt.Sprintf("  otlp_grpc: %s\n  otlp_http: %s\n", s.agentGRPC, s.agentHTTP),
		Config: fmt.Sprintf(`logs: {pods_dir: %q}
scrape:
  interval: 1s
  timeout: 1s
  static:
    - {job: node, targets: [%q]}
    - {job: database, targets: [%q], labels: {namespace: %s, pod: %s}}
`, pods, s.nodeExporter, databaseMetrics, db.Namespace, db.Pod),
	})
	require.NoError(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(s.agent.Log())
		}
		s.agent.Kill()
	})
	require.Eventually(t, func() bool { return get(ctx, s.alertmanager+"/-/ready", nil) == nil }, 30*time.Second, 100*time.Millisecond, "Alertmanager is ready")
	return s
}

// alert is an alert as Alertmanager has it.
type alert struct {
	Fingerprint string            `json:"fingerprint"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
	Status      struct {
		State string `json:"state"`
	} `json:"status"`
}

type exampleTrace struct {
	TraceID    string  `json:"traceID"`
	Service    string  `json:"service"`
	DurationMs float64 `json:"durationMs"`
	Query      string  `json:"query"`
}

type exampleLine struct {
	TraceID string `json:"traceID"`
	Body    string `json:"body"`
	Pod     string `json:"pod"`
	Query   string `json:"query"`
}

// explained is evidence as Braid serves it, as far as it is checked.
type explained struct {
	Data struct {
		Fingerprint string         `json:"fingerprint"`
		TookMillis  float64        `json:"tookMillis"`
		Traces      []exampleTrace `json:"traces"`
		Logs        []exampleLine  `json:"logs"`
		Pods        []struct {
			Namespace string          `json:"namespace"`
			Pod       string          `json:"pod"`
			CPU       json.RawMessage `json:"cpu"`
			Memory    json.RawMessage `json:"memory"`
			Query     string          `json:"query"`
		} `json:"pods"`
		Incomplete []string `json:"incomplete"`
	} `json:"data"`
}

// scenario is the same for both places.
func scenario(t *testing.T, s *stack, p *place) {
	t.Helper()
	ctx := t.Context()
	base := "http://" + s.server.HTTP
	eventually := func(what string, f func() error) {
		t.Helper()
		var last error
		require.Eventually(t, func() bool { last = f(); return last == nil }, 90*time.Second, 250*time.Millisecond, "%s: %v", what, &last)
	}

	// What the agent collects arrives, joined to the pod.
	var streams struct {
		Data struct {
			Result []struct {
				Stream map[string]string `json:"stream"`
				Values [][]any           `json:"values"`
			} `json:"result"`
		} `json:"data"`
	}
	eventually("lines of the database's container", func() error {
		q := url.Values{"query": {fmt.Sprintf(`{namespace=%q, pod=%q}`, p.database.Namespace, p.database.Pod)}, "limit": {"10"}}
		if err := get(ctx, base+"/loki/api/v1/query_range?"+q.Encode(), &streams); err != nil {
			return err
		}
		if len(streams.Data.Result) == 0 {
			return errors.New("there are none")
		}
		return nil
	})
	fact(t, "the agent tails %s/%s: labels %v", p.database.Namespace, p.database.Pod, streams.Data.Result[0].Stream["container"])
	vector := func(query string) (map[string]string, error) {
		var v struct {
			Data struct {
				Result []struct {
					Metric map[string]string `json:"metric"`
					Value  [2]any            `json:"value"`
				} `json:"result"`
			} `json:"data"`
		}
		if err := get(ctx, base+"/api/v1/query?"+url.Values{"query": {query}}.Encode(), &v); err != nil {
			return nil, err
		}
		if len(v.Data.Result) == 0 {
			return nil, fmt.Errorf("%s has no value", query)
		}
		out := v.Data.Result[0].Metric
		out["value"], _ = v.Data.Result[0].Value[1].(string)
		return out, nil
	}
	for _, query := range []string{`up{job="node"} == 1`, `node_cpu_seconds_total{mode="idle"}`, `up{job="database"} == 1`} {
		eventually(query, func() error { _, err := vector(query); return err })
		fact(t, "scraped: %s", query)
	}
	eventually("spans over the agent's OTLP", func() error {
		_, err := vector(`sum(sum_over_time(braid_slo_spans{slo="database-latency",outcome="total"}[1m])) > 20`)
		return err
	})
	fact(t, "spans arrive over the agent's OTLP endpoint and are counted for the objective")
	var alerts []alert
	require.NoError(t, get(ctx, s.alertmanager+"/api/v2/alerts", &alerts))
	require.Empty(t, alerts, "nothing fires while all is well")

	p.injected(t)
	injected := time.Now()
	eventually("an alert in Alertmanager, with its evidence", func() error {
		if err := get(ctx, s.alertmanager+"/api/v2/alerts?"+url.Values{"filter": {`slo="database-latency"`}}.Encode(), &alerts); err != nil {
			return err
		}
		if len(alerts) == 0 {
			return errors.New("nothing fires")
		}
		// The lines of the traces may come after their spans: then they are added when the alert is sent again.
		if alerts[0].Annotations["evidence_logs"] == "" {
			return fmt.Errorf("the alert carries no evidence: %v", alerts[0].Annotations)
		}
		return nil
	})
	a := alerts[0]
	fact(t, "%s fires %s after the fault (severity %s), and Alertmanager holds it", a.Labels["alertname"], time.Since(injected).Round(100*time.Millisecond), a.Labels["severity"])
	require.Equal(t, "active", a.Status.State)
	for _, name := range []string{"evidence_traces", "evidence_logs", "evidence_pods"} {
		require.NotEmpty(t, a.Annotations[name], name)
		t.Logf("%s:\n%s", name, a.Annotations[name])
	}

	var ev explained
	require.NoError(t, get(ctx, a.Annotations["evidence"], &ev))
	d := ev.Data
	require.Equal(t, a.Fingerprint, d.Fingerprint, "the same fingerprint as Alertmanager's")
	require.Empty(t, d.Incomplete)
	require.Less(t, d.TookMillis, 500.0)
	fact(t, "evidence was gathered in %.0f ms", d.TookMillis)
	require.NotEmpty(t, d.Traces)
	require.LessOrEqual(t, len(d.Traces), 5)
	for _, tr := range d.Traces {
		require.Greater(t, tr.DurationMs, 400.0)
		var found struct {
			Trace json.RawMessage `json:"trace"`
		}
		require.NoError(t, get(ctx, base+tr.Query, &found), "its query gives the trace")
		require.Contains(t, string(found.Trace), "spanId")
		fact(t, "example trace %s: a query of %s that took %.0f ms", tr.TraceID, tr.Service, tr.DurationMs)
	}
	require.NotEmpty(t, d.Logs)
	for _, l := range d.Logs {
		require.True(t, slices.ContainsFunc(d.Traces, func(x exampleTrace) bool { return x.TraceID == l.TraceID }), "a line of one of the examples")
		require.NoError(t, get(ctx, base+l.Query, &streams))
		require.NotEmpty(t, streams.Data.Result, "its query gives the line")
	}
	require.True(t, slices.ContainsFunc(d.Logs, func(l exampleLine) bool {
		return l.Pod == p.database.Pod && strings.Contains(strings.ToLower(l.Body), "slow")
	}), "the database says that a query was slow: %+v", d.Logs)
	fact(t, "%d lines of these traces, the most severe: %s", len(d.Logs), d.Logs[0].Body)
	involved := false
	for _, pod := range d.Pods {
		involved = involved || pod.Pod == p.database.Pod
		require.NoError(t, get(ctx, base+pod.Query, nil))
	}
	require.True(t, involved, "the database's pod is among those involved: %+v", d.Pods)
	require.Equal(t, p.database.Pod, d.Pods[0].Pod, "and it took longest by itself")
	fact(t, "involved, first of %d pods: %s (CPU %s, memory %s)", len(d.Pods), d.Pods[0].Pod, d.Pods[0].CPU, d.Pods[0].Memory)

	var st struct {
		Data struct {
			SLOs []struct {
				Name      string   `json:"name"`
				Remaining *float64 `json:"errorBudgetRemaining"`
				Firing    []string `json:"firing"`
			} `json:"slos"`
		} `json:"data"`
	}
	require.NoError(t, get(ctx, base+"/api/v1/slos", &st))
	require.NotNil(t, st.Data.SLOs[0].Remaining)
	require.Less(t, *st.Data.SLOs[0].Remaining, 1.0)
	fact(t, "/api/v1/slos: %.0f %% of the error budget is left, firing %v", 100**st.Data.SLOs[0].Remaining, st.Data.SLOs[0].Firing)
}
