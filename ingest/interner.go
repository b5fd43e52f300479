package ingest

import (
	"encoding/binary"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/braidobs/braid/internal/telemetry"
)

const (
	internShards = 64
	// internAge is how long a generation lasts at most: labels that nobody sends fall out after one to two of it.
	internAge = 5 * time.Minute
	// internEntry is what an entry takes beside its text: key, header and the empty places of the map.
	internEntry = 128
)

// Fingerprint stands for the labels of a series as a sender wrote them: two hashes of their bytes under seeds that
// differ from process to process, 128 bits in all, so that nobody can choose two that meet.
type Fingerprint struct{ a, b uint64 }

// Append appends the sixteen bytes of f, for fingerprints of several fingerprints.
func (f Fingerprint) Append(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, f.a)
	return binary.LittleEndian.AppendUint64(dst, f.b)
}

// Labels is an entry of an Interner.
type Labels struct {
	telemetry.Interned
	print Fingerprint
	turn  atomic.Uint32          // turns of the interner when it was last found in a map
	next  atomic.Pointer[Labels] // which came after it the last time
}

// Interner remembers label sets that were checked, by the fingerprint of the bytes they came in: who sends a series
// again pays for a hash and a look-up and not for parsing, sorting and checking, and the store gets the same string
// as before. It holds a bounded number of bytes in two generations: what is used moves to the young one, and when
// that is full or five minutes old, the old one is forgotten. It may be used concurrently.
type Interner struct {
	seeds  [2]maphash.Seed
	turns  atomic.Uint32 // generations of all shards that began
	half   int64         // bytes of one generation of one shard
	born   atomic.Int64  // when the young generation began, Unix nanoseconds
	shards [internShards]internShard

	hits, misses, evictions prometheus.Counter
}

type internShard struct {
	mu         sync.Mutex // guards what follows; nothing is called under it
	young, old map[Fingerprint]*Labels
	bytes      int64 // of young
	_          [24]byte
}

// NewInterner returns an interner of about so many bytes. A registry takes its metrics once; nil registers nothing.
func NewInterner(bytes int64, reg prometheus.Registerer) *Interner {
	f := promauto.With(reg)
	in := &Interner{
		seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}, half: bytes / 2 / internShards,
		hits: f.NewCounter(prometheus.CounterOpts{
			Name: "braid_ingest_label_cache_hits_total", Help: "Series whose labels were known from an earlier request.",
		}),
		misses: f.NewCounter(prometheus.CounterOpts{
			Name: "braid_ingest_label_cache_misses_total", Help: "Series whose labels had to be parsed and checked.",
		}),
		evictions: f.NewCounter(prometheus.CounterOpts{
			Name: "braid_ingest_label_cache_evictions_total", Help: "Label sets that were forgotten (setting ingest.label_cache, or nobody sent them for minutes).",
		}),
	}
	for i := range in.shards {
		in.shards[i].young = make(map[Fingerprint]*Labels)
	}
	return in
}

// Sum returns the fingerprint of b.
func (in *Interner) Sum(b []byte) Fingerprint {
	return Fingerprint{maphash.Bytes(in.seeds[0], b), maphash.Bytes(in.seeds[1], b)}
}

// Lookup returns the labels kept under f. After is what came before in the same request, nil for the first: senders
// mostly repeat themselves, and then nothing needs to be looked up at all.
func (in *Interner) Lookup(f Fingerprint, after *Labels) (*Labels, bool) {
	turn := in.turns.Load()
	if after != nil {
		if l := after.next.Load(); l != nil && l.print == f && l.turn.Load() == turn {
			return l, true
		}
	}
	s := &in.shards[f.a%internShards]
	s.mu.Lock()
	l, ok := s.young[f]
	if !ok && s.old != nil {
		if l, ok = s.old[f]; ok {
			delete(s.old, f)
			in.add(s, l)
		}
	}
	s.mu.Unlock()
	if ok {
		l.turn.Store(turn)
		if after != nil {
			after.next.Store(l)
		}
	}
	return l, ok
}

// Intern keeps ls under f, unless it is too large to be kept.
func (in *Interner) Intern(f Fingerprint, ls telemetry.LabelSet) *Labels {
	l := &Labels{Interned: telemetry.Interned{Labels: ls}, print: f}
	if int64(len(ls)+internEntry) > in.half/4 {
		return l
	}
	s := &in.shards[f.a%internShards]
	s.mu.Lock()
	in.add(s, l)
	s.mu.Unlock()
	return l
}

// add needs the shard's mutex.
func (in *Interner) add(s *internShard, l *Labels) {
	if _, ok := s.young[l.print]; ok {
		return
	}
	n := int64(len(l.Labels) + internEntry)
	if s.bytes+n > in.half {
		in.turn(s)
	}
	s.young[l.print] = l
	s.bytes += n
}

// turn begins a generation. It needs the shard's mutex.
func (in *Interner) turn(s *internShard) {
	in.evictions.Add(float64(len(s.old)))
	in.turns.Add(1)
	s.old, s.young, s.bytes = s.young, make(map[Fingerprint]*Labels, len(s.young)), 0
}

// Age begins a generation when the young one is old enough. Receivers call it with each request.
func (in *Interner) Age(now time.Time) {
	born, t := in.born.Load(), now.UnixNano()
	if t-born < int64(internAge) || !in.born.CompareAndSwap(born, t) || born == 0 {
		return
	}
	for i := range in.shards {
		s := &in.shards[i]
		s.mu.Lock()
		in.turn(s)
		s.mu.Unlock()
	}
}

// Count adds to the metrics what look-ups of one request came to.
func (in *Interner) Count(hits, misses int) {
	in.hits.Add(float64(hits))
	in.misses.Add(float64(misses))
}
