package forward

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/braidobs/braid/internal/config"
	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/vfs"
	"github.com/braidobs/braid/storage/wal"
	"github.com/braidobs/braid/storage/wal/file"
)

const (
	recordVersion = 1
	queueShard    = 1
	segmentBytes  = 4 << 20
	// memoryBytes is how much of the queue is held in memory as well; what lies behind is read from disk.
	memoryBytes = 8 << 20
	// maxRequest bounds one queued request.
	maxRequest = 64 << 20
	trimEvery  = time.Second
	// mergeBytes is how much of neighbouring requests is sent at once.
	mergeBytes = 1 << 20
)

// QueueOptions are what a queue depends on.
type QueueOptions struct {
	FS      vfs.FS
	Dir     string // created when absent
	Max     config.Size
	Now     func() time.Time
	Log     *slog.Logger
	Metrics prometheus.Registerer
}

// Queue makes requests durable and delivers them in order, across restarts.
type Queue struct {
	o      QueueOptions
	client *Client
	log    wal.Log
	opened wal.Position  // where the log ended when it was opened
	id     string        // of the sequence of positions
	wake   chan struct{} // has a value when something was put

	mu      sync.Mutex // guards what follows
	pending []queued   // a piece of the log in order, from next on
	bytes   int
	next    wal.Position // the first that is not delivered
	tail    wal.Position // after the last of pending

	refused   prometheus.Counter
	delivered prometheus.Counter
}

type queued struct {
	pos wal.Position
	req Request
}

// OpenQueue opens the queue in a folder. Run delivers.
func OpenQueue(ctx context.Context, o QueueOptions, c *Client) (*Queue, error) {
	log, err := file.Open(ctx, file.Options{
		FS: o.FS, Dir: filepath.Join(o.Dir, "log"), Shard: queueShard, SegmentBytes: segmentBytes, MaxRecordBytes: maxRequest,
		MaxQueuedBytes: 2 * maxRequest, Now: o.Now, Log: o.Log,
	})
	if err != nil {
		return nil, fmt.Errorf("open the queue: %w", err)
	}
	q := &Queue{o: o, client: c, log: log, wake: make(chan struct{}, 1), next: log.Base()}
	q.tail, q.opened = q.next, log.End()
	if q.id, err = sequence(o.FS, filepath.Join(o.Dir, "id"), log.End() == 0); err != nil {
		return nil, errors.Join(fmt.Errorf("open the queue: %w", err), log.Close())
	}
	q.refused = prometheus.NewCounter(prometheus.CounterOpts{Name: "braid_forward_queue_refused_total", Help: "Requests that the queue did not take because of backend.max_queue or a full disk."})
	q.delivered = prometheus.NewCounter(prometheus.CounterOpts{Name: "braid_forward_queue_delivered_total", Help: "Requests of the queue that the backend has."})
	size := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "braid_forward_queue_bytes", Help: "Bytes of the queue on disk; those of the youngest segment may be delivered already."}, func() float64 { return float64(log.Bytes()) })
	waiting := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "braid_forward_queue_requests", Help: "Requests of the queue that the backend does not have."}, func() float64 { return float64(q.Waiting()) })
	o.Metrics.MustRegister(q.refused, q.delivered, size, waiting)
	return q, nil
}

// sequence returns the name of the queue's positions. A log that begins anew needs a new one, or the backend would take
// its first requests for old ones.
func sequence(fsys vfs.FS, name string, fresh bool) (string, error) {
	if !fresh {
		b, err := vfs.ReadFile(fsys, name, telemetry.MaxSourceFile)
		if err == nil && len(b) > 0 {
			return string(b), nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOENT) {
			return "", err
		}
	}
	var raw [16]byte
	_, _ = rand.Read(raw[:]) // never fails
	id := hex.EncodeToString(raw[:])
	return id, vfs.WriteFileAtomic(fsys, name, []byte(id))
}

// Waiting returns how many requests the backend does not have.
func (q *Queue) Waiting() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return int(q.log.End() - q.next)
}

// Put returns when r is durable in the queue, in its order. It is refused with an overload while the queue is full.
func (q *Queue) Put(ctx context.Context, r Request) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if q.log.Bytes()+int64(len(r.Body)) > int64(q.o.Max) {
		q.refused.Inc()
		return httpapi.NewOverloaded(5*time.Second, fmt.Sprintf("the queue to the backend has reached its limit backend.max_queue (%s)", q.o.Max))
	}
	out := make(chan error, 1)
	q.log.Append(appendRequest(nil, r), func(pos wal.Position, err error) {
		if err == nil {
			q.hold(queued{pos, r})
		}
		out <- err
	})
	if err := <-out; err != nil {
		q.refused.Inc()
		switch {
		case errors.Is(err, wal.ErrTooLarge):
			return &httpapi.Error{Kind: httpapi.TooLarge, Message: "the request is too large for the queue to the backend", Err: err}
		case errors.Is(err, wal.ErrClosed):
			return &httpapi.Error{Kind: httpapi.Unavailable, Message: "the agent is stopping", Err: err}
		default:
			out := httpapi.NewOverloaded(5*time.Second, "the queue to the backend cannot be written")
			out.Err = err
			return out
		}
	}
	return nil
}

// hold keeps a request in memory if all before it are there and there is room.
func (q *Queue) hold(r queued) {
	q.mu.Lock()
	if r.pos == q.tail && (q.bytes == 0 || q.bytes+len(r.req.Body) <= memoryBytes) {
		q.pending = append(q.pending, r)
		q.bytes += len(r.req.Body)
		q.tail = r.pos + 1
	}
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// Run delivers until ctx ends, several requests that wait at once. What is not delivered then is delivered by the next Run, or process.
func (q *Queue) Run(ctx context.Context) error {
	trimmed := q.o.Now()
	for {
		r, n, err := q.first(ctx)
		if err != nil {
			return err
		}
		if n == 0 {
			select {
			case <-ctx.Done():
				return nil
			case <-q.wake:
				continue
			}
		}
		to := r.pos + wal.Position(n)
		r.req.Source = &telemetry.Source{Stream: "agent/queue/" + q.id, File: q.id, From: uint64(r.pos), To: uint64(to)}
		err = q.client.Deliver(ctx, r.req)
		if _, refused := errors.AsType[*Refused](err); err != nil && !refused {
			return nil // ctx ended
		}
		if err != nil {
			q.o.Log.Warn("a request is dropped from the queue", "signal", r.req.Signal.String(), "records", r.req.Records, "err", err)
		} else {
			q.delivered.Add(float64(n))
		}
		next := q.drop(n)
		if now := q.o.Now(); now.Sub(trimmed) >= trimEvery || next == q.log.End() {
			trimmed = now
			if err := q.log.Trim(next, now.Add(time.Hour)); err != nil {
				q.o.Log.Warn("the queue cannot be trimmed, it is tried again", "err", err)
			}
		}
	}
}

// drop forgets the first n requests, which are delivered, and returns the position after them.
func (q *Queue) drop(n int) wal.Position {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, r := range q.pending[:n] {
		q.bytes -= len(r.req.Body)
		q.next = r.pos + 1
	}
	clear(q.pending[:n])
	q.pending = q.pending[n:]
	return q.next
}

// merged returns the first of pending and those after it that can be sent with it, as one request: OTLP requests, and
// the frames of zstd, one after the other are one again. What was there when the process started is sent as it is: a
// part of what follows it may have been stored, and a request counts as a whole. It needs mu.
func (q *Queue) merged() (queued, int) {
	r, n := q.pending[0], 1
	if r.pos < q.opened {
		return r, n
	}
	size := len(r.req.Body)
	for n < len(q.pending) {
		next := q.pending[n].req
		if next.Signal != r.req.Signal || next.Tenant != r.req.Tenant || size+len(next.Body) > mergeBytes || q.pending[n].pos != r.pos+wal.Position(n) {
			break
		}
		size += len(next.Body)
		n++
	}
	if n == 1 {
		return r, n
	}
	body := make([]byte, 0, size)
	r.req.Records = 0
	for _, x := range q.pending[:n] {
		body = append(body, x.req.Body...)
		r.req.Records += x.req.Records
	}
	r.req.Body = body
	return r, n
}

var errEnough = errors.New("enough was read")

// first returns the first requests that are not delivered, from memory or from disk, as one, and how many they are.
func (q *Queue) first(ctx context.Context) (r queued, n int, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.pending) > 0 {
		r, n = q.merged()
		return r, n, nil
	}
	if q.next >= q.log.End() {
		return queued{}, 0, nil
	}
	from := q.next
	q.mu.Unlock() // appends go on while the disk is read
	var read []queued
	bytes := 0
	holes, err := q.log.Replay(ctx, from, func(pos wal.Position, _ time.Time, rec []byte) error {
		req, err := decodeRequest(rec)
		if err != nil {
			q.o.Log.Error("a request in the queue is malformed and is dropped", "position", uint64(pos), "err", err)
			req = Request{}
		}
		read = append(read, queued{pos, req})
		if bytes += len(req.Body); bytes >= memoryBytes/2 {
			return errEnough
		}
		return nil
	})
	q.mu.Lock()
	if err != nil && !errors.Is(err, errEnough) {
		if ctx.Err() != nil {
			return queued{}, 0, nil // Run sees that ctx ended
		}
		return queued{}, 0, fmt.Errorf("read the queue: %w", err)
	}
	for _, h := range holes {
		q.o.Log.Error("requests in the queue are lost", "hole", h.String())
	}
	for len(read) > 0 && read[0].req.Signal == 0 {
		q.next = read[0].pos + 1
		read = read[1:]
	}
	if len(read) == 0 {
		if len(holes) > 0 {
			q.next = max(q.next, q.log.End())
		}
		q.tail = q.next
		return queued{}, 0, nil
	}
	for i := range read { // a malformed one in the middle ends the piece
		if read[i].req.Signal == 0 {
			read = read[:i]
			break
		}
	}
	q.pending, q.bytes = read, 0
	for i := range read {
		q.bytes += len(read[i].req.Body)
	}
	q.tail = read[len(read)-1].pos + 1
	r, n = q.merged()
	return r, n, nil
}

// Close releases the queue. Run must have returned.
func (q *Queue) Close() error { return q.log.Close() }

// appendRequest encodes a request: version, signal, tenant, count of records, body.
func appendRequest(dst []byte, r Request) []byte {
	dst = append(dst, recordVersion, byte(r.Signal))
	dst = telemetry.AppendString(dst, string(r.Tenant))
	dst = telemetry.AppendUvarint(dst, uint64(r.Records))
	return append(dst, r.Body...)
}

// decodeRequest reads what appendRequest wrote; what it returns shares no memory with rec.
func decodeRequest(rec []byte) (Request, error) {
	d := telemetry.NewDecoderBytes(rec)
	if v := d.Byte(); d.Err() == nil && v != recordVersion {
		d.Fail("version %d is not known", v)
	}
	r := Request{Signal: storage.Signal(d.Byte()), Tenant: telemetry.Tenant(strings.Clone(d.Str())), Records: int(d.Uvarint())}
	if d.Err() == nil && (r.Signal < storage.Metrics || r.Signal > storage.Traces || !r.Tenant.Valid() || r.Records < 0) {
		d.Fail("signal %d of tenant %q", r.Signal, r.Tenant)
	}
	r.Body = []byte(d.Take(d.Len()))
	return r, d.Err()
}
