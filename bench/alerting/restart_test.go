package alerting

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const waiting = `groups:
- name: g
  interval: 500ms
  rules:
  - {alert: Waits, expr: vector(1), for: 1h}
`

// TestForSurvivesKill requires that an alert that waits is not set back by kill -9: after the restart it has been
// active since before.
func TestForSurvivesKill(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir, waiting, "")
	var before alert
	require.Eventually(t, func() bool {
		found := alerts(t, s)
		if len(found) == 1 {
			before = found[0]
		}
		return len(found) == 1 && time.Since(before.ActiveAt) > 3*time.Second
	}, 30*time.Second, 50*time.Millisecond)
	require.Equal(t, "pending", before.State)
	s.Kill()
	killed := time.Now()
	s = start(t, dir, waiting, "")
	restarted := time.Now()
	require.Eventually(t, func() bool {
		found := alerts(t, s)
		// Restored, it counts from before, later by the outage: the time in which nobody looked.
		return len(found) == 1 && found[0].ActiveAt.Before(killed.Add(-time.Second))
	}, 20*time.Second, 50*time.Millisecond)
	after := alerts(t, s)[0]
	require.False(t, after.ActiveAt.Before(before.ActiveAt.Truncate(time.Second)))
	require.Less(t, after.ActiveAt.Sub(before.ActiveAt), time.Since(killed)+2*time.Second)
	require.True(t, after.ActiveAt.Before(restarted))
}

// TestHangup requires that SIGHUP and POST /-/reload load changed rules, and that mistakes leave them as they were.
func TestHangup(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir, waiting, "")
	file := filepath.Join(dir, "rules.yml")
	change := func(text string) { require.NoError(t, os.WriteFile(file, []byte(text), 0o600)) }
	hangup := func() {
		p, err := os.FindProcess(s.PID())
		require.NoError(t, err)
		require.NoError(t, p.Signal(syscall.SIGHUP))
	}
	named := func(name string) func() bool {
		return func() bool {
			found := alerts(t, s)
			return len(found) == 1 && found[0].Labels["alertname"] == name
		}
	}
	require.Eventually(t, named("Waits"), 20*time.Second, 50*time.Millisecond)
	change("groups:\n- name: h\n  interval: 500ms\n  rules:\n  - {alert: Other, expr: vector(1), for: 1h}\n")
	hangup()
	require.Eventually(t, named("Other"), 20*time.Second, 50*time.Millisecond)
	change("groups: nonsense")
	hangup()
	require.Eventually(t, func() bool {
		v, err := s.Metric(t.Context(), "braid_alerting_reload_success")
		return err == nil && v == 0
	}, 20*time.Second, 50*time.Millisecond)
	require.Contains(t, s.Log(), "rules.yml:1:9: groups must be a list")
	require.True(t, named("Other")())
	require.Equal(t, 500, post(t, "http://"+s.HTTP+"/-/reload"))
	change(waiting)
	require.Equal(t, 200, post(t, "http://"+s.HTTP+"/-/reload"))
	require.Eventually(t, named("Waits"), 20*time.Second, 50*time.Millisecond)
}
