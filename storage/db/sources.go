package db

import (
	"container/list"
	"context"
	"slices"
	"strings"
	"sync"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

// maxSourceFiles is how many files of a stream are remembered: a sender reads the files of a stream in their order
// and goes back only to those that it had not seen acknowledged.
const maxSourceFiles = 16

// sourceKey names the stream of a source.
type sourceKey struct {
	tenant telemetry.Tenant
	stream string
}

func compareSources(a, b sourceKey) int {
	if c := strings.Compare(string(a.tenant), string(b.tenant)); c != 0 {
		return c
	}
	return strings.Compare(a.stream, b.stream)
}

// fileMark is how far a file is acknowledged.
type fileMark struct {
	file string
	to   uint64
}

// sourceMark is what a record says about one source.
type sourceMark struct {
	sourceKey
	fileMark
}

// sources are the high-water marks of numbered streams, folded from the log. The stream that was written to longest
// ago goes first when there are too many.
type sources struct {
	max   int
	known map[sourceKey]*list.Element // of *streamMarks
	order *list.List                  // the stream that was written to last is at the back
}

type streamMarks struct {
	key   sourceKey
	files []fileMark // the one written to last is last
}

func newSources(max int) *sources {
	return &sources{max: max, known: make(map[sourceKey]*list.Element), order: list.New()}
}

func (s *sources) len() int { return s.order.Len() }

// acknowledged returns the largest position of the file that was acknowledged.
func (s *sources) acknowledged(k sourceKey, file string) (to uint64, ok bool) {
	e := s.known[k]
	if e == nil {
		return 0, false
	}
	for _, f := range e.Value.(*streamMarks).files {
		if f.file == file {
			return f.to, true
		}
	}
	return 0, false
}

// advance moves a mark and returns how many streams were forgotten for it.
func (s *sources) advance(m sourceMark) (evicted int) {
	e := s.known[m.sourceKey]
	if e == nil {
		e = s.order.PushBack(&streamMarks{key: m.sourceKey})
		s.known[m.sourceKey] = e
		for s.order.Len() > s.max {
			old := s.order.Remove(s.order.Front()).(*streamMarks)
			delete(s.known, old.key)
			evicted++
		}
	} else {
		s.order.MoveToBack(e)
	}
	st := e.Value.(*streamMarks)
	if i := slices.IndexFunc(st.files, func(f fileMark) bool { return f.file == m.file }); i >= 0 {
		m.to = max(m.to, st.files[i].to)
		st.files = slices.Delete(st.files, i, i+1)
	}
	if len(st.files) == maxSourceFiles {
		st.files = slices.Delete(st.files, 0, 1)
	}
	st.files = append(st.files, m.fileMark)
	return evicted
}

// appendTo writes the marks in the order of their age.
func (s *sources) appendTo(dst []byte) []byte {
	dst = telemetry.AppendUvarint(dst, uint64(s.order.Len()))
	for e := s.order.Front(); e != nil; e = e.Next() {
		st := e.Value.(*streamMarks)
		dst = telemetry.AppendString(dst, string(st.key.tenant))
		dst = telemetry.AppendString(dst, st.key.stream)
		dst = telemetry.AppendUvarint(dst, uint64(len(st.files)))
		for _, f := range st.files {
			dst = telemetry.AppendString(dst, f.file)
			dst = telemetry.AppendUvarint(dst, f.to)
		}
	}
	return dst
}

// load reads what appendTo wrote.
func (s *sources) load(d *telemetry.Decoder) {
	for range d.Count(4) {
		k := sourceKey{tenant: telemetry.Tenant(d.Str()), stream: d.Str()}
		for range d.Count(2) {
			f := fileMark{file: d.Str(), to: d.Uvarint()}
			if d.Err() != nil {
				return
			}
			s.advance(sourceMark{k, f})
		}
	}
}

// turns lets one request at a time decide about a stream, so that a request that is sent again while the first is
// under way waits for its end.
type turns struct {
	mu   sync.Mutex // guards busy
	busy map[sourceKey]chan struct{}
}

func newTurns() *turns { return &turns{busy: make(map[sourceKey]chan struct{})} }

// take waits for the turn on all streams at once. It returns what gives them back.
func (t *turns) take(ctx context.Context, keys []sourceKey) (release func(), err error) {
	mine := make(chan struct{})
	for {
		wait := t.try(keys, mine)
		if wait == nil {
			break
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-wait:
		}
	}
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		for _, k := range keys {
			delete(t.busy, k)
		}
		close(mine)
	}, nil
}

// try takes the keys, or returns what to wait for.
func (t *turns) try(keys []sourceKey, mine chan struct{}) (wait chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, k := range keys {
		if other := t.busy[k]; other != nil {
			return other
		}
	}
	for _, k := range keys {
		t.busy[k] = mine
	}
	return nil
}

// sourcesOf returns the streams of a request, each once.
func sourcesOf(req *storage.Request) []sourceKey {
	var keys []sourceKey
	for i := range req.Batches {
		if b := &req.Batches[i]; b.Source != nil {
			keys = append(keys, sourceKey{b.Tenant, b.Source.Stream})
		}
	}
	slices.SortFunc(keys, compareSources)
	return slices.Compact(keys)
}

// cut removes what was acknowledged before from a request and returns how many records that were. It needs mu, and
// the turn on the request's streams.
func (d *DB) cut(req *storage.Request) (again int) {
	kept := req.Batches[:0]
	for i := range req.Batches {
		b := req.Batches[i]
		if b.Source == nil {
			kept = append(kept, b)
			continue
		}
		mark, known := d.sources.acknowledged(sourceKey{b.Tenant, b.Source.Stream}, b.Source.File)
		if known && b.Source.To <= mark {
			again += b.Records()
			continue
		}
		if known && b.Source.Ends != nil {
			before := len(b.Logs)
			ends := b.Source.Ends
			first, _ := slices.BinarySearch(ends, mark+1)
			b.KeepLogs(func(i int) bool { return i >= first })
			again += before - len(b.Logs)
		}
		kept = append(kept, b)
	}
	req.Batches = kept
	return again
}

// marksOf returns how far the request takes its sources, each file once.
func marksOf(req *storage.Request) []sourceMark {
	var marks []sourceMark
	for i := range req.Batches {
		b := &req.Batches[i]
		if b.Source == nil {
			continue
		}
		m := sourceMark{sourceKey{b.Tenant, b.Source.Stream}, fileMark{b.Source.File, b.Source.To}}
		same := func(o sourceMark) bool { return o.sourceKey == m.sourceKey && o.file == m.file }
		if j := slices.IndexFunc(marks, same); j >= 0 {
			marks[j].to = max(marks[j].to, m.to)
			continue
		}
		marks = append(marks, m)
	}
	return marks
}
