// Command metrics measures what metrics cost: it writes the series of a Kubernetes cluster by remote write, asks the
// queries of dashboards and alerts, and reads the CPU, memory and disk of the server from outside. Where the paths of
// a Prometheus and of a VictoriaMetrics are given, they get the same load and the same queries, and the answers are
// compared with those of Prometheus.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/braidobs/braid/bench/harness"
)

func main() { os.Exit(harness.Main("metrics", run)) }

// options are the flags.
type options struct {
	*harness.Course

	wide  load
	churn bool
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("metrics", flag.ContinueOnError)
	o := options{Course: harness.NewCourse("metrics", flags,
		harness.Peer{Name: braid, Variable: "BRAID"}, harness.Peer{Name: prometheus, Variable: "PROMETHEUS"},
		harness.Peer{Name: victoriaMetrics, Variable: "VICTORIAMETRICS"},
	)}
	flags.IntVar(&o.wide.pods, "pods", 256, "pods at a time, 133 series each")
	flags.DurationVar(&o.wide.duration, "duration", 30*time.Minute, "how much time the samples span, one every 15s")
	flags.IntVar(&o.wide.batch, "batch", 5000, "series of a request")
	flags.IntVar(&o.wide.senders, "senders", 4, "requests under way at once")
	flags.Uint64Var(&o.wide.seed, "seed", 1, "another one makes other pods")
	flags.BoolVar(&o.churn, "churn", true, "measure a run with ten generations of pods, a fifth as many at a time")
	full := flags.Bool("full", false, "768 pods over two hours: 102,144 series, 49 million samples")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *full {
		o.wide.pods, o.wide.duration = 768, 2*time.Hour
	}
	if o.wide.pods < 1 || o.wide.senders < 1 || o.wide.duration < 10*interval || o.wide.batch < seriesOfPod {
		return errors.New("the load is too small: at least one pod, one sender, 150s, and requests of a pod's series")
	}
	o.wide.generations = 1
	o.wide.end = time.Now().Truncate(interval)
	loads := []load{o.wide}
	if o.churn {
		churn := o.wide
		churn.pods, churn.generations = max(o.wide.pods/5, 1), 10
		loads = append(loads, churn)
	}
	for i, l := range loads {
		results := make(map[string]figures)
		names, err := o.Run(ctx, func(ctx context.Context, name, binary, dir string) (err error) {
			results[name], err = o.one(ctx, name, binary, dir, l, i == 0)
			return err
		})
		if err != nil {
			return err
		}
		if err := printLoad(out, names, l, results); err != nil {
			return err
		}
	}
	return nil
}

// figures are what one server took for one load.
type figures struct {
	harness.Written

	size    size
	queries []harness.Cost
}

// one runs one load on one server; questions are asked of the first.
func (o *options) one(ctx context.Context, name, binary, dir string, l load, first bool) (f figures, err error) {
	t, err := start(ctx, name, binary, dir, o.Config)
	if err != nil {
		return f, err
	}
	defer t.s.Kill()
	f.Written, err = t.s.Write(ctx, func() error { return l.send(ctx, t.http, t.url("/api/v1/write")) }, t.settle, func(ctx context.Context) (int64, error) {
		f.size, err = t.disk(ctx)
		return f.size.samples + f.size.index, err
	})
	if err != nil {
		return f, err
	}
	if o.Reads && first {
		for _, q := range queries() {
			c := harness.Cost{}
			if l.duration >= q.least {
				c = q.measure(ctx, t, l)
			}
			f.queries = append(f.queries, c)
		}
	}
	if o.Keep && first && name == braid {
		fmt.Fprintf(os.Stderr, "braid answers at http://%s, process %d, end %d\n", t.s.HTTP, t.s.PID(), l.end.Unix())
		<-ctx.Done()
	}
	return f, nil
}

// printLoad prints the table of one load.
func printLoad(out io.Writer, names []string, l load, results map[string]figures) error {
	fmt.Fprintf(out, "\n%s\n\n", l.name())
	w := harness.NewTable(out, names, results)
	samples, series := float64(l.samples()), float64(l.series())
	w.Row("CPU s per million samples", "%.2f", func(f figures) float64 { return f.CPU.Seconds() / samples * 1e6 })
	w.Row("samples/s, beside the sender", "%.0f", func(f figures) float64 { return samples / f.Wall.Seconds() })
	w.Row("bytes/sample, samples", "%.2f", func(f figures) float64 { return float64(f.size.samples) / samples })
	w.Row("bytes/series, index", "%.0f", func(f figures) float64 { return float64(f.size.index) / series })
	w.Row("bytes/sample in all", "%.2f", func(f figures) float64 { return float64(f.Disk) / samples })
	w.Row("peak RSS, MiB", "%.0f", func(f figures) float64 { return float64(f.PeakRSS >> 20) })
	w.Row("peak RSS, bytes per active series", "%.0f", func(f figures) float64 { return float64(f.PeakRSS) / float64(l.pods*seriesOfPod) })
	for i, q := range queries() {
		if len(results[braid].queries) == 0 || l.duration < q.least {
			continue
		}
		if bad := failures(names, i, results); bad != "" {
			fmt.Fprintf(w, "%s: %s\t\n", q.name, bad)
			continue
		}
		w.Costs(q.name, func(f figures) harness.Cost { return f.queries[i] })
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if !slices.Contains(names, prometheus) || len(results[braid].queries) == 0 {
		return nil
	}
	return printAnswers(out, names, l, results)
}

// failures says which servers could not answer query i.
func failures(names []string, i int, results map[string]figures) string {
	var text []string
	for _, n := range names {
		if err := results[n].queries[i].Err; err != nil {
			text = append(text, n+" failed: "+err.Error())
		}
	}
	return strings.Join(text, "; ")
}

// printAnswers compares the answers with those of Prometheus. Others than ours may differ.
func printAnswers(out io.Writer, names []string, l load, results map[string]figures) error {
	var wrong []error
	fmt.Fprintln(out, "\nanswers compared with those of Prometheus, to 1e-9:")
	for _, n := range names {
		if n == prometheus {
			continue
		}
		equal, asked := 0, 0
		for i, q := range queries() {
			if l.duration < q.least {
				continue
			}
			asked++
			want, got := results[prometheus].queries[i], results[n].queries[i]
			if err := errors.Join(want.Err, got.Err); err != nil {
				wrong = append(wrong, fmt.Errorf("%s: %w", q.name, err))
				continue
			}
			diff, err := compare(want.Answer, got.Answer)
			if err != nil {
				return err
			}
			if diff == "" {
				equal++
				continue
			}
			fmt.Fprintf(out, "  %s, %s: %s\n", n, q.name, diff)
			if n == braid {
				wrong = append(wrong, fmt.Errorf("%s: %s", q.name, diff))
			}
		}
		fmt.Fprintf(out, "  %s: %d of %d equal\n", n, equal, asked)
	}
	return errors.Join(wrong...)
}
