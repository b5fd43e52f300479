package tail

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/braidobs/braid/daemonset/tail/checkpoint"
)

const (
	minQuantum = 64 << 10
	maxQuantum = 1 << 20
)

// timing is what tests make shorter.
type timing struct {
	tick     time.Duration // between looks at what waits for time to pass, and between checkpoints
	coalesce time.Duration // between reads of the file system's events
	poll     time.Duration // between listings when directories cannot be watched
}

// Tailer reads the logs of a host. See the package comment.
type Tailer struct {
	cfg     Config
	deps    Deps
	timing  timing
	metrics *metrics
	partial *gauge
	flight  *gauge
	budget  *semaphore.Weighted
	sched   *scheduler
	buffers [bufferClasses]sync.Pool
	sends   sync.WaitGroup

	notReady atomic.Pointer[string]

	mu      sync.Mutex // guards streams; taken before that of a stream
	streams map[StreamKey]*stream

	// Used by the goroutine that lists directories alone.
	store    *checkpoint.Store
	known    map[StreamKey]checkpoint.Stream // of the checkpoint, not found yet
	first    bool                            // there was no checkpoint, and the first listing is not done
	scanner  *scanner
	failing  bool // the last checkpoint could not be written
	heldFull bool // the last look found more held than allowed
}

const bufferClasses = 10 // 4 KiB to 2 MiB

// New returns a tailer; Run does the work. The configuration must be valid.
func New(cfg Config, deps Deps) (*Tailer, error) {
	deps, err := deps.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("read logs: %w", err)
	}
	m, err := newMetrics(deps.Metrics)
	if err != nil {
		return nil, fmt.Errorf("read logs: %w", err)
	}
	t := &Tailer{
		cfg: cfg, deps: deps, metrics: m,
		timing:  timing{tick: time.Second, coalesce: 20 * time.Millisecond, poll: time.Second},
		partial: &gauge{shown: m.open}, flight: &gauge{shown: m.inflight},
		budget:  semaphore.NewWeighted(cfg.MaxInflight.Bytes()),
		streams: map[StreamKey]*stream{}, known: map[StreamKey]checkpoint.Stream{},
	}
	t.setNotReady("the logs were not listed yet")
	return t, nil
}

func (t *Tailer) setNotReady(why string) { t.notReady.Store(&why) }

// Ready returns nil once the directories of logs were listed. It does not wait for what is in them.
func (t *Tailer) Ready() error {
	if why := *t.notReady.Load(); why != "" {
		return errors.New(why)
	}
	return nil
}

// Streams returns the state of every stream that is not read and acknowledged to its end.
func (t *Tailer) Streams() []StreamStatus {
	all := t.all()
	out := make([]StreamStatus, len(all))
	for i, s := range all {
		out[i] = s.status()
	}
	return out
}

func (t *Tailer) all() []*stream {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]*stream, 0, len(t.streams))
	for _, s := range t.streams {
		all = append(all, s)
	}
	return all
}

// Run reads until ctx ends; then it waits for sends under way, at most the grace, and writes the checkpoint. A tailer
// runs once. It is an error when the checkpoint cannot be opened.
func (t *Tailer) Run(ctx context.Context) error {
	store, states, err := checkpoint.Open(t.deps.FS, t.deps.StateDir, t.deps.Log)
	if err != nil {
		return fmt.Errorf("read logs: %w", err)
	}
	t.store, t.first = store, len(states) == 0
	for _, st := range states {
		if key, ok := keyOf(st.Key); ok {
			t.known[key] = st
		}
	}
	t.sched = newScheduler()
	sendCtx, cancelSends := context.WithCancel(context.WithoutCancel(ctx))
	defer cancelSends()

	g, gctx := errgroup.WithContext(ctx)
	t.scanner = newScanner(t)
	g.Go(func() error { return t.discover(gctx, g) })
	for range runtime.GOMAXPROCS(0) {
		g.Go(func() error { t.work(gctx, sendCtx); return nil })
	}
	err = g.Wait()
	t.waitSends(cancelSends)
	for _, s := range t.all() {
		t.save(s)
		s.close()
	}
	if cerr := t.store.Close(); cerr != nil {
		err = errors.Join(err, fmt.Errorf("write the checkpoint of logs: %w", cerr))
	}
	return err
}

// waitSends waits for what is being sent, and after the grace gives it up.
func (t *Tailer) waitSends(cancel context.CancelFunc) {
	timer := time.AfterFunc(t.deps.Grace, cancel)
	defer timer.Stop()
	t.sends.Wait()
}

// work reads streams until ctx ends.
func (t *Tailer) work(ctx, sendCtx context.Context) {
	for {
		s := t.sched.next(ctx)
		if s == nil {
			return
		}
		n := s.want(t.quantum())
		if t.budget.Acquire(ctx, int64(n)) != nil {
			return
		}
		t.flight.add(int64(n))
		buf := t.buffer(n)
		b, more := s.step(buf)
		if s.wantsScan() {
			t.scanner.request(s)
		}
		if b == nil {
			t.release(buf)
			t.sched.done(s, more)
			continue
		}
		t.sends.Go(func() { t.send(sendCtx, s, b, buf) })
	}
}

// quantum is how much of one stream is read at once: less when many are active, so that each gets its share.
func (t *Tailer) quantum() int {
	share := t.cfg.MaxInflight.Bytes() / int64(2*max(1, t.sched.load()))
	share = min(max(share, minQuantum), maxQuantum, t.cfg.MaxInflight.Bytes())
	return 1 << (bits.Len64(uint64(share)) - 1)
}

// send hands a batch to the sink and applies the acknowledgement.
func (t *Tailer) send(ctx context.Context, s *stream, b *batch, buf *buffer) {
	t.flight.add(b.joined)
	err := t.deps.Sink.Send(ctx, Chunk{Stream: s.key, File: b.file.name(), From: b.from, To: b.to, Records: b.records})
	t.flight.add(-b.joined)
	t.release(buf)
	s.mu.Lock()
	if err == nil {
		s.acked(b)
	} else {
		s.closed = true // what comes next must not be acknowledged before this
	}
	s.mu.Unlock()
	if err != nil && ctx.Err() == nil {
		t.deps.Log.Error("a chunk of a log was given up by its sink: the stream is read again after the next start", "stream", s.id, "err", err)
	}
	t.sched.done(s, err == nil)
}

// buffer is what a chunk is read into.
type buffer struct {
	data    []byte
	records []Record // empty, with room
}

func (t *Tailer) buffer(n int) *buffer {
	if b, ok := t.buffers[bufferClass(n)].Get().(*buffer); ok {
		return b
	}
	return &buffer{data: make([]byte, n)}
}

func bufferClass(n int) int { return bits.Len(uint(n)-1) - 12 }

func (t *Tailer) release(b *buffer) {
	clear(b.records[:cap(b.records)])
	n := len(b.data)
	t.buffers[bufferClass(n)].Put(b)
	t.flight.add(-int64(n))
	t.budget.Release(int64(n))
}

// look does what waits for time to pass: pieces without an end, limits, gauges.
func (t *Tailer) look() {
	var lag, held int64
	var open int
	var loudest *stream
	var most int64
	all := t.all()
	for _, s := range all {
		busy := t.sched.busy(s)
		s.mu.Lock()
		if busy {
			s.measure()
		}
		s.tidy(s.now())
		absent := false
		for _, f := range s.files {
			absent = absent || f.absent()
			lag += f.behind()
			if f.src != nil {
				open++
			}
		}
		h := s.held()
		wake := s.pending || s.waits()
		finished := s.finished()
		s.mu.Unlock()
		held += h
		if h > most {
			most, loudest = h, s
		}
		if absent {
			t.scanner.request(s)
		}
		if wake {
			t.sched.wake(s)
		}
		if finished && !t.sched.busy(s) {
			t.forget(s)
		}
	}
	full := t.cfg.MaxHeld.Bytes()
	if held > full && loudest != nil {
		if !t.heldFull {
			t.deps.Log.Warn("deleted log files hold more than max_held that was not sent: the oldest are dropped",
				"held", held, "max_held", full, "stream", loudest.id)
		}
		t.heldFull = true
		t.drop(all, held-full)
	} else {
		t.heldFull = false
	}
	t.metrics.streams.Set(float64(len(all)))
	t.metrics.files.Set(float64(open))
	t.metrics.lag.Set(float64(lag))
	t.metrics.held.Set(float64(held))
}

// drop gives up files of the streams that hold most until they hold n bytes less.
func (t *Tailer) drop(all []*stream, n int64) {
	for n > 0 {
		var loudest *stream
		var most int64
		for _, s := range all {
			s.mu.Lock()
			if h := s.held(); h > most {
				most, loudest = h, s
			}
			s.mu.Unlock()
		}
		if loudest == nil {
			return
		}
		loudest.mu.Lock()
		dropped := loudest.dropHeld()
		loudest.mu.Unlock()
		if dropped == 0 {
			return
		}
		t.sched.wake(loudest)
		n -= dropped
	}
}

// forget ends a stream whose files are gone and acknowledged.
func (t *Tailer) forget(s *stream) {
	t.mu.Lock()
	delete(t.streams, s.key)
	t.mu.Unlock()
	t.store.Delete(s.id)
}

// save puts the state of a stream in the checkpoint when it has changed.
func (t *Tailer) save(s *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.dirty {
		return
	}
	s.dirty = false
	t.store.Put(s.state())
}

// checkpoint makes the positions durable.
func (t *Tailer) checkpoint() {
	for _, s := range t.all() {
		t.save(s)
	}
	err := t.store.Sync()
	if err != nil {
		t.metrics.checkpointErrors.Inc()
		if !t.failing {
			t.deps.Log.Error("checkpoint of logs cannot be written: after a crash more is read again", "err", err)
		}
	}
	t.failing = err != nil
}
