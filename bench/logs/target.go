package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/braidobs/braid/bench/harness"
)

// The names of the servers that are compared.
const (
	braid        = "braid"
	loki         = "loki"
	victoriaLogs = "victorialogs"
)

// target is a running server.
type target struct {
	name string
	dir  string
	s    *harness.Server
	http *http.Client
}

const lokiConfig = `auth_enabled: false
server: {http_listen_address: 127.0.0.1, http_listen_port: %[1]s, grpc_listen_address: 127.0.0.1, grpc_listen_port: 0, log_level: error, grpc_server_max_recv_msg_size: 104857600, grpc_server_max_send_msg_size: 104857600}
frontend: {address: 127.0.0.1}
memberlist: {bind_addr: ["127.0.0.1"], bind_port: 0}
common:
  instance_addr: 127.0.0.1
  path_prefix: %[2]s
  replication_factor: 1
  ring: {instance_addr: 127.0.0.1, kvstore: {store: inmemory}}
  storage: {filesystem: {chunks_directory: %[2]s/chunks, rules_directory: %[2]s/rules}}
storage_config: {filesystem: {directory: %[2]s/chunks}, object_store: {filesystem: {dir: %[2]s/chunks}}}
schema_config:
  configs: [{from: "2020-01-01", store: tsdb, object_store: filesystem, schema: v13, index: {prefix: index_, period: 24h}}]
limits_config:
  ingestion_rate_mb: 1000
  ingestion_burst_size_mb: 1000
  per_stream_rate_limit: 500MB
  per_stream_rate_limit_burst: 500MB
  max_global_streams_per_user: 100000
  allow_structured_metadata: true
  reject_old_samples: false
  max_query_series: 100000
  max_query_length: 0
  query_timeout: 5m
  volume_enabled: true
  discover_service_name: []
  discover_log_levels: false
ingester: {chunk_idle_period: 10s, chunk_retain_period: 0s, wal: {replay_memory_ceiling: 1GB}}
analytics: {reporting_enabled: false}
`

// start starts a server on a free port of loopback with its data in dir.
func start(ctx context.Context, name, binary, dir, config string) (*target, error) {
	t := &target{name: name, dir: dir, http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}}}
	var err error
	switch name {
	case braid:
		t.s, err = harness.Start(ctx, harness.Options{Binary: binary, Data: dir, Config: config})
	case loki:
		file := filepath.Join(dir, "loki.yaml")
		t.s, err = harness.StartProgram(ctx, harness.ProgramOptions{Binary: binary, Dir: dir, Ready: "/ready", Args: func(addr string) []string {
			u, _ := url.Parse("http://" + addr)
			_ = os.WriteFile(file, fmt.Appendf(nil, lokiConfig, u.Port(), filepath.Join(dir, "data")), 0o600) // a start without it fails
			return []string{"-config.file=" + file}
		}})
	case victoriaLogs:
		t.s, err = harness.StartProgram(ctx, harness.ProgramOptions{Binary: binary, Dir: dir, Ready: "/health", Args: func(addr string) []string {
			return []string{"-storageDataPath=" + filepath.Join(dir, "data"), "-httpListenAddr=" + addr, "-retentionPeriod=30d", "-loggerLevel=WARN"}
		}})
	}
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return t, nil
}

// pushURL is where lines are sent in Loki's format. VictoriaLogs takes the fields of JSON lines apart, as it does by
// default.
func (t *target) pushURL() string {
	if t.name == victoriaLogs {
		return t.url("/insert/loki/api/v1/push")
	}
	return t.url("/loki/api/v1/push")
}

// url returns the address of a path.
func (t *target) url(path string) string { return "http://" + t.s.HTTP + path }

// get returns the body of an answer of 200.
func (t *target) get(ctx context.Context, path string, q url.Values) ([]byte, error) {
	if len(q) > 0 {
		path += "?" + q.Encode()
	}
	return harness.Fetch(ctx, t.http, http.MethodGet, t.url(path))
}

// settle waits until the server has done what it does after writes: until what it held in memory is written and it
// uses less than 2 % of a core for three seconds.
func (t *target) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	switch t.name {
	case braid:
		if err := t.s.Flushed(ctx, "logs"); err != nil {
			return err
		}
	case loki:
		if _, err := harness.Fetch(ctx, t.http, http.MethodPost, t.url("/flush")); err != nil {
			return err
		}
		if err := harness.Sleep(ctx, 15*time.Second); err != nil {
			return err
		}
	case victoriaLogs:
		if _, err := t.get(ctx, "/internal/force_flush", nil); err != nil {
			return err
		}
		if err := harness.Sleep(ctx, 10*time.Second); err != nil {
			return err
		}
	}
	idle := 20 * time.Millisecond
	if t.name == loki { // which is never quite calm
		idle = 150 * time.Millisecond
	}
	return t.s.Calm(ctx, idle)
}

// disk returns what the server's data takes. Logs that only a restart needs are left out: the one of Braid is empty by
// then, the one of Loki is not deleted at once.
func (t *target) disk(ctx context.Context) (int64, error) {
	if t.name == braid {
		n, err := t.s.Metric(ctx, "braid_storage_part_bytes", `signal="logs"`)
		return int64(n), err
	}
	return diskOf(filepath.Join(t.dir, "data"), "wal")
}

// diskOf returns the size of the files below dir, without the folder except.
func diskOf(dir, except string) (n int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() {
			if e.Name() == except {
				return filepath.SkipDir
			}
			return nil
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		n += info.Size()
		return nil
	})
	return n, err
}
