//go:build e2e

package alerting

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// alertmanager starts a real one and returns its URL. The tests skip where there is none, except in CI.
func alertmanager(t *testing.T) string {
	t.Helper()
	var bin string
	for _, name := range []string{"prometheus-alertmanager", "alertmanager"} {
		if p, err := exec.LookPath(name); err == nil {
			bin = p
		}
	}
	if bin == "" {
		require.Empty(t, os.Getenv("CI"), "Alertmanager must be installed where CI runs")
		t.Skip("needs Alertmanager: the Debian package prometheus-alertmanager")
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "am.yml")
	require.NoError(t, os.WriteFile(file, []byte("route: {receiver: none}\nreceivers: [{name: none}]\n"), 0o600))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr := ln.Addr().String()
	require.NoError(t, ln.Close())
	cmd := exec.CommandContext(t.Context(), bin, "--config.file="+file, "--storage.path="+dir, "--web.listen-address="+addr, "--cluster.listen-address=")
	log, err := os.Create(filepath.Join(dir, "am.log"))
	require.NoError(t, err)
	cmd.Stdout, cmd.Stderr = log, log
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = log.Close()
	})
	url := "http://" + addr
	require.Eventually(t, func() bool {
		resp, err := http.Get(url + "/-/ready")
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	}, 30*time.Second, 100*time.Millisecond, "Alertmanager did not start; see %s", log.Name())
	return url
}

// held is an alert in the API of Alertmanager.
type held struct {
	Labels, Annotations map[string]string
	StartsAt, EndsAt    time.Time
	GeneratorURL        string
	Status              struct{ State string }
}

func inAlertmanager(t *testing.T, url string) (out []held) {
	t.Helper()
	resp, err := http.Get(url + "/api/v2/alerts")
	require.NoError(t, err)
	defer resp.Body.Close()
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&out))
	return out
}

// TestAlertmanagers requires that two Alertmanagers, with one between them that hangs, have the alert while it fires
// and no longer when it is over.
func TestAlertmanagers(t *testing.T) {
	one, two := alertmanager(t), alertmanager(t)
	hanging, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer hanging.Close()
	dir := t.TempDir()
	until := time.Now().Add(8 * time.Second) // then the alert is over; the rule stays the same
	rules := fmt.Sprintf("groups:\n- name: g\n  interval: 500ms\n  rules:\n  - alert: Fires\n    expr: vector(1) and vector(time()) < %d\n"+
		"    labels: {severity: page}\n    annotations: {summary: \"it is {{ $value }}\"}\n", until.Unix())
	s := start(t, dir, rules,
		"  resend_delay: 1s\n  external_labels: {cluster: c1}\n  external_url: http://braid.example/x/\n  alertmanagers: ["+one+", http://"+hanging.Addr().String()+", "+two+"]\n")
	for _, am := range []string{one, two} {
		var got []held
		require.Eventually(t, func() bool {
			got = inAlertmanager(t, am)
			return len(got) == 1
		}, 20*time.Second, 50*time.Millisecond)
		a := got[0]
		require.Equal(t, map[string]string{"alertname": "Fires", "severity": "page", "cluster": "c1"}, a.Labels)
		require.Equal(t, map[string]string{"summary": "it is 1"}, a.Annotations)
		require.Contains(t, a.GeneratorURL, "http://braid.example/x/graph?g0.expr=")
		require.True(t, a.EndsAt.After(time.Now()))
		require.Equal(t, "active", a.Status.State)
	}
	for _, am := range []string{one, two} {
		require.Eventually(t, func() bool { return len(inAlertmanager(t, am)) == 0 }, 40*time.Second, 100*time.Millisecond, "resolved alerts leave the list")
	}
	require.Less(t, time.Since(until), 30*time.Second)
	for _, am := range []string{one, two} { // they were told, and did not only hear nothing more of it
		resp, err := http.Get(am + "/metrics")
		require.NoError(t, err)
		text, err := io.ReadAll(resp.Body)
		require.NoError(t, errors.Join(err, resp.Body.Close()))
		require.Regexp(t, `alertmanager_alerts_received_total\{status="resolved",version="v2"\} [1-9]`, string(text))
	}
	sent, err := s.Metric(t.Context(), "prometheus_notifications_sent_total")
	require.NoError(t, err)
	require.GreaterOrEqual(t, sent, 4.0)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	require.NoError(t, s.Stop(ctx), "a hanging Alertmanager does not keep the process")
}
