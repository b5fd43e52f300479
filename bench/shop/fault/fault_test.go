package fault_test

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/bench/shop/fault"
)

func newSwitch(version string) *fault.Switch {
	return fault.New(fault.Config{
		Role: "database", Version: version, Seed: 7, Log: slog.New(slog.DiscardHandler),
		Kinds: []fault.Kind{fault.SlowDatabase, fault.ErrorBurst},
	})
}

func TestEndpoint(t *testing.T) {
	s := newSwitch("1.0.0")
	for _, tc := range []struct {
		name, method, body string
		status             int
		want               string
	}{
		{"off", http.MethodGet, ``, 200, `{"role":"database","version":"1.0.0","faults":[],"leaked_bytes":0}`},
		{
			"defaults", http.MethodPost, `{"kind":"slow_database"}`, 200,
			`{"role":"database","version":"1.0.0","faults":[{"kind":"slow_database","ratio":1,"delay":"800ms"}],"leaked_bytes":0}`,
		},
		{
			"replaces its kind", http.MethodPost, `{"kind":"slow_database","delay":"1s","ratio":0.3}`, 200,
			`{"role":"database","version":"1.0.0","faults":[{"kind":"slow_database","ratio":0.3,"delay":"1s"}],"leaked_bytes":0}`,
		},
		{"unknown kind", http.MethodPost, `{"kind":"fire"}`, 400, `kind: "fire" is not one of slow_database, error_burst, leaking_pod`},
		{"not this role", http.MethodPost, `{"kind":"leaking_pod"}`, 400, `kind: a database cannot do leaking_pod`},
		{
			"all mistakes", http.MethodPost, `{"kind":"slow_database","ratio":2,"delay":"-1s","rate":5,"limit":"2GiB"}`, 400,
			"ratio: must be between 0 and 1\ndelay: must be between 0 and 1m\nrate: must be between 1KiB and 1GiB\nlimit: must be between 0 and 1GiB",
		},
		{"unknown field", http.MethodPost, `{"kind":"slow_database","dealy":"1s"}`, 400, `parse fault: json: unknown field "dealy"`},
		{"no JSON", http.MethodPost, `slow`, 400, `parse fault: invalid character 's' looking for beginning of value`},
		{"method", http.MethodPut, ``, 405, `use GET, POST or DELETE`},
		{"clear", http.MethodDelete, ``, 200, `{"role":"database","version":"1.0.0","faults":[],"leaked_bytes":0}`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := httptest.NewRecorder()
			s.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), tc.method, "/fault", strings.NewReader(tc.body)))
			require.Equal(t, tc.status, w.Code)
			require.Equal(t, tc.want, strings.TrimSpace(w.Body.String()))
		})
	}
}

func TestHit(t *testing.T) {
	s := newSwitch("1.1.0")
	_, hit := s.Hit(fault.SlowDatabase, "insert_order")
	require.False(t, hit, "nothing is on")

	require.NoError(t, s.Set(fault.Fault{Kind: fault.SlowDatabase, Query: "insert_order", Delay: fault.Duration(time.Second)}))
	f, hit := s.Hit(fault.SlowDatabase, "insert_order")
	require.True(t, hit)
	require.Equal(t, fault.Duration(time.Second), f.Delay)
	_, hit = s.Hit(fault.SlowDatabase, "select_product")
	require.False(t, hit, "another statement")

	require.NoError(t, s.Set(fault.Fault{Kind: fault.ErrorBurst, Version: "1.0.0"}))
	_, hit = s.Hit(fault.ErrorBurst, "")
	require.False(t, hit, "another version")
	require.NoError(t, s.Set(fault.Fault{Kind: fault.ErrorBurst, Version: "1.1.0", Ratio: 0.3}))
	hits := 0
	for range 10_000 {
		if _, hit := s.Hit(fault.ErrorBurst, ""); hit {
			hits++
		}
	}
	require.InDelta(t, 3000, hits, 200)
}

func TestSize(t *testing.T) {
	for in, want := range map[string]fault.Size{
		`0`: 0, `8388608`: 8 << 20, `"8388608"`: 8 << 20, `"8192KiB"`: 8 << 20, `"8MiB"`: 8 << 20, `"1 GiB"`: 1 << 30,
	} {
		var got fault.Size
		require.NoError(t, json.Unmarshal([]byte(in), &got), in)
		require.Equal(t, want, got, in)
	}
	for _, in := range []string{`"8MB"`, `"MiB"`, `""`, `1.5`, `"9223372036854775807GiB"`, `"99999999999999999999"`, `{}`} {
		var got fault.Size
		require.Error(t, json.Unmarshal([]byte(in), &got), in)
	}
}
