package notify_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/labels"
	promrules "github.com/prometheus/prometheus/rules"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/braidobs/braid/alerting/notify"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// received is an alert as an Alertmanager gets it.
type received struct {
	Labels, Annotations  map[string]string
	StartsAt, EndsAt     time.Time
	GeneratorURL         string
	path, user, password string
}

// fake is an Alertmanager that answers with a status.
type fake struct {
	*httptest.Server
	mu     sync.Mutex // guards what follows
	status int
	got    []received
	sizes  []int
}

func newFake(t *testing.T) *fake {
	t.Helper()
	f := &fake{status: http.StatusOK}
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var some []received
		err := json.NewDecoder(r.Body).Decode(&some)
		f.mu.Lock()
		defer f.mu.Unlock()
		if err != nil || r.Header.Get("Content-Type") != "application/json" {
			f.status = http.StatusBadRequest
		}
		for i := range some {
			some[i].path = r.URL.Path
			some[i].user, some[i].password, _ = r.BasicAuth()
		}
		if f.status == http.StatusOK {
			f.got = append(f.got, some...)
			f.sizes = append(f.sizes, len(some))
		}
		w.WriteHeader(f.status)
		fmt.Fprint(w, "because")
	}))
	t.Cleanup(f.Close)
	return f
}

func (f *fake) alerts() []received {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]received(nil), f.got...)
}

// setup is a notifier that runs.
type setup struct {
	*notify.Notifier
	reg *prometheus.Registry
	log *strings.Builder
	end func()
}

func start(t *testing.T, annotate notify.Annotate, urls ...string) *setup {
	t.Helper()
	s := &setup{reg: prometheus.NewRegistry(), log: &strings.Builder{}}
	var ams []notify.URL
	for _, u := range urls {
		p, err := notify.ParseURL(u)
		require.NoError(t, err)
		ams = append(ams, p)
	}
	tr := &http.Transport{}
	t.Cleanup(tr.CloseIdleConnections)
	s.Notifier = notify.New(notify.Deps{
		Alertmanagers: ams, ExternalLabels: labels.FromStrings("cluster", "c1", "severity", "none"), ExternalURL: "http://braid.example",
		Annotate: annotate, Client: &http.Client{Transport: tr}, Log: slog.New(slog.NewTextHandler(s.log, nil)), Metrics: s.reg, Now: time.Now,
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	s.end = sync.OnceFunc(func() {
		cancel()
		require.NoError(t, <-done)
	})
	t.Cleanup(s.end)
	return s
}

func firing(n int) *promrules.Alert {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return &promrules.Alert{
		Labels: labels.FromStrings("alertname", "A", "n", strconv.Itoa(n), "severity", "page"), Annotations: labels.FromStrings("summary", "it is so"),
		State: promrules.StateFiring, FiredAt: at, ValidUntil: at.Add(4 * time.Minute),
	}
}

func (s *setup) metric(t *testing.T, name, alertmanager string) int {
	t.Helper()
	all, err := s.reg.Gather()
	require.NoError(t, err)
	for _, f := range all {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && (len(m.GetLabel()) == 0 || strings.HasPrefix(m.GetLabel()[0].GetValue(), alertmanager)) {
				return int(m.GetCounter().GetValue() + m.GetGauge().GetValue())
			}
		}
	}
	require.Fail(t, "no metric "+name)
	return 0
}

func eventually(t *testing.T, f func() bool) {
	t.Helper()
	require.Eventually(t, f, 20*time.Second, 5*time.Millisecond)
}

func TestSend(t *testing.T) {
	am, other := newFake(t), newFake(t)
	withUser := strings.Replace(am.URL, "http://", "http://me:secret@", 1)
	s := start(t, nil, withUser+"/prefix/", other.URL, other.URL)
	require.Equal(t, []string{am.URL + "/prefix/api/v2/alerts", other.URL + "/api/v2/alerts"}, s.Alertmanagers())
	resolved := firing(2)
	resolved.ResolvedAt = resolved.FiredAt.Add(time.Minute)
	s.Notify(t.Context(), "up == 0", firing(1), resolved)
	s.Notify(t.Context(), "up == 0")
	eventually(t, func() bool { return len(am.alerts()) == 2 && len(other.alerts()) == 2 })
	got := am.alerts()
	at := firing(1).FiredAt
	require.Equal(t, received{
		Labels:      map[string]string{"alertname": "A", "n": "1", "severity": "page", "cluster": "c1"},
		Annotations: map[string]string{"summary": "it is so"}, StartsAt: at, EndsAt: at.Add(4 * time.Minute),
		GeneratorURL: "http://braid.example/graph?g0.expr=up+%3D%3D+0&g0.tab=1", path: "/prefix/api/v2/alerts", user: "me", password: "secret",
	}, got[0])
	require.Equal(t, at.Add(time.Minute), got[1].EndsAt)
	eventually(t, func() bool { return s.metric(t, "prometheus_notifications_sent_total", am.URL) == 2 })
	require.Equal(t, 2, s.metric(t, "prometheus_notifications_alertmanagers_discovered", ""))
}

// TestHangingAlertmanager requires that one that takes connections and never answers delays neither the rules nor
// the other Alertmanagers, nor the end of the process for long, and that what it does not get is counted.
func TestHangingAlertmanager(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	am := newFake(t)
	hanging := "http://" + ln.Addr().String()
	s := start(t, nil, hanging, am.URL)
	began := time.Now()
	for i := range 3000 {
		s.Notify(t.Context(), "up", firing(4*i), firing(4*i+1), firing(4*i+2), firing(4*i+3))
	}
	require.Less(t, time.Since(began), 5*time.Second)
	eventually(t, func() bool { return len(am.alerts()) == 12_000 })
	for _, n := range am.sizes {
		require.LessOrEqual(t, n, 256)
	}
	dropped := s.metric(t, "prometheus_notifications_dropped_total", hanging)
	require.InDelta(t, 12_000-notify.Capacity, dropped, 256, "the oldest are dropped, those being sent are not in the queue")
	began = time.Now()
	s.end()
	require.Less(t, time.Since(began), 8*time.Second)
	require.Equal(t, 12_000, s.metric(t, "prometheus_notifications_dropped_total", hanging))
	require.Zero(t, s.metric(t, "prometheus_notifications_dropped_total", am.URL))
}

func TestRefusingAlertmanager(t *testing.T) {
	am := newFake(t)
	am.status = http.StatusInternalServerError
	s := start(t, nil, am.URL, "http://127.0.0.1:1")
	s.Notify(t.Context(), "up", firing(1))
	eventually(t, func() bool {
		return s.metric(t, "prometheus_notifications_errors_total", am.URL) == 1 && s.metric(t, "prometheus_notifications_errors_total", "http://127.0.0.1:1/") == 1
	})
	am.mu.Lock()
	am.status = http.StatusOK
	am.mu.Unlock()
	s.Notify(t.Context(), "up", firing(1))
	eventually(t, func() bool { return len(am.alerts()) == 1 })
	s.end()
	require.Contains(t, s.log.String(), "500 Internal Server Error: \\\"because\\\"")
	require.Equal(t, 1, s.metric(t, "prometheus_notifications_dropped_total", am.URL))
}

// TestDrain requires that what is queued when the process stops is still sent.
func TestDrain(t *testing.T) {
	am := newFake(t)
	s := start(t, func(_ context.Context, a *notify.Alert) { a.GeneratorURL = "x" }, am.URL)
	for i := range 1000 {
		s.Notify(t.Context(), "up", firing(i))
	}
	s.end()
	distinct := map[string]bool{} // a request that the stop cut off may have arrived, and is sent again
	for _, a := range am.alerts() {
		distinct[a.Labels["n"]] = true
	}
	require.Len(t, distinct, 1000)
	s.Notify(t.Context(), "up", firing(1)) // does no harm
}

func TestAnnotate(t *testing.T) {
	am := newFake(t)
	s := start(t, func(_ context.Context, a *notify.Alert) {
		a.Annotations = labels.FromStrings("evidence", a.Expr+" "+a.Labels.Get("n"))
		a.Labels = labels.FromStrings("alertname", "other")
	}, am.URL)
	s.Notify(t.Context(), "up", firing(1), firing(2))
	eventually(t, func() bool { return len(am.alerts()) == 2 })
	for i, a := range am.alerts() {
		require.Equal(t, map[string]string{"evidence": "up " + strconv.Itoa(i+1)}, a.Annotations)
		require.Equal(t, "A", a.Labels["alertname"], "labels stay: they are the alert's identity")
	}
}

// TestHangingAnnotate requires that alerts go out without when the hook does not come back.
func TestHangingAnnotate(t *testing.T) {
	am := newFake(t)
	free := make(chan struct{})
	s := start(t, func(context.Context, *notify.Alert) { <-free }, am.URL)
	defer close(free)
	began := time.Now()
	for i := range 20 {
		s.Notify(t.Context(), "up", firing(i))
	}
	require.Less(t, time.Since(began), notify.AnnotateTime)
	eventually(t, func() bool { return len(am.alerts()) == 20 })
	require.Equal(t, 20, s.metric(t, "braid_notify_annotate_late_total", ""))
	n, err := testutil.GatherAndCount(s.reg, "prometheus_notifications_queue_length")
	require.NoError(t, err)
	require.Equal(t, 2, n)
}

func TestURL(t *testing.T) {
	for _, tt := range []struct{ in, out, err string }{
		{in: "http://am:9093", out: "http://am:9093"},
		{in: "https://me:secret@am/prefix", out: "https://me:***@am/prefix"},
		{in: "https://me@am", out: "https://me@am"},
		{in: "am:9093", err: "must begin with http:// or https://"},
		{in: "http://", err: "names no host"},
		{in: "http://me:secret@am/?a=b", err: "http://me:***@am/?a=b: must have neither a query nor a fragment"},
		{in: "http://me:secret@a b", err: "is not a URL"},
	} {
		t.Run(tt.in, func(t *testing.T) {
			var u notify.URL
			err := u.UnmarshalText([]byte(tt.in))
			if tt.err != "" {
				require.ErrorContains(t, err, tt.err)
				require.NotContains(t, err.Error(), "secret")
				return
			}
			require.NoError(t, err)
			b, err := u.MarshalText()
			require.NoError(t, err)
			require.Equal(t, tt.out, string(b))
			require.Equal(t, tt.out, fmt.Sprintf("%v", u))
			require.NotContains(t, fmt.Sprintf("%s %+v %#v", u, u, u), "secret")
		})
	}
}
