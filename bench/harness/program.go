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
