package logql

import (
	"context"
	"fmt"
	"strings"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/query/logql/pipeline"
	"github.com/braidobs/braid/query/logql/syntax"
	"github.com/braidobs/braid/storage"
)

// LinesQuery asks for lines.
type LinesQuery struct {
	Tenant     telemetry.Tenant
	Expr       Expr  // of the kind syntax.Lines
	Start, End int64 // nanoseconds; without End
	// Newest returns the newest lines first, else the oldest.
	Newest bool
	Limit  int // 0 for all
	// After goes on behind the last line of an earlier answer to the same query; nil begins anew.
	After *Cursor
}

// Cursor is a position behind a line.
type Cursor struct {
	Time int64
	// Rows is how many of the rows of that time come before: those that the store finds for the query.
	Rows int
}

// Entry is a line with its labels. It belongs to the caller.
type Entry struct {
	Time int64
	Line string
	// Labels are all labels, by name.
	Labels telemetry.LabelSet
	// Stream, Structured and Parsed are the same labels by where they come from.
	Stream             telemetry.LabelSet
	Structured, Parsed []Label
}

// Lines is the answer to a LinesQuery.
type Lines struct {
	Entries []Entry
	// Next goes on behind the last entry; nil when there is nothing more.
	Next  *Cursor
	Stats Stats
}

const (
	firstPage = 256
	maxPage   = 32 << 10
	pageBytes = 16 << 20 // about what a page may have of lines
)

// Lines returns lines in the order of their time; of equal times in the order of the store, which stays the same.
func (e *Engine) Lines(ctx context.Context, v storage.View, q LinesQuery) (*Lines, error) {
	out := &Lines{}
	c, stats, err := e.each(ctx, v, q, func(en *Entry) error {
		out.Entries = append(out.Entries, *en)
		return nil
	})
	if err != nil {
		return nil, err
	}
	out.Next, out.Stats = c, stats
	return out, nil
}

// Each calls f with lines in the order of their time, any number of them in bounded memory. The entry may be kept.
func (e *Engine) Each(ctx context.Context, v storage.View, q LinesQuery, f func(*Entry) error) (Stats, error) {
	_, stats, err := e.each(ctx, v, q, f)
	return stats, err
}

func (e *Engine) each(ctx context.Context, v storage.View, q LinesQuery, f func(*Entry) error) (*Cursor, Stats, error) {
	l, ok := q.Expr.(*syntax.Log)
	if !ok {
		return nil, Stats{}, errNotLines
	}
	stop := stopped(ctx)
	p, err := planOf(l, stop)
	if err != nil {
		return nil, Stats{}, fmt.Errorf("plan the query: %w", err)
	}
	pipe, err := pipeline.Compile(p.stages, pipeline.Options{Now: e.Now, Stop: stop})
	if err != nil {
		return nil, Stats{}, err
	}
	s := &scanner{q: q, pipe: pipe, meter: newMeter(v, e.Limits.Bytes), f: f}
	if q.After != nil {
		s.at = *q.After
		s.begun = true
	}
	page := firstPage
	if len(p.stages) == 0 && q.Limit > 0 {
		page = q.Limit
	}
	for {
		more, err := s.page(ctx, p.where, page)
		if ended := ctx.Err(); ended != nil { // what was stopped has dropped rows, or failed
			err = ended
		}
		if err != nil {
			return nil, Stats{}, err
		}
		stats := s.meter.stats(s.returned)
		if !more {
			return nil, stats, nil
		}
		if q.Limit > 0 && s.returned >= q.Limit {
			return &Cursor{s.at.Time, s.at.Rows}, stats, nil
		}
		page = min(page*4, maxPage, max(firstPage/8, pageBytes/max(s.size, 1)))
	}
}

// scanner reads rows page by page.
type scanner struct {
	q        LinesQuery
	pipe     *pipeline.Pipeline
	meter    *meter
	f        func(*Entry) error
	returned int
	size     int    // of the lines of the page before, on average
	at       Cursor // behind the last row that was looked at
	begun    bool   // at is set
	row      pipeline.Row
	rec      pipeline.Record
}

// page looks at up to n more rows and says whether there may be more.
func (s *scanner) page(ctx context.Context, where storage.Predicate, n int) (bool, error) {
	q := storage.LogQuery{
		Tenant: s.q.Tenant, Start: s.q.Start, End: s.q.End - 1, Where: where, Columns: storage.LogAll,
		Order: storage.OldestFirst, Limit: n,
	}
	skip := 0
	if s.begun {
		skip = s.at.Rows
		q.Limit += skip
	}
	if s.q.Newest {
		q.Order = storage.NewestFirst
		if s.begun {
			q.End = min(q.End, s.at.Time)
		}
	} else if s.begun {
		q.Start = max(q.Start, s.at.Time)
	}
	if s.q.Start >= s.q.End || q.Start > q.End {
		return false, nil
	}
	if s.begun && (s.q.Newest && q.End < s.at.Time || !s.q.Newest && q.Start > s.at.Time) {
		skip = 0 // the cursor lies outside of the range
	}
	seen, size := 0, 0
	for b, err := range s.meter.logs(ctx, q) {
		if err != nil {
			return false, err
		}
		for i := range b.Len() {
			if seen++; seen <= skip {
				continue
			}
			if err := ctx.Err(); err != nil { // for each row: stages can take long
				return false, err
			}
			size += len(b.Body[i].Str())
			if err := s.visit(b, i); err != nil {
				return false, err
			}
			if s.q.Limit > 0 && s.returned >= s.q.Limit {
				return true, nil
			}
		}
	}
	s.size = size / max(seen, 1)
	return seen >= q.Limit, nil
}

func (s *scanner) visit(b *storage.LogBlock, i int) error {
	if t := b.Time[i]; s.begun && t == s.at.Time {
		s.at.Rows++
	} else {
		s.at, s.begun = Cursor{t, 1}, true
	}
	pipeline.RecordOf(&s.rec, b, i)
	s.row.Reset(&s.rec, s.rec.Body.Text())
	keep, err := s.pipe.Process(&s.row)
	if err != nil || !keep {
		return err
	}
	s.returned++
	en := entryOf(&s.row)
	return s.f(&en)
}

// entryOf copies what a row has become.
func entryOf(r *pipeline.Row) Entry {
	stream := r.AppendStream(nil)
	pipeline.SortLabels(stream)
	en := Entry{
		Time: r.Time, Line: strings.Clone(r.Line), Structured: r.AppendStructured(nil), Parsed: r.AppendParsed(nil),
		Stream: telemetry.LabelSet(pipeline.EncodeLabels(nil, stream)),
	}
	all := append(append(stream, en.Structured...), en.Parsed...)
	pipeline.SortLabels(all)
	en.Labels = telemetry.LabelSet(pipeline.EncodeLabels(nil, all))
	for _, ls := range [][]Label{en.Structured, en.Parsed} {
		for i := range ls {
			ls[i] = Label{Name: strings.Clone(ls[i].Name), Value: strings.Clone(ls[i].Value)}
		}
	}
	return en
}

// Tail runs a query for lines over records as they arrive.
type Tail struct {
	matchers storage.StreamMatch
	pipe     *pipeline.Pipeline
	row      pipeline.Row
	rec      pipeline.Record
}

// Tail compiles a query for lines so that single records can be matched; for one goroutine at a time.
func (e *Engine) Tail(expr Expr) (*Tail, error) {
	l, ok := expr.(*syntax.Log)
	if !ok {
		return nil, errNotLines
	}
	pipe, err := pipeline.Compile(l.Stages, pipeline.Options{Now: e.Now})
	return &Tail{matchers: l.Matchers, pipe: pipe}, err
}

// Selects says whether records of a stream can match at all.
func (t *Tail) Selects(stream telemetry.LabelSet) bool {
	return storage.MatchLabels(stream, t.matchers)
}

// Match returns what the query makes of a record of a stream that it selects, and whether it keeps it.
func (t *Tail) Match(stream telemetry.LabelSet, res *telemetry.Resource, r *telemetry.LogRecord) (Entry, bool, error) {
	t.rec = pipeline.Record{Stream: stream, Resource: res, LogRecord: *r}
	t.row.Reset(&t.rec, r.Body.Text())
	keep, err := t.pipe.Process(&t.row)
	if err != nil || !keep {
		return Entry{}, false, err
	}
	return entryOf(&t.row), true, nil
}
