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
	*harness.Course

	load   load
	checks bool
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("traces", flag.ContinueOnError)
	o := options{Course: harness.NewCourse("traces", flags,
		harness.Peer{Name: braid, Variable: "BRAID"}, harness.Peer{Name: tempo, Variable: "TEMPO"},
		harness.Peer{Name: jaeger, Variable: "JAEGER"}, harness.Peer{Name: victoriaTraces, Variable: "VICTORIATRACES"},
	)}
	flags.IntVar(&o.load.traces, "n", 22_000, "traces, of about 23 spans each")
	flags.DurationVar(&o.load.duration, "duration", time.Hour, "how much time the traces span")
	flags.IntVar(&o.load.request, "request", 1000, "spans of a request")
	flags.IntVar(&o.load.senders, "senders", 4, "requests under way at once")
	flags.Uint64Var(&o.load.seed, "seed", 1, "another one makes other traces")
	flags.BoolVar(&o.checks, "check", true, "compare what braid answers with what was sent")
	full := flags.Bool("full", false, "2 million spans in 88,024 traces")
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

	after   int64 // peak after the questions
	sent    sent
	answers []harness.Cost
}

// one runs the load on one server.
func (o *options) one(ctx context.Context, name, binary, dir string) (f figures, err error) {
	t, err := start(ctx, name, binary, dir, o.Config)
	if err != nil {
		return f, err
	}
	defer t.s.Kill()
	f.Written, err = t.s.Write(ctx, func() error {
		f.sent, err = o.load.send(ctx, t.http, t.otlp)
		return err
	}, t.settle, t.disk)
	if err != nil {
		return f, err
	}
	if o.Reads {
		for _, q := range questions() {
			f.answers = append(f.answers, q.measure(ctx, t, &o.load, f.sent))
		}
	}
	u, err := t.s.Usage()
	if err != nil {
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
	if o.Keep {
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
	w.Row("CPU s per million spans, to the last ack", "%.1f", func(f figures) float64 { return f.Acked.Seconds() / million })
	w.Row("CPU s per million spans, settled", "%.1f", func(f figures) float64 { return f.CPU.Seconds() / million })
	w.Row("spans/s, beside the sender", "%.0f", func(f figures) float64 { return float64(s.spans) / f.Wall.Seconds() })
	w.Row("peak RSS while writing, MB", "%.0f", func(f figures) float64 { return float64(f.PeakRSS) / 1e6 })
	w.Row("peak RSS with the questions, MB", "%.0f", func(f figures) float64 { return float64(f.after) / 1e6 })
	w.Row("bytes on disk a span", "%.1f", func(f figures) float64 { return float64(f.Disk) / float64(s.spans) })
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
