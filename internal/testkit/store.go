package testkit

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"iter"
	"maps"
	"math"
	"slices"
	"sync"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

// maxResources bounds the directory of each tenant; tests stay far below it.
const maxResources = 1 << 20

// Store is a storage.Writer and storage.Reader that keeps every batch in a slice and answers by looking at all
// of them: slow, and simple enough to be right. It has no retention, no limits and no deletes.
//
// It does not turn delta series into cumulative ones: their samples are rejected.
//
// Safe for concurrent use.
type Store struct {
	cluster string

	mu       sync.Mutex // guards all below
	batches  []telemetry.Batch
	written  []storage.Position // of each batch
	end      storage.Position
	keys     map[storage.Key]outcome
	marks    map[[3]string]uint64 // of tenant, stream and file
	dirs     map[telemetry.Tenant]*telemetry.Directory
	warnings []string
	open     int // views
	opened   int
}

type outcome struct {
	pos      storage.Position
	rejected storage.Rejected
}

var (
	_ storage.Writer = (*Store)(nil)
	_ storage.Reader = (*Store)(nil)
)

// NewStore returns an empty store; pods that name no cluster are taken to be in the given one.
func NewStore(cluster string) *Store {
	return &Store{
		cluster: cluster, keys: make(map[storage.Key]outcome), marks: make(map[[3]string]uint64), dirs: make(map[telemetry.Tenant]*telemetry.Directory),
	}
}

// Write implements storage.Writer.
func (s *Store) Write(ctx context.Context, req storage.Request) (storage.Position, storage.Rejected, error) {
	if err := ctx.Err(); err != nil {
		return 0, storage.Rejected{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if o, ok := s.keys[req.Key]; ok && req.Key != (storage.Key{}) {
		return o.pos, o.rejected, nil
	}
	before := maps.Clone(s.marks)
	for i := range req.Batches {
		b := req.Batches[i]
		if !s.once(&b, before) {
			continue
		}
		b.Series = slices.DeleteFunc(slices.Clone(b.Series), func(se telemetry.Series) bool {
			if !se.Delta {
				return false
			}
			req.Rejected.Samples += len(se.Samples) + len(se.Histograms)
			req.Rejected.Reason("testkit.Store keeps no delta series")
			return true
		})
		s.batches = append(s.batches, b)
		s.written = append(s.written, s.end+1)
		s.observe(&b)
	}
	s.end++
	if req.Key != (storage.Key{}) {
		s.keys[req.Key] = outcome{s.end, req.Rejected}
	}
	return s.end, req.Rejected, nil
}

// once removes what the batch's source sent before and says whether anything is to be stored. It needs mu.
func (s *Store) once(b *telemetry.Batch, before map[[3]string]uint64) bool {
	if b.Source == nil {
		return true
	}
	k := [3]string{string(b.Tenant), b.Source.Stream, b.Source.File}
	mark, known := before[k]
	if known && b.Source.To <= mark {
		return false
	}
	s.marks[k] = max(s.marks[k], b.Source.To)
	if known && b.Source.Ends != nil {
		ends := slices.Clone(b.Source.Ends)
		b.KeepLogs(func(i int) bool { return ends[i] > mark })
	}
	return true
}

// observe tells the tenant's directory what the batch says about identity. It needs mu.
func (s *Store) observe(b *telemetry.Batch) {
	dir := s.dirs[b.Tenant]
	if dir == nil {
		dir = telemetry.NewDirectory(s.cluster, maxResources)
		s.dirs[b.Tenant] = dir
	}
	lo, hi := int64(math.MaxInt64), int64(math.MinInt64)
	for i := range b.Spans {
		lo, hi = min(lo, b.Spans[i].Start), max(hi, b.Spans[i].End)
	}
	for i := range b.Logs {
		lo, hi = min(lo, b.Logs[i].Time), max(hi, b.Logs[i].Time)
	}
	for i := range b.Series {
		first, last := bounds(&b.Series[i])
		if first > last {
			continue
		}
		first, last = nanos(first), nanos(last)
		if b.Resource == nil {
			dir.Observe(telemetry.LabelResource(b.Series[i].Labels), first, last)
		}
		lo, hi = min(lo, first), max(hi, last)
	}
	dir.Observe(b.Resource, lo, hi)
}

// bounds returns the first and last time of the samples of se, in milliseconds; the first is larger when there
// are none.
func bounds(se *telemetry.Series) (lo, hi int64) {
	lo, hi = math.MaxInt64, math.MinInt64
	for i := range se.Samples {
		lo, hi = min(lo, se.Samples[i].T), max(hi, se.Samples[i].T)
	}
	for i := range se.Histograms {
		lo, hi = min(lo, se.Histograms[i].T), max(hi, se.Histograms[i].T)
	}
	return lo, hi
}

func nanos(ms int64) int64 {
	switch {
	case ms > math.MaxInt64/1_000_000:
		return math.MaxInt64
	case ms < math.MinInt64/1_000_000:
		return math.MinInt64
	default:
		return ms * 1_000_000
	}
}

// Warn makes every view that is opened from now on return text among its warnings.
func (s *Store) Warn(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.warnings = append(s.warnings, text)
}

// OpenViews returns the number of views that are not closed yet, and of all that were ever opened.
func (s *Store) OpenViews() (open, ever int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open, s.opened
}

// View implements storage.Reader. A position that was not written yet is an error.
func (s *Store) View(ctx context.Context, min storage.Position) (storage.View, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if min > s.end {
		return nil, fmt.Errorf("position %d was never written", min)
	}
	s.open++
	s.opened++
	return &view{store: s, batches: slices.Clip(s.batches), written: slices.Clip(s.written), at: s.end, dirs: maps.Clone(s.dirs), warnings: slices.Clone(s.warnings)}, nil
}

// view is the batches that were there when it was opened.
type view struct {
	store    *Store
	batches  []telemetry.Batch
	written  []storage.Position // of each batch
	at       storage.Position
	dirs     map[telemetry.Tenant]*telemetry.Directory
	warnings []string

	mu     sync.Mutex // guards all below
	closed bool
	stats  storage.ReadStats
}

// Close implements storage.View.
func (v *view) Close() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.closed {
		v.closed = true
		v.store.mu.Lock()
		v.store.open--
		v.store.mu.Unlock()
	}
	return nil
}

// Warnings implements storage.View.
func (v *view) Warnings() []string { return slices.Clone(v.warnings) }

// ReadStats implements storage.View.
func (v *view) ReadStats() storage.ReadStats {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.stats
}

// Position implements storage.ChangeReader.
func (v *view) Position() storage.Position { return v.at }

// OldestChange implements storage.ChangeReader; it remembers everything.
func (v *view) OldestChange(tenant telemetry.Tenant, since storage.Position) (int64, bool) {
	oldest := int64(math.MaxInt64)
	for i, b := range v.batches {
		if v.written[i] <= since || b.Tenant != tenant {
			continue
		}
		for j := range b.Series {
			for _, x := range b.Series[j].Samples {
				oldest = min(oldest, x.T)
			}
			for _, x := range b.Series[j].Histograms {
				oldest = min(oldest, x.T)
			}
		}
	}
	return oldest, true
}

// check says why nothing can be read.
func (v *view) check(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return storage.ErrClosed
	}
	return nil
}

// of yields the batches of a tenant.
func (v *view) of(t telemetry.Tenant) iter.Seq[*telemetry.Batch] {
	return func(yield func(*telemetry.Batch) bool) {
		for i := range v.batches {
			if v.batches[i].Tenant == t && !yield(&v.batches[i]) {
				return
			}
		}
	}
}

// inOrder sorts n rows by time, keeping the order of arrival among equals, and cuts them to the limit.
func inOrder(rows []int, at func(row int) int64, order storage.Order, limit int) []int {
	if order == storage.Unordered {
		return rows
	}
	slices.SortStableFunc(rows, func(a, b int) int { return cmp.Compare(at(a), at(b)) })
	if order == storage.NewestFirst {
		slices.Reverse(rows)
	}
	if limit > 0 && len(rows) > limit {
		rows = rows[:limit]
	}
	return rows
}

// blockRows is small, so that readers meet more than one block.
const blockRows = 7

// Logs implements storage.LogReader.
func (v *view) Logs(ctx context.Context, q storage.LogQuery) iter.Seq2[*storage.LogBlock, error] {
	return func(yield func(*storage.LogBlock, error) bool) {
		if err := v.check(ctx); err != nil {
			yield(nil, err)
			return
		}
		var all storage.LogBlock
		for b := range v.of(q.Tenant) {
			for i := range b.Logs {
				if r := &b.Logs[i]; r.Time >= q.Start && r.Time <= q.End {
					all.Append(b.Stream, b.Resource, r, storage.LogAll)
				}
			}
		}
		var rows []int
		for i := range all.Len() {
			if all.Match(i, q.Where) {
				rows = append(rows, i)
			}
		}
		byStream := func() {
			slices.SortStableFunc(rows, func(a, b int) int { return cmp.Compare(all.StreamOf(a), all.StreamOf(b)) })
		}
		byStream()
		if q.Order == storage.Unordered { // still, the rows of one stream come in order
			rows = inOrder(rows, func(i int) int64 { return all.Time[i] }, storage.OldestFirst, 0)
			byStream()
		}
		rows = inOrder(rows, func(i int) int64 { return all.Time[i] }, q.Order, q.Limit)
		if q.Columns&storage.LogLines != 0 { // bodies are never split here
			q.Columns |= storage.LogBody
		}
		for some := range slices.Chunk(rows, blockRows) {
			if err := v.check(ctx); err != nil {
				yield(nil, err)
				return
			}
			out := new(storage.LogBlock)
			for _, i := range some {
				rec := all.Record(i)
				out.Append(all.StreamOf(i), all.ResourceOf(i), &rec, q.Columns)
			}
			if !yield(out, nil) {
				return
			}
		}
	}
}

// Streams implements storage.LogReader.
func (v *view) Streams(ctx context.Context, q storage.LogQuery) ([]telemetry.LabelSet, error) {
	if err := v.check(ctx); err != nil {
		return nil, err
	}
	where := aboutStreams(q.Where)
	seen := make(map[telemetry.LabelSet]bool)
	for b := range v.of(q.Tenant) {
		for i := range b.Logs {
			if r := &b.Logs[i]; r.Time >= q.Start && r.Time <= q.End && !seen[b.Stream] {
				var one storage.LogBlock
				one.Append(b.Stream, nil, r, storage.LogStream)
				seen[b.Stream] = one.Match(0, where)
			}
		}
	}
	return sorted(seen), nil
}

// aboutStreams returns the part of p that speaks of streams, nil when nothing does.
func aboutStreams(p storage.Predicate) storage.Predicate {
	switch p := p.(type) {
	case storage.StreamMatch:
		return p
	case storage.And:
		var out storage.And
		for _, q := range p {
			if s := aboutStreams(q); s != nil {
				out = append(out, s)
			}
		}
		if len(out) > 0 {
			return out
		}
	}
	return nil
}

// Spans implements storage.SpanReader.
func (v *view) Spans(ctx context.Context, q storage.SpanQuery) iter.Seq2[*storage.SpanBlock, error] {
	return func(yield func(*storage.SpanBlock, error) bool) {
		if err := v.check(ctx); err != nil {
			yield(nil, err)
			return
		}
		var all storage.SpanBlock
		for b := range v.of(q.Tenant) {
			for i := range b.Spans {
				if s := &b.Spans[i]; s.Start >= q.Start && s.Start <= q.End {
					all.Append(b.Resource, s, storage.SpanAll)
				}
			}
		}
		var rows []int
		for i := range all.Len() {
			if all.Match(i, q.Where) {
				rows = append(rows, i)
			}
		}
		slices.SortStableFunc(rows, func(a, b int) int {
			return cmp.Or(bytes.Compare(all.TraceID[a][:], all.TraceID[b][:]), bytes.Compare(all.SpanID[a][:], all.SpanID[b][:]),
				bytes.Compare(all.ParentID[a][:], all.ParentID[b][:]))
		})
		rows = inOrder(rows, func(i int) int64 { return all.Start[i] }, q.Order, q.Limit)
		for some := range slices.Chunk(rows, blockRows) {
			if err := v.check(ctx); err != nil {
				yield(nil, err)
				return
			}
			out := new(storage.SpanBlock)
			for _, i := range some {
				s := all.Span(i)
				out.Append(all.ResourceOf(i), &s, q.Columns)
			}
			if !yield(out, nil) {
				return
			}
		}
	}
}

// Entities implements storage.EntityReader.
func (v *view) Entities(ctx context.Context, tenant telemetry.Tenant, q telemetry.Query) ([]telemetry.Entity, error) {
	if err := v.check(ctx); err != nil {
		return nil, err
	}
	dir := v.dirs[tenant]
	if dir == nil {
		return nil, nil
	}
	return dir.Entities(q), nil
}
