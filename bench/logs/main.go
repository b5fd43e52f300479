// Command logs measures what logs cost: it pushes the lines of a Kubernetes cluster, asks what people ask of logs, and
// reads the CPU, memory and disk of the server from outside. Where the paths of a Loki and of a VictoriaLogs are given,
// they get the same load and the same questions.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"time"

	"github.com/braidobs/braid/bench/harness"
)

func main() { os.Exit(harness.Main("logs", run)) }

// options are the flags.
type options struct {
	binaries map[string]string
	config   string // of braid
	load     load
	reads    bool
	dir      string
	keep     bool
}

func run(ctx context.Context, args []string, out io.Writer) error {
	o := options{binaries: make(map[string]string)}
	flags := flag.NewFlagSet("logs", flag.ContinueOnError)
	own := flags.String("braid", os.Getenv("BRAID"), "the `path` of a braid; built from this tree when empty")
	lk := flags.String("loki", os.Getenv("LOKI"), "the `path` of a loki; none when empty")
	vl := flags.String("victorialogs", os.Getenv("VICTORIALOGS"), "the `path` of a victoria-logs; none when empty")
	extra := flags.String("lines", os.Getenv("LINES_DIR"), "a `folder` with .log files of real systems; made-up lines when empty")
	flags.IntVar(&o.load.lines, "n", 1_000_000, "lines")
	flags.DurationVar(&o.load.duration, "duration", 2*time.Hour, "how much time the lines span")
	flags.IntVar(&o.load.request, "request", 512<<10, "bytes of text of a request")
	flags.IntVar(&o.load.senders, "senders", 4, "requests under way at once")
	flags.Uint64Var(&o.load.seed, "seed", 1, "another one makes other lines")
	flags.BoolVar(&o.reads, "queries", true, "measure queries")
	full := flags.Bool("full", false, "6 million lines")
	flags.StringVar(&o.config, "config", "storage:\n  flush_interval: 1m\n", "more configuration of braid, as `YAML`")
	flags.StringVar(&o.dir, "dir", "", "the `folder` for data; a temporary one when empty")
	flags.BoolVar(&o.keep, "wait", false, "leave braid running after the queries, until interrupted")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *full {
		o.load.lines = 6_000_000
	}
	if o.load.lines < streams || o.load.senders < 1 || o.load.request < 1 || o.load.duration < time.Minute {
		return fmt.Errorf("the load is too small: at least %d lines, one sender, a minute", streams)
	}
	o.load.end = time.Now().Truncate(time.Second)
	dir, err := os.MkdirTemp(o.dir, "braid-bench-logs-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	o.dir = dir
	if *extra != "" {
		if o.load.extra, err = readExtra(*extra); err != nil {
			return fmt.Errorf("lines: %w", err)
		}
	}
	o.binaries = map[string]string{braid: *own, loki: *lk, victoriaLogs: *vl}
	if *own == "" {
		if o.binaries[braid], err = harness.Build(ctx, dir); err != nil {
			return err
		}
	}
	return o.compare(ctx, out)
}

// figures are what one server took.
type figures struct {
	acked, cpu time.Duration // until the last answer, and until it was calm again
	wall       time.Duration
	rss        int64
	disk       int64
	sent       sent
	queries    []harness.Cost
	single     latencies
}

// compare runs everything and prints it.
func (o *options) compare(ctx context.Context, out io.Writer) error {
	var names []string
	results := make(map[string]figures)
	for _, n := range []string{braid, loki, victoriaLogs} {
		if o.binaries[n] == "" {
			continue
		}
		f, err := o.one(ctx, n)
		if err != nil {
			return fmt.Errorf("%s: %w", n, err)
		}
		names = append(names, n)
		results[n] = f
	}
	return o.print(out, names, results)
}

// one runs the load on one server.
func (o *options) one(ctx context.Context, name string) (f figures, err error) {
	dir, err := os.MkdirTemp(o.dir, name+"-")
	if err != nil {
		return f, err
	}
	t, err := start(ctx, name, o.binaries[name], dir, o.config)
	if err != nil {
		return f, err
	}
	defer func() { // what was written is of no use any more
		t.s.Kill()
		err = errors.Join(err, os.RemoveAll(dir))
	}()
	began := time.Now()
	if f.sent, err = o.load.send(ctx, t.http, t.pushURL()); err != nil {
		return f, fmt.Errorf("%w\n%s", err, t.s.Log())
	}
	f.wall = time.Since(began)
	u, err := t.s.Usage()
	if err != nil {
		return f, err
	}
	f.acked = u.CPU
	if err := t.settle(ctx); err != nil {
		return f, err
	}
	if u, err = t.s.Usage(); err != nil {
		return f, err
	}
	f.cpu, f.rss = u.CPU, u.PeakRSS
	if f.disk, err = t.disk(ctx); err != nil {
		return f, err
	}
	if o.reads {
		for _, q := range queries() {
			f.queries = append(f.queries, q.measure(ctx, t, &o.load, f.sent))
		}
	}
	if f.single, err = t.probe(ctx); err != nil {
		return f, err
	}
	if o.keep && name == braid {
		fmt.Fprintf(os.Stderr, "braid answers at http://%s, process %d, trace %s, end %d\n", t.s.HTTP, t.s.PID(), f.sent.traceID, o.load.end.UnixNano())
		<-ctx.Done()
	}
	return f, nil
}

// print prints the table.
func (o *options) print(out io.Writer, names []string, results map[string]figures) error {
	s := results[braid].sent
	fmt.Fprintf(out, "\n%s: %d MB\n\n", o.load.name(), s.bytes/1e6)
	w := harness.NewTable(out, names, results)
	gigabytes := float64(s.bytes) / 1e9
	w.Row("CPU s per GB, to the last ack", "%.1f", func(f figures) float64 { return f.acked.Seconds() / gigabytes })
	w.Row("CPU s per GB, settled", "%.1f", func(f figures) float64 { return f.cpu.Seconds() / gigabytes })
	w.Row("MB/s, beside the sender", "%.1f", func(f figures) float64 { return float64(s.bytes) / 1e6 / f.wall.Seconds() })
	w.Row("peak RSS while writing, MB", "%.0f", func(f figures) float64 { return float64(f.rss) / 1e6 })
	w.Row("raw bytes per byte on disk", "%.2f", func(f figures) float64 { return float64(s.bytes) / float64(f.disk) })
	w.Row("a single line, acked, ms", "%.2f", func(f figures) float64 { return f.single.acked.Seconds() * 1e3 })
	w.Row("visible, in a new stream, ms", "%.2f", func(f figures) float64 { return f.single.visible.Seconds() * 1e3 })
	w.Row("in a tail, ms", "%.2f", func(f figures) float64 { return f.single.tailed.Seconds() * 1e3 })
	var wrong []error
	for i, q := range queries() {
		if len(results[braid].queries) == 0 {
			break
		}
		var bad error
		for _, n := range names {
			if err := results[n].queries[i].Err; err != nil {
				bad = errors.Join(bad, fmt.Errorf("%s, %s: %w", q.name, n, err))
			}
		}
		if bad != nil {
			fmt.Fprintf(w, "%s: failed\t\n", q.name)
			wrong = append(wrong, bad)
			continue
		}
		w.Costs(q.name, func(f figures) harness.Cost { return f.queries[i] })
		if q.logql == "" {
			continue
		}
		points, total, err := sum(results[braid].queries[i].Answer)
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "points, sum\t%d, %.6g\t", points, total)
		if f, ok := results[loki]; ok {
			p, v, err := sum(f.queries[i].Answer)
			if err != nil {
				return err
			}
			fmt.Fprintf(w, "%d, %.6g\t", p, v)
			if p != points || math.Abs(v-total) > 1e-5*math.Abs(v) {
				wrong = append(wrong, fmt.Errorf("%s: %d points with the sum %g, loki has %d with %g", q.name, points, total, p, v))
			}
		}
		fmt.Fprintln(w)
	}
	return errors.Join(append(wrong, w.Flush())...)
}
