package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/braidobs/braid/bench/harness"
)

// The names of the servers that are compared.
const (
	braid           = "braid"
	prometheus      = "prometheus"
	victoriaMetrics = "victoriametrics"
)

// target is a running server.
type target struct {
	name string
	dir  string
	s    *harness.Server
	http *http.Client
}

// start starts a server on a free port of loopback with its data in dir.
func start(ctx context.Context, name, binary, dir, config string) (*target, error) {
	t := &target{name: name, dir: dir, http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}}}
	var err error
	switch name {
	case braid:
		t.s, err = harness.Start(ctx, harness.Options{Binary: binary, Data: dir, Config: config})
	case prometheus:
		file := filepath.Join(dir, "prometheus.yml")
		if err := os.WriteFile(file, []byte("global: {scrape_interval: 15s}\n"), 0o600); err != nil {
			return nil, err
		}
		t.s, err = harness.StartProgram(ctx, harness.ProgramOptions{Binary: binary, Dir: dir, Args: func(addr string) []string {
			return []string{
				"--config.file=" + file, "--storage.tsdb.path=" + filepath.Join(dir, "data"), "--web.listen-address=" + addr,
				"--web.enable-remote-write-receiver", "--web.enable-admin-api", "--storage.tsdb.retention.time=30d", "--log.level=warn",
			}
		}})
	case victoriaMetrics:
		t.s, err = harness.StartProgram(ctx, harness.ProgramOptions{Binary: binary, Dir: dir, Args: func(addr string) []string {
			return []string{"-storageDataPath=" + filepath.Join(dir, "data"), "-httpListenAddr=" + addr, "-retentionPeriod=30d", "-loggerLevel=WARN", "-search.latencyOffset=0s"}
		}})
	}
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return t, nil
}

// url returns the address of a path.
func (t *target) url(path string) string { return "http://" + t.s.HTTP + path }

// get returns the body of an answer of 200.
func (t *target) get(ctx context.Context, method, path string, q url.Values) ([]byte, error) {
	if len(q) > 0 {
		path += "?" + q.Encode()
	}
	return harness.Fetch(ctx, t.http, method, t.url(path))
}

// settle waits until the server has done what it does after writes: until its parts are written and it uses less than
// 2 % of a core for three seconds.
func (t *target) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	if t.name == victoriaMetrics { // it writes what it holds in memory every five seconds
		if _, err := t.get(ctx, http.MethodGet, "/internal/force_flush", nil); err != nil {
			return err
		}
		if err := harness.Sleep(ctx, 10*time.Second); err != nil {
			return err
		}
	}
	if t.name == braid {
		if err := t.s.Flushed(ctx, "metrics"); err != nil {
			return err
		}
	}
	return t.s.Calm(ctx, 20*time.Millisecond)
}

// size is what is on disk.
type size struct{ samples, index int64 }

// disk returns what the samples and the index take. The head of Prometheus is written into a block for that, as it
// would be later; Braid keeps the index inside its parts, and tells its size where it can.
func (t *target) disk(ctx context.Context) (size, error) {
	switch t.name {
	case braid:
		parts, err := t.s.Metric(ctx, "braid_storage_part_bytes", `signal="metrics"`)
		if err != nil {
			return size{}, err
		}
		index, err := t.s.Metric(ctx, "braid_storage_index_bytes", `signal="metrics"`)
		return size{int64(parts - index), int64(index)}, err
	case prometheus:
		if _, err := t.get(ctx, http.MethodPost, "/api/v1/admin/tsdb/snapshot", nil); err != nil {
			return size{}, err
		}
		return diskOf(filepath.Join(t.dir, "data", "snapshots"), "index")
	default:
		return diskOf(filepath.Join(t.dir, "data"), "indexdb")
	}
}

// diskOf returns the size of the files below dir, those that are or lie in something with the name of the index apart.
func diskOf(dir, index string) (s size, err error) {
	err = filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if slices.Contains(strings.Split(filepath.ToSlash(rel), "/"), index) {
			s.index += info.Size()
		} else {
			s.samples += info.Size()
		}
		return nil
	})
	return s, err
}
