// Package lab runs the real server for tests of the plugin and fills it, over OTLP, with the traces, logs and metrics of
// a small shop.
package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// Build compiles a package of this module into dir, as the binary name.
func Build(ctx context.Context, dir, name, pkg string) (string, error) {
	bin := filepath.Join(dir, name)
	cmd := exec.CommandContext(ctx, "go", "build", "-o", bin, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", pkg, err, out)
	}
	return bin, nil
}

// Server is a running server.
type Server struct {
	URL  string // of the queries
	otlp string
	cmd  *exec.Cmd
	log  string
	died chan struct{}
}

// Start starts the server with its data in dir and waits until it is ready.
func Start(ctx context.Context, binary, dir string) (*Server, error) {
	var addrs [3]string
	for i := range addrs {
		var lc net.ListenConfig
		ln, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		addrs[i] = ln.Addr().String()
		if err := ln.Close(); err != nil {
			return nil, err
		}
	}
	s := &Server{URL: "http://" + addrs[0], otlp: "http://" + addrs[1], log: filepath.Join(dir, "braid.log"), died: make(chan struct{})}
	config := fmt.Sprintf("data: %q\nserver:\n  http: %s\n  otlp_http: %s\n  otlp_grpc: %s\n", filepath.Join(dir, "data"), addrs[0], addrs[1], addrs[2])
	file := filepath.Join(dir, "braid.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	log, err := os.Create(s.log)
	if err != nil {
		return nil, err
	}
	s.cmd = exec.CommandContext(context.WithoutCancel(ctx), binary, "-config", file)
	s.cmd.Stdout, s.cmd.Stderr = log, log
	if err := s.cmd.Start(); err != nil {
		return nil, errors.Join(err, log.Close())
	}
	go func() {
		_ = s.cmd.Wait() // to be stopped is no error here
		_ = log.Close()
		close(s.died)
	}()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if err := s.ready(ctx); err == nil {
			return s, nil
		}
		select {
		case <-tick.C:
		case <-s.died:
			text, _ := os.ReadFile(s.log) // it is only more to read
			return nil, fmt.Errorf("the server ended while it started:\n%s", text)
		case <-ctx.Done():
			s.Stop()
			return nil, fmt.Errorf("the server was not ready in time: %w", ctx.Err())
		}
	}
}

func (s *Server) ready(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/-/ready", http.NoBody)
	if err != nil {
		return err
	}
	return do(req)
}

// Stop ends the server and waits until it is gone.
func (s *Server) Stop() {
	_ = s.cmd.Process.Kill() // it may be gone already
	<-s.died
	http.DefaultClient.CloseIdleConnections()
}

// Guard stands in front of a server and wants a token, which the server itself cannot yet.
func Guard(target, token string) (http.Handler, error) {
	u, err := url.Parse(target)
	if err != nil {
		return nil, err
	}
	proxy := httputil.NewSingleHostReverseProxy(u)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+token {
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		proxy.ServeHTTP(w, r)
	}), nil
}

// send posts OTLP as JSON. When it returns, the records can be queried.
func (s *Server) send(ctx context.Context, path string, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.otlp+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	return do(req)
}

func do(req *http.Request) error {
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s: %s", req.URL.Path, resp.Status, body)
	}
	if bytes.Contains(body, []byte("rejected")) {
		return fmt.Errorf("%s did not take everything: %s", req.URL.Path, body)
	}
	return nil
}
