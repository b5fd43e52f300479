package logql_test

import (
	"context"
	"iter"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/query/logql"
	"github.com/braidobs/braid/query/logql/pipeline"
	"github.com/braidobs/braid/query/logql/syntax"
	"github.com/braidobs/braid/storage"
)

// endless is a view that never runs out of blocks, and lets predicates decide about rows.
type endless struct {
	storage.View
	block *storage.LogBlock
	gave  func() // is called with each block
}

func (v *endless) ReadStats() storage.ReadStats { return storage.ReadStats{} }

func (v *endless) Streams(context.Context, storage.LogQuery) ([]telemetry.LabelSet, error) {
	return v.block.Streams, nil
}

func (v *endless) Logs(_ context.Context, q storage.LogQuery) iter.Seq2[*storage.LogBlock, error] {
	return func(yield func(*storage.LogBlock, error) bool) {
		for {
			v.gave()
			for i := range v.block.Len() {
				v.block.Match(i, q.Where)
			}
			if !yield(v.block, nil) {
				return
			}
		}
	}
}

func newEndless(rows int, line string) *endless {
	v := &endless{block: &storage.LogBlock{}}
	stream := telemetry.LabelSet(pipeline.EncodeLabels(nil, []logql.Label{{Name: "app", Value: "a"}}))
	for i := range rows {
		r := telemetry.LogRecord{Time: base.UnixNano() + int64(i), Body: telemetry.String(strings.ReplaceAll(line, "$", strconv.Itoa(i)))}
		v.block.Append(stream, nil, &r, storage.LogAll)
	}
	return v
}

// stopWithin is how soon a query must end: 100 ms, and as much again three times for the race detector on a busy machine.
const stopWithin = 400 * time.Millisecond

// A query ends soon after its context, wherever it is.
func TestStops(t *testing.T) {
	long := strings.Repeat("a", 1<<20)
	for name, tt := range map[string]struct {
		query, line string
		rows        int
	}{
		"slow expression in the store":    {`{app="a"} |~ "(x+x+)+y|(a|b|c){100}d$"`, long, 4},
		"slow expression in a stage":      {`{app="a"} | decolorize |~ "(x+x+)+y|(a|b|c){100}d$"`, long, 4},
		"slow parser":                     {`{app="a"} | regexp "(?P<x>(a|b|c){100}d$)"`, long, 4},
		"many rows":                       {`{app="a"} | json | logfmt | x="y"`, `{"a":"$","b":{"c":1}} d=$`, 8192},
		"templates":                       {"{app=\"a\"} | line_format `{{range $i := 40000}}{{end}}`", "x", 8192},
		"one template":                    {"{app=\"a\"} | line_format `{{range $i := 40}}{{regexReplaceAll \"a\" __line__ \"b\" | trunc 3}}{{end}}`", long[:1<<13], 8192},
		"numbers of a slow expression":    {`count_over_time({app="a"} |~ "(a|b|c){100}d$" [1h])`, long, 4},
		"numbers of many rows":            {`sum by (c) (count_over_time({app="a"} | json [1h]))`, `{"a":"$","b":{"c":1}}`, 8192},
		"numbers of a slow parser":        {`sum by (x) (count_over_time({app="a"} | regexp "(?P<x>(a|b|c){100}d$)" [1h]))`, long, 4},
		"numbers by metadata":             {`sum by (detected_level) (count_over_time({app="a"}[1h]))`, "x", 8192},
		"numbers of templates":            {"sum by (z) (count_over_time({app=\"a\"} | label_format z=`{{range $i := 40000}}{{end}}` [1h]))", "x", 8192},
		"values for a quantile":           {`quantile_over_time(0.5, {app="a"} | logfmt | unwrap v [1h]) by (app)`, "v=$", 8192},
		"matching one label with a regex": {`sum by (c) (count_over_time({app="a"} | logfmt | v=~".*(a|b|c){100}d.*" [1h]))`, "v=" + long[:1<<17], 64},
	} {
		t.Run(name, func(t *testing.T) {
			e, err := logql.Parse(tt.query)
			require.NoError(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			v := newEndless(tt.rows, tt.line)
			begun := make(chan struct{}, 1)
			v.gave = func() {
				select {
				case begun <- struct{}{}:
				default:
				}
			}
			done := make(chan error)
			go func() {
				eng := logql.Engine{}
				if e.Kind() == syntax.Lines {
					_, err := eng.Lines(ctx, v, logql.LinesQuery{Tenant: telemetry.DefaultTenant, Expr: e, End: base.Add(time.Hour).UnixNano()})
					done <- err
					return
				}
				_, err := eng.Metric(ctx, v, logql.MetricQuery{Tenant: telemetry.DefaultTenant, Expr: e, End: base.Add(time.Hour).UnixNano()})
				done <- err
			}()
			<-begun
			select {
			case err := <-done:
				require.NoError(t, err, "it ended before")
			case <-time.After(30 * time.Millisecond):
			}
			at := time.Now()
			cancel()
			err = <-done
			took := time.Since(at)
			t.Log(took)
			require.ErrorIs(t, err, context.Canceled)
			require.Less(t, took, stopWithin)
		})
	}
}
