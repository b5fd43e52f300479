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
	*harness.Course

	load load
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("logs", flag.ContinueOnError)
	o := options{Course: harness.NewCourse("logs", flags,
		harness.Peer{Name: braid, Variable: "BRAID"}, harness.Peer{Name: loki, Variable: "LOKI"}, harness.Peer{Name: victoriaLogs, Variable: "VICTORIALOGS"},
	)}
	extra := flags.String("lines", os.Getenv("LINES_DIR"), "a `folder` with .log files of real systems; made-up lines when empty")
	flags.IntVar(&o.load.lines, "n", 1_000_000, "lines")
	flags.DurationVar(&o.load.duration, "duration", 2*time.Hour, "how much time the lines span")
	flags.IntVar(&o.load.request, "request", 512<<10, "bytes of text of a request")
	flags.IntVar(&o.load.senders, "senders", 4, "requests under way at once")
	flags.Uint64Var(&o.load.seed, "seed", 1, "another one makes other lines")
	full := flags.Bool("full", false, "6 million lines")
	err := flags.Parse(args)
	if err != nil {
		return err
	}
	if *full {
		o.load.lines = 6_000_000
	}
	if o.load.lines < streams || o.load.senders < 1 || o.load.request < 1 || o.load.duration < time.Minute {
		return fmt.Errorf("the load is too small: at least %d lines, one sender, a minute", streams)
	}
	o.load.end = time.Now().Truncate(time.Second)
	if *extra != "" {
		if o.load.extra, err = readExtra(*extra); err != nil {
			return fmt.Errorf("lines: %w", err)
		}
	}
	results := make(map[string]figures)
	names, err := o.Run(ctx, func(ctx context.Context, name, binary, dir string) (err error) {
		results[name], err = o.one(ctx, name, binary, dir)
		return err
	})
	if err != nil {
		return err
	}
	return o.print(out, names, results)
}

// figures are what one server took.
type figures struct {
	harness.Written

	sent    sent
	queries []harness.Cost
	single  latencies
}

// one runs the load on one server.
func (o *options) one(ctx context.Context, name, binary, dir string) (f figures, err error) {
	t, err := start(ctx, name, binary, dir, o.Config)
	if err != nil {
		return f, err
	}
	defer t.s.Kill()
	f.Written, err = t.s.Write(ctx, func() error {
		f.sent, err = o.load.send(ctx, t.http, t.pushURL())
		return err
	}, t.settle, t.disk)
	if err != nil {
		return f, err
	}
	if o.Reads {
		for _, q := range queries() {
			f.queries = append(f.queries, q.measure(ctx, t, &o.load, f.sent))
		}
	}
	if f.single, err = t.probe(ctx); err != nil {
		return f, err
	}
	if o.Keep && name == braid {
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
	w.Row("CPU s per GB, to the last ack", "%.1f", func(f figures) float64 { return f.Acked.Seconds() / gigabytes })
	w.Row("CPU s per GB, settled", "%.1f", func(f figures) float64 { return f.CPU.Seconds() / gigabytes })
	w.Row("MB/s, beside the sender", "%.1f", func(f figures) float64 { return float64(s.bytes) / 1e6 / f.Wall.Seconds() })
	w.Row("peak RSS while writing, MB", "%.0f", func(f figures) float64 { return float64(f.PeakRSS) / 1e6 })
	w.Row("raw bytes per byte on disk", "%.2f", func(f figures) float64 { return float64(s.bytes) / float64(f.Disk) })
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
