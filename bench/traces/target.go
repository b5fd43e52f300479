package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/braidobs/braid/bench/harness"
)

// The names of the servers that are compared.
const (
	braid          = "braid"
	tempo          = "tempo"
	jaeger         = "jaeger"
	victoriaTraces = "victoriatraces"
)

// target is a running server.
type target struct {
	name   string
	dir    string
	prefix string // of the paths of Jaeger's API
	otlp   string // URL for OTLP/HTTP
	s      *harness.Server
	http   *http.Client
}

const tempoConfig = `target: all
server: {http_listen_address: 127.0.0.1, http_listen_port: %[1]s, grpc_listen_address: 127.0.0.1, grpc_listen_port: %[3]s, log_level: error}
memberlist: {bind_addr: ["127.0.0.1"], bind_port: %[4]s}
distributor: {receivers: {otlp: {protocols: {http: {endpoint: "127.0.0.1:%[5]s", max_request_body_size: 67108864}}}}}
storage: {trace: {backend: local, wal: {path: %[2]s/wal}, local: {path: %[2]s/blocks}}}
live_store: {wal: {path: %[2]s/live}, shutdown_marker_dir: %[2]s/marker}
block_builder: {wal: {path: %[2]s/builder}}
backend_scheduler: {local_work_path: %[2]s}
overrides: {defaults: {ingestion: {rate_limit_bytes: 1000000000, burst_size_bytes: 1000000000, max_traces_per_user: 0}, global: {max_bytes_per_trace: 0}}}
usage_report: {reporting_enabled: false}
`

const jaegerConfig = `service:
  extensions: [jaeger_storage, jaeger_query]
  pipelines: {traces: {receivers: [otlp], exporters: [jaeger_storage_exporter]}}
  telemetry: {metrics: {level: none}, logs: {level: error}}
extensions:
  jaeger_query:
    storage: {traces: store}
    http: {endpoint: "127.0.0.1:%[1]s"}
    grpc: {endpoint: "127.0.0.1:%[3]s"}
  jaeger_storage: {backends: {store: {badger: {directories: {keys: %[2]s, values: %[2]s}, ephemeral: false, ttl: {spans: 48h}}}}}
receivers: {otlp: {protocols: {http: {endpoint: "127.0.0.1:%[5]s", max_request_body_size: 67108864}}}}
exporters: {jaeger_storage_exporter: {trace_storage: store}}
`

// start starts a server on a free port of loopback with its data in dir.
func start(ctx context.Context, name, binary, dir, config string) (*target, error) {
	t := &target{name: name, dir: dir, http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}}}
	var err error
	switch name {
	case braid:
		t.s, err = harness.Start(ctx, harness.Options{Binary: binary, Data: dir, Config: config})
		if err == nil {
			t.otlp = "http://" + t.s.OTLPHTTP + "/v1/traces"
		}
	case victoriaTraces:
		t.prefix = "/select/jaeger"
		t.s, err = harness.StartProgram(ctx, harness.ProgramOptions{Binary: binary, Dir: dir, Ready: "/health", Args: func(addr string) []string {
			t.otlp = "http://" + addr + "/insert/opentelemetry/v1/traces"
			return []string{"-storageDataPath=" + filepath.Join(dir, "data"), "-httpListenAddr=" + addr, "-retentionPeriod=30d", "-loggerLevel=WARN"}
		}})
	default:
		text, ready := tempoConfig, "/ready"
		if name == jaeger {
			text, ready = jaegerConfig, "/api/v3/services"
		}
		var free [3]string
		if err := freePorts(ctx, free[:]); err != nil {
			return nil, err
		}
		t.otlp = "http://127.0.0.1:" + free[2] + "/v1/traces"
		file := filepath.Join(dir, name+".yaml")
		t.s, err = harness.StartProgram(ctx, harness.ProgramOptions{Binary: binary, Dir: dir, Ready: ready, Args: func(addr string) []string {
			_, port, _ := net.SplitHostPort(addr)
			_ = os.WriteFile(file, fmt.Appendf(nil, text, port, filepath.Join(dir, "data"), free[0], free[1], free[2]), 0o600) // a start without it fails
			if name == jaeger {
				return []string{"--config=" + file}
			}
			return []string{"-config.file=" + file}
		}})
	}
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return t, nil
}

func freePorts(ctx context.Context, ports []string) error {
	for i := range ports {
		var lc net.ListenConfig
		ln, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		_, ports[i], _ = net.SplitHostPort(ln.Addr().String())
		if err := ln.Close(); err != nil {
			return err
		}
	}
	return nil
}

// get returns the body of an answer; a 404 is one when that is expected.
func (t *target) get(ctx context.Context, path string, q url.Values, missing bool) ([]byte, error) {
	b, _, err := t.ask(ctx, path, q, missing)
	return b, err
}

// ask is get with the header of the answer.
func (t *target) ask(ctx context.Context, path string, q url.Values, missing bool) ([]byte, http.Header, error) {
	u := "http://" + t.s.HTTP + path
	if len(q) > 0 {
		u += "?" + q.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return nil, nil, err
	}
	resp, err := t.http.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, nil, err
	}
	if resp.StatusCode/100 == 2 || missing && resp.StatusCode == http.StatusNotFound {
		return b, resp.Header, nil
	}
	return nil, nil, fmt.Errorf("%s: status %d: %s", path, resp.StatusCode, b[:min(len(b), 300)])
}

// settle waits until the server has done what it does after writes.
func (t *target) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Minute)
	defer cancel()
	idle := 20 * time.Millisecond
	switch t.name {
	case braid:
		if err := t.s.Flushed(ctx, "traces"); err != nil {
			return err
		}
	case tempo:
		if err := harness.Sleep(ctx, 60*time.Second); err != nil { // until its blocks are cut
			return err
		}
		idle = 150 * time.Millisecond // it is never quite calm
	default:
		if err := harness.Sleep(ctx, 15*time.Second); err != nil {
			return err
		}
		idle = 200 * time.Millisecond
	}
	return t.s.Calm(ctx, idle)
}

// disk returns what the server's data takes, without the log that only a restart needs and without what Tempo keeps beside its
// blocks for recent questions.
func (t *target) disk(ctx context.Context) (n int64, err error) {
	if t.name == braid {
		x, err := t.s.Metric(ctx, "braid_storage_part_bytes", `signal="traces"`)
		return int64(x), err
	}
	err = filepath.WalkDir(filepath.Join(t.dir, "data"), func(p string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() || strings.Contains(p, "/wal/") || strings.Contains(p, "/live/") {
			return err
		}
		var st unix.Stat_t
		if unix.Stat(p, &st) == nil { // else it is gone by now
			n += st.Blocks * 512 // files may have holes
		}
		return nil
	})
	return n, err
}
