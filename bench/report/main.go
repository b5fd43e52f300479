// Command report measures what one server costs: for each signal the CPU seconds per million records (user and
// system, until everything is in parts), the bytes on disk per record, and the peak of its memory. It prints a
// table and writes bench/results/.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/braidobs/braid/bench/harness"
)

// result is the cost of one signal.
type result struct {
	Signal               string  `json:"signal"`
	Records              int     `json:"records"`
	WireBytesPerRecord   float64 `json:"wireBytesPerRecord"`
	RecordsPerSecond     float64 `json:"recordsPerSecond"` // with the sender on the same machine
	CPUSecondsPerMillion float64 `json:"cpuSecondsPerMillion"`
	DiskBytesPerRecord   float64 `json:"diskBytesPerRecord"` // parts, indexes included
	PeakRSSMiB           int64   `json:"peakRSSMiB"`
}

// report is what is written to bench/results.
type report struct {
	Time    time.Time `json:"time"`
	Commit  string    `json:"commit"`
	Machine machine   `json:"machine"`
	Results []result  `json:"results"`
}

type machine struct {
	CPU       string `json:"cpu"`
	Cores     int    `json:"cores"`
	MemoryMiB int64  `json:"memoryMiB"`
	Kernel    string `json:"kernel"`
	Go        string `json:"go"`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("report", flag.ContinueOnError)
	records := flags.Int("records", 1_000_000, "records of each signal")
	batch := flags.Int("batch", 1000, "records of a request")
	senders := flags.Int("senders", 4, "requests under way at once")
	results := flags.String("results", "bench/results", "the `folder` for the results; empty writes none")
	if err := flags.Parse(args); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "braid-report-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	binary, err := harness.Build(ctx, dir)
	if err != nil {
		return err
	}
	r := report{Time: time.Now().UTC(), Commit: command(ctx, "git", "rev-parse", "--short", "HEAD"), Machine: thisMachine(ctx)}
	fmt.Fprintf(out, "%s, %d cores, %d MiB, Linux %s, %s, commit %s\n\n", r.Machine.CPU, r.Machine.Cores, r.Machine.MemoryMiB, r.Machine.Kernel, r.Machine.Go, r.Commit)
	fmt.Fprintf(out, "%-8s %10s %12s %12s %14s %12s %10s\n", "signal", "records", "wire B/rec", "records/s", "CPU s/million", "disk B/rec", "peak MiB")
	for _, s := range []string{"traces", "logs", "metrics"} {
		data := filepath.Join(dir, s)
		if err := os.Mkdir(data, 0o755); err != nil {
			return err
		}
		one, err := measure(ctx, binary, data, s, *records, *batch, *senders)
		if err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
		fmt.Fprintf(out, "%-8s %10d %12.1f %12.0f %14.2f %12.2f %10d\n", one.Signal, one.Records, one.WireBytesPerRecord, one.RecordsPerSecond, one.CPUSecondsPerMillion, one.DiskBytesPerRecord, one.PeakRSSMiB)
		r.Results = append(r.Results, one)
	}
	if *results == "" {
		return nil
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	file := filepath.Join(*results, r.Time.Format("20060102-150405")+"-"+r.Commit+".json")
	if err := os.WriteFile(file, append(b, '\n'), 0o644); err != nil {
		return err
	}
	fmt.Fprintln(out, "\nwritten to", file)
	return nil
}

// measure runs one server for one signal.
func measure(ctx context.Context, binary, data, signal string, records, batch, senders int) (result, error) {
	r := result{Signal: signal}
	s, err := harness.Start(ctx, harness.Options{Binary: binary, Data: data, Config: "storage:\n  flush_interval: 2s\n"})
	if err != nil {
		return r, err
	}
	defer s.Kill()
	g := newGen(time.Now().Add(-2 * time.Hour).Truncate(time.Second))
	build := map[string]func(int, int) ([]byte, error){"traces": g.spans, "logs": g.logs, "metrics": g.samples}[signal]
	work := make(chan []byte, senders)
	errs := make([]error, senders)
	var wg sync.WaitGroup
	began := time.Now()
	for i := range senders {
		wg.Go(func() {
			for body := range work {
				if errs[i] == nil {
					errs[i] = post(ctx, s, signal, body)
				}
			}
		})
	}
	wire := 0
	for n := range records / batch {
		body, err := build(n, batch)
		if err != nil {
			return r, err
		}
		wire += len(body)
		r.Records += batch
		work <- body
	}
	close(work)
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return r, err
	}
	r.RecordsPerSecond = float64(r.Records) / time.Since(began).Seconds()
	for { // settle: everything flushed, what is small merged
		left, err := s.Metric(ctx, "braid_storage_head_records", `signal="`+signal+`"`)
		if err != nil {
			return r, err
		}
		if left == 0 {
			break
		}
		if err := harness.Sleep(ctx, 100*time.Millisecond); err != nil {
			return r, err
		}
	}
	if err := harness.Sleep(ctx, 3*time.Second); err != nil {
		return r, err
	}
	u, err := s.Usage()
	if err != nil {
		return r, err
	}
	bytes, err := s.Metric(ctx, "braid_storage_part_bytes", `signal="`+signal+`"`)
	if err != nil {
		return r, err
	}
	stored, err := s.Metric(ctx, "braid_storage_part_records", `signal="`+signal+`"`)
	if err != nil {
		return r, err
	}
	if int(stored) < r.Records { // target_info adds a few
		return r, fmt.Errorf("%d records were acknowledged, %.0f are stored", r.Records, stored)
	}
	r.WireBytesPerRecord = float64(wire) / float64(r.Records)
	r.CPUSecondsPerMillion = u.CPU.Seconds() / float64(r.Records) * 1e6
	r.DiskBytesPerRecord = bytes / float64(r.Records)
	r.PeakRSSMiB = u.PeakRSS >> 20
	return r, s.Stop(ctx)
}

// post sends until it is accepted.
func post(ctx context.Context, s *harness.Server, signal string, body []byte) error {
	for {
		code, _, err := s.Post(ctx, signal, body, "")
		if code != http.StatusTooManyRequests && code != http.StatusServiceUnavailable {
			return err
		}
		if err := harness.Sleep(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}

func command(ctx context.Context, name string, args ...string) string {
	out, err := exec.CommandContext(ctx, name, args...).Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

func thisMachine(ctx context.Context) machine {
	m := machine{CPU: "unknown", Cores: runtime.NumCPU(), Kernel: command(ctx, "uname", "-r"), Go: runtime.Version()}
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.SplitSeq(string(b), "\n") {
			if name, ok := strings.CutPrefix(line, "model name"); ok {
				m.CPU = strings.TrimLeft(name, "\t :")
				break
			}
		}
	}
	if b, err := os.ReadFile("/proc/meminfo"); err == nil {
		var kb int64
		if _, err := fmt.Sscanf(string(b), "MemTotal: %d kB", &kb); err == nil {
			m.MemoryMiB = kb >> 10
		}
	}
	return m
}
