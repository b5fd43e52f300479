package harness

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"os/signal"
	"text/tabwriter"
	"time"
)

// Main runs the program of a benchmark until it ends or is interrupted, and returns its exit code.
func Main(name string, run func(ctx context.Context, args []string, out io.Writer) error) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		return 1
	}
	return 0
}

// Peer is a program that a benchmark runs, and the variable of the environment that names its path.
type Peer struct{ Name, Variable string }

// Course is what the benchmarks of a signal have in common: the programs, one after the other, and their data.
type Course struct {
	Config string // of the first program, which is braid: more of it, as YAML
	Reads  bool   // ask questions
	Keep   bool   // leave braid running

	name  string
	peers []Peer
	paths []*string
	dir   string
}

// NewCourse adds the flags of a course to flags: a path for each program, the first of which is built from this tree when it is
// empty; the others are left out.
func NewCourse(name string, flags *flag.FlagSet, peers ...Peer) *Course {
	c := &Course{name: name, peers: peers}
	for i, p := range peers {
		without := "none when empty"
		if i == 0 {
			without = "built from this tree when empty"
		}
		c.paths = append(c.paths, flags.String(p.Name, os.Getenv(p.Variable), "the `path` of a "+p.Name+"; "+without))
	}
	flags.BoolVar(&c.Reads, "queries", true, "measure queries")
	flags.StringVar(&c.Config, "config", "storage:\n  flush_interval: 1m\n", "more configuration of braid, as `YAML`")
	flags.StringVar(&c.dir, "dir", "", "the `folder` for data; a temporary one when empty")
	flags.BoolVar(&c.Keep, "wait", false, "leave braid running after the queries, until interrupted")
	return c
}

// Run calls one with each program that there is and a folder of its own, which is gone afterwards, and returns their names.
func (c *Course) Run(ctx context.Context, one func(ctx context.Context, name, binary, dir string) error) (names []string, err error) {
	dir, err := os.MkdirTemp(c.dir, "braid-bench-"+c.name+"-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	for i, p := range c.peers {
		binary := *c.paths[i]
		if binary == "" && i == 0 {
			if binary, err = Build(ctx, dir); err != nil {
				return nil, err
			}
		}
		if binary == "" {
			continue
		}
		own, err := os.MkdirTemp(dir, p.Name+"-")
		if err != nil {
			return nil, err
		}
		if err := errors.Join(one(ctx, p.Name, binary, own), os.RemoveAll(own)); err != nil {
			return nil, fmt.Errorf("%s: %w", p.Name, err)
		}
		names = append(names, p.Name)
	}
	return names, nil
}

// Written is what it took a server to take a load.
type Written struct {
	Acked, CPU time.Duration // CPU until the last answer, and until it was calm again
	Wall       time.Duration // until the last answer
	PeakRSS    int64         // bytes
	Disk       int64         // bytes
}

// Write sends a load and waits until the server has settled it.
func (s *Server) Write(ctx context.Context, send func() error, settle func(context.Context) error, disk func(context.Context) (int64, error)) (w Written, err error) {
	began := time.Now()
	if err := send(); err != nil {
		return w, fmt.Errorf("%w\n%s", err, s.Log())
	}
	w.Wall = time.Since(began)
	u, err := s.Usage()
	if err != nil {
		return w, err
	}
	w.Acked = u.CPU
	if err := settle(ctx); err != nil {
		return w, err
	}
	if u, err = s.Usage(); err != nil {
		return w, err
	}
	w.CPU, w.PeakRSS = u.CPU, u.PeakRSS
	w.Disk, err = disk(ctx)
	return w, err
}

// Table prints figures of servers side by side, and what the first of them has of each of the others'.
type Table[F any] struct {
	*tabwriter.Writer
	names []string
	of    map[string]F
}

// NewTable begins a table with a column for each name; Flush ends it.
func NewTable[F any](out io.Writer, names []string, of map[string]F) *Table[F] {
	t := &Table[F]{tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight), names, of}
	fmt.Fprint(t, "\n\t")
	for _, n := range names {
		fmt.Fprint(t, n, "\t")
	}
	for _, n := range names[1:] {
		fmt.Fprint(t, names[0], "/", n, "\t")
	}
	fmt.Fprintln(t)
	return t
}

// Row prints one figure of each server. Zero stands for what cannot be measured.
func (t *Table[F]) Row(label, format string, value func(f F) float64) {
	cell := func(format string, v float64) {
		if v == 0 || math.IsInf(v, 0) || math.IsNaN(v) {
			fmt.Fprint(t, "-\t")
			return
		}
		fmt.Fprintf(t, format+"\t", v)
	}
	fmt.Fprint(t, label, "\t")
	for _, n := range t.names {
		cell(format, value(t.of[n]))
	}
	for _, n := range t.names[1:] {
		cell("%.3f", value(t.of[t.names[0]])/value(t.of[n]))
	}
	fmt.Fprintln(t)
}

// Costs prints what a question cost each server; one that has no answer was not asked.
func (t *Table[F]) Costs(question string, cost func(f F) Cost) {
	row := func(label string, value func(c Cost) float64) {
		t.Row(label, "%.2f", func(f F) float64 {
			if c := cost(f); c.Answer != nil {
				return value(c)
			}
			return 0
		})
	}
	row(question+", CPU ms", func(c Cost) float64 { return c.CPU.Seconds() * 1e3 })
	row("latency ms", func(c Cost) float64 { return c.Latency.Seconds() * 1e3 })
	row("nine of ten, ms", func(c Cost) float64 { return c.Tail.Seconds() * 1e3 })
}
