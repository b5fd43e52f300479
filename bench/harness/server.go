// Package harness runs the real binary as a process of its own, for tests and benchmarks that look at it from
// outside: it starts, kills and measures it, sends it numbered records over OTLP, and reads them back over HTTP.
package harness

import (
	"bytes"
	"cmp"
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
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Build compiles the server into dir and returns the path of the binary.
func Build(ctx context.Context, dir string) (string, error) {
	return BuildPackage(ctx, dir, "cmd/braid")
}

// BuildPackage compiles a main package of this module, statically, into dir and returns the path of the binary.
func BuildPackage(ctx context.Context, dir, pkg string) (string, error) {
	bin := filepath.Join(dir, filepath.Base(pkg))
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", bin, "github.com/braidobs/braid/"+pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", pkg, err, out)
	}
	return bin, nil
}

// Options say how to start a server.
type Options struct {
	Binary string
	Data   string   // folder
	Config string   // YAML beside the addresses and the folder, which are set here
	Server string   // more lines of section server
	Env    []string // in addition to the environment
	// Like is a server whose addresses the new one takes, for a restart that its clients do not notice; nil for free
	// ones.
	Like *Server
}

// AgentOptions say how to start a node agent.
type AgentOptions struct {
	Binary  string
	Dir     string   // for its configuration, state and log
	Backend string   // URL of OTLP/HTTP
	Config  string   // YAML beside state, server.http and backend.endpoint, which are set here; sections logs, scrape, ...
	Server  string   // more lines of section server
	Env     []string // in addition to the environment
}

// ProgramOptions say how to start a server that is not ours.
type ProgramOptions struct {
	Binary string
	Dir    string                     // for its log
	Args   func(addr string) []string // the arguments that make it listen at host:port
	Ready  string                     // the path that answers when it is ready; /-/ready when empty
}

// Server is a running server.
type Server struct {
	HTTP, OTLPHTTP, OTLPGRPC string // host:port
	Startup                  time.Duration

	ready  string
	dir    string // where the process runs; that of this one when empty
	cmd    *exec.Cmd
	log    string
	died   chan struct{}
	client *http.Client
}

// Start starts a server on free ports of loopback and waits until it is ready.
func Start(ctx context.Context, o Options) (*Server, error) {
	s := &Server{died: make(chan struct{}), client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}}
	if o.Like != nil {
		s.HTTP, s.OTLPHTTP, s.OTLPGRPC = o.Like.HTTP, o.Like.OTLPHTTP, o.Like.OTLPGRPC
	} else if err := freePorts(ctx, &s.HTTP, &s.OTLPHTTP, &s.OTLPGRPC); err != nil {
		return nil, err
	}
	file := filepath.Join(o.Data, "braid.yaml")
	config := fmt.Sprintf("data: %q\nserver:\n  http: %s\n  otlp_http: %s\n  otlp_grpc: %s\n%s%s", filepath.Join(o.Data, "store"), s.HTTP, s.OTLPHTTP, s.OTLPGRPC, o.Server, o.Config)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	if err := s.run(ctx, o.Binary, []string{"-config", file}, filepath.Join(o.Data, "braid.log"), o.Env); err != nil {
		return nil, err
	}
	return s, nil
}

// StartAgent starts a node agent on a free port of loopback and waits until it is ready. Of the server's addresses it
// has HTTP.
func StartAgent(ctx context.Context, o AgentOptions) (*Server, error) {
	s := &Server{died: make(chan struct{}), client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 4}}}
	if err := freePorts(ctx, &s.HTTP); err != nil {
		return nil, err
	}
	file := filepath.Join(o.Dir, "agent.yaml")
	config := fmt.Sprintf("state: %q\nbackend:\n  endpoint: %s\nserver:\n  http: %s\n%s%s", filepath.Join(o.Dir, "state"), o.Backend, s.HTTP, o.Server, o.Config)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	if err := s.run(ctx, o.Binary, []string{"-config", file}, filepath.Join(o.Dir, "agent.log"), o.Env); err != nil {
		return nil, err
	}
	return s, nil
}

// StartProgram starts a server that is not ours, on a free port of loopback, and waits until it is ready. Of the
// server's addresses it has HTTP.
func StartProgram(ctx context.Context, o ProgramOptions) (*Server, error) {
	s := &Server{ready: o.Ready, dir: o.Dir, died: make(chan struct{}), client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 4}}}
	if err := freePorts(ctx, &s.HTTP); err != nil {
		return nil, err
	}
	if err := s.run(ctx, o.Binary, o.Args(s.HTTP), filepath.Join(o.Dir, "program.log"), nil); err != nil {
		return nil, err
	}
	return s, nil
}

// freePorts sets addresses of loopback that nobody listens at.
func freePorts(ctx context.Context, addrs ...*string) error {
	for _, addr := range addrs {
		var lc net.ListenConfig
		ln, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		*addr = ln.Addr().String()
		if err := ln.Close(); err != nil {
			return err
		}
	}
	return nil
}

// run starts the process and waits until it is ready.
func (s *Server) run(ctx context.Context, binary string, args []string, logFile string, env []string) error {
	s.log = logFile
	log, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	s.cmd = exec.CommandContext(context.WithoutCancel(ctx), binary, args...)
	s.cmd.Dir = s.dir
	s.cmd.Stdout, s.cmd.Stderr, s.cmd.Env = log, log, append(os.Environ(), env...)
	began := time.Now()
	if err := s.cmd.Start(); err != nil {
		return errors.Join(err, log.Close())
	}
	go func() {
		_ = s.cmd.Wait() // being killed is no error here
		_ = log.Close()
		close(s.died)
	}()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if code, _, err := s.get(ctx, cmp.Or(s.ready, "/-/ready")); err == nil && code == http.StatusOK {
			s.Startup = time.Since(began)
			return nil
		}
		select {
		case <-tick.C:
		case <-s.died:
			return fmt.Errorf("the process ended while it started:\n%s", s.Log())
		case <-ctx.Done():
			s.Kill()
			return fmt.Errorf("the process was not ready in time: %w\n%s", ctx.Err(), s.Log())
		}
	}
}

// Log returns the end of what the server logged.
func (s *Server) Log() string {
	b, err := os.ReadFile(s.log)
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-8000):])
}

// PID returns the process.
func (s *Server) PID() int { return s.cmd.Process.Pid }

// Died is closed when the process has ended.
func (s *Server) Died() <-chan struct{} { return s.died }

// Kill ends the process as kill -9 does and waits until it is gone.
func (s *Server) Kill() {
	_ = s.cmd.Process.Kill() // it may be gone already
	<-s.died
	s.client.CloseIdleConnections()
}

// Stop asks the process to end and waits for that.
func (s *Server) Stop(ctx context.Context) error {
	if err := s.cmd.Process.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-s.died:
	case <-ctx.Done():
		s.Kill()
		return fmt.Errorf("the server did not stop in time: %w", ctx.Err())
	}
	s.client.CloseIdleConnections()
	if code := s.cmd.ProcessState.ExitCode(); code != 0 {
		return fmt.Errorf("the server ended with code %d:\n%s", code, s.Log())
	}
	return nil
}

// get returns status and body of a GET.
func (s *Server) get(ctx context.Context, path string) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.HTTP+path, nil)
	if err != nil {
		return 0, nil, err
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, b, err
}

// JSON asks for path with a query and decodes the answer. A 404 leaves into as it is and returns false.
func (s *Server) JSON(ctx context.Context, path string, q url.Values, into any) (bool, error) {
	if len(q) > 0 {
		path += "?" + q.Encode()
	}
	code, b, err := s.get(ctx, path)
	if err != nil {
		return false, err
	}
	if code == http.StatusNotFound {
		return false, nil
	}
	if code != http.StatusOK {
		return false, fmt.Errorf("%s: status %d: %s", path, code, b[:min(len(b), 500)])
	}
	return true, json.Unmarshal(b, into)
}

// Post sends an OTLP request over HTTP as protobuf and returns the status, 0 when there was no answer.
func (s *Server) Post(ctx context.Context, signal string, body []byte, encoding string) (int, http.Header, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.OTLPHTTP+"/v1/"+signal, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Content-Type", "application/x-protobuf")
	if encoding != "" {
		req.Header.Set("Content-Encoding", encoding)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d: %s", resp.StatusCode, b[:min(len(b), 300)])
	} else if err == nil && len(b) > 0 {
		err = fmt.Errorf("partial success: %q", b)
	}
	return resp.StatusCode, resp.Header, err
}

// Usage is what a process has used.
type Usage struct {
	CPU     time.Duration // user and system
	RSS     int64         // bytes now
	PeakRSS int64         // bytes at most
}

var kilobytes = regexp.MustCompile(`(?m)^(VmHWM|VmRSS):\s+(\d+) kB$`)

// Usage reads /proc: Linux only.
func (s *Server) Usage() (Usage, error) {
	var u Usage
	dir := fmt.Sprintf("/proc/%d/", s.PID())
	b, err := os.ReadFile(dir + "status")
	if err != nil {
		return u, err
	}
	for _, m := range kilobytes.FindAllSubmatch(b, -1) {
		n, _ := strconv.ParseInt(string(m[2]), 10, 64)
		if string(m[1]) == "VmHWM" {
			u.PeakRSS = n << 10
		} else {
			u.RSS = n << 10
		}
	}
	if b, err = os.ReadFile(dir + "stat"); err != nil {
		return u, err
	}
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(f) < 13 {
		return u, errors.New("stat of the process is too short")
	}
	user, _ := strconv.ParseInt(f[11], 10, 64)
	system, _ := strconv.ParseInt(f[12], 10, 64)
	u.CPU = time.Duration(user+system) * 10 * time.Millisecond // clock ticks are 1/100 s on Linux
	return u, nil
}

// Metric returns the sum of the own metrics with a name that match all the given label texts (`signal="logs"`).
func (s *Server) Metric(ctx context.Context, name string, labels ...string) (float64, error) {
	code, b, err := s.get(ctx, "/metrics")
	if err != nil || code != http.StatusOK {
		return 0, fmt.Errorf("own metrics: status %d: %w", code, err)
	}
	sum := 0.0
next:
	for line := range strings.SplitSeq(string(b), "\n") {
		rest, ok := strings.CutPrefix(line, name)
		if !ok || rest == "" || rest[0] != '{' && rest[0] != ' ' {
			continue
		}
		for _, l := range labels {
			if !strings.Contains(rest, l) {
				continue next
			}
		}
		x, err := strconv.ParseFloat(rest[strings.LastIndexByte(rest, ' ')+1:], 64)
		if err != nil {
			return 0, fmt.Errorf("own metrics: %q: %w", line, err)
		}
		sum += x
	}
	return sum, nil
}

// DiskBytes returns the size of all files below the store's folder.
func DiskBytes(data string) (total int64, err error) {
	err = filepath.WalkDir(filepath.Join(data, "store"), func(_ string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			total += info.Size()
		}
		return nil
	})
	return total, err
}
