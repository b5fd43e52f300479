// Command traces measures what traces cost: it sends those of a shop of 21 services as their nodes would, asks what people
// ask of traces, and reads the CPU, memory and disk of the server from outside. Where the paths of a Tempo, a Jaeger and a
// VictoriaTraces are given, they get the same load and, as far as they can be asked, the same questions. What Braid answers is
// compared with what was sent.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/braidobs/braid/bench/harness"
)

func main() { os.Exit(harness.Main("traces", run)) }

// options are the flags.
type options struct {
	binaries map[string]string
	config   string // of braid
	load     load
	reads    bool
	checks   bool
	dir      string
	keep     bool
}

func run(ctx context.Context, args []string, out io.Writer) error {
	o := options{}
	flags := flag.NewFlagSet("traces", flag.ContinueOnError)
	own := flags.String("braid", os.Getenv("BRAID"), "the `path` of a braid; built from this tree when empty")
	tp := flags.String("tempo", os.Getenv("TEMPO"), "the `path` of a tempo; none when empty")
	jg := flags.String("jaeger", os.Getenv("JAEGER"), "the `path` of a jaeger; none when empty")
	vt := flags.String("victoriatraces", os.Getenv("VICTORIATRACES"), "the `path` of a victoria-traces; none when empty")
	flags.IntVar(&o.load.traces, "n", 22_000, "traces, of about 23 spans each")
	flags.DurationVar(&o.load.duration, "duration", time.Hour, "how much time the traces span")
	flags.IntVar(&o.load.request, "request", 1000, "spans of a request")
	flags.IntVar(&o.load.senders, "senders", 4, "requests under way at once")
	flags.Uint64Var(&o.load.seed, "seed", 1, "another one makes other traces")
	flags.BoolVar(&o.reads, "queries", true, "measure queries")
	flags.BoolVar(&o.checks, "check", true, "compare what braid answers with what was sent")
	full := flags.Bool("full", false, "2 million spans in 88,024 traces")
	flags.StringVar(&o.config, "config", "storage:\n  flush_interval: 1m\n", "more configuration of braid, as `YAML`")
	flags.StringVar(&o.dir, "dir", "", "the `folder` for data; a temporary one when empty")
	flags.BoolVar(&o.keep, "wait", false, "leave braid running after the queries, until interrupted")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *full {
		o.load.traces = 88_024
	}
	if o.load.traces < 1 || o.load.senders < 1 || o.load.request < 1 || o.load.duration < time.Minute {
		return errors.New("the load is too small: at least one trace, one sender, a minute")
	}
	o.load.end = time.Now().Truncate(time.Second)
	dir, err := os.MkdirTemp(o.dir, "braid-bench-traces-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	o.dir = dir
	o.binaries = map[string]string{braid: *own, tempo: *tp, jaeger: *jg, victoriaTraces: *vt}
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
	after      int64 // peak after the questions
	disk       int64
	sent       sent
	answers    []harness.Cost
}

// compare runs everything and prints it.
func (o *options) compare(ctx context.Context, out io.Writer) error {
	var names []string
	results := make(map[string]figures)
	for _, n := range []string{braid, tempo, jaeger, victoriaTraces} {
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
	if f.sent, err = o.load.send(ctx, t.http, t.otlp); err != nil {
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
		for _, q := range questions() {
			f.answers = append(f.answers, q.measure(ctx, t, &o.load, f.sent))
		}
	}
	if u, err = t.s.Usage(); err != nil {
		return f, err
	}
	f.after = u.PeakRSS
	if name != braid {
		return f, nil
	}
	if o.checks {
		if err := check(ctx, t, &o.load, f.sent); err != nil {
			return f, err
		}
	}
	if o.keep {
		fmt.Fprintf(os.Stderr, "braid answers at http://%s, process %d, trace %x, end %d\n", t.s.HTTP, t.s.PID(), f.sent.ids[0], o.load.end.Unix())
		<-ctx.Done()
	}
	return f, nil
}

// print prints the table.
func (o *options) print(out io.Writer, names []string, results map[string]figures) error {
	s := results[braid].sent
	fmt.Fprintf(out, "\n%s: %d spans, %d MB\n", o.load.name(), s.spans, s.bytes/1e6)
	if o.checks {
		fmt.Fprintf(out, "%d traces were read whole; spans and traces of the searches are those that were sent\n", len(s.ids))
	}
	w := harness.NewTable(out, names, results)
	million := float64(s.spans) / 1e6
	w.Row("CPU s per million spans, to the last ack", "%.1f", func(f figures) float64 { return f.acked.Seconds() / million })
	w.Row("CPU s per million spans, settled", "%.1f", func(f figures) float64 { return f.cpu.Seconds() / million })
	w.Row("spans/s, beside the sender", "%.0f", func(f figures) float64 { return float64(s.spans) / f.wall.Seconds() })
	w.Row("peak RSS while writing, MB", "%.0f", func(f figures) float64 { return float64(f.rss) / 1e6 })
	w.Row("peak RSS with the questions, MB", "%.0f", func(f figures) float64 { return float64(f.after) / 1e6 })
	w.Row("bytes on disk a span", "%.1f", func(f figures) float64 { return float64(f.disk) / float64(s.spans) })
	var wrong []error
	for i, q := range questions() {
		if len(results[braid].answers) == 0 {
			break
		}
		for _, n := range names {
			if err := results[n].answers[i].Err; err != nil {
				wrong = append(wrong, fmt.Errorf("%s, %s: %w", q.name, n, err))
			}
		}
		w.Costs(q.name, func(f figures) harness.Cost { return f.answers[i] })
		fmt.Fprint(w, "answer\t")
		for _, n := range names {
			fmt.Fprint(w, found(&q, results[n].answers[i].Answer), "\t")
		}
		fmt.Fprintln(w)
	}
	return errors.Join(append(wrong, w.Flush())...)
}
