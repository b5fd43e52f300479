package tail

import (
	"context"
	"sync"
)

// scheduler hands streams to readers, each to one at a time, in the order in which they became ready.
type scheduler struct {
	mu     sync.Mutex // guards all below and the sched field of streams
	ready  sync.Cond
	queue  []*stream
	active int // queued, being read, or being sent
	ended  bool
}

type schedState struct {
	busy  bool // queued, being read, or being sent
	again bool // became ready meanwhile
}

func newScheduler() *scheduler {
	s := &scheduler{}
	s.ready.L = &s.mu
	return s
}

// wake puts a stream in the queue, unless it is there.
func (q *scheduler) wake(s *stream) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.ended:
	case s.sched.busy:
		s.sched.again = true
	default:
		s.sched.busy = true
		q.active++
		q.push(s)
	}
}

func (q *scheduler) push(s *stream) {
	s.sched.again = false
	q.queue = append(q.queue, s)
	q.ready.Signal()
}

// next waits for a stream to read. It returns nil when ctx ends.
func (q *scheduler) next(ctx context.Context) *stream {
	stop := context.AfterFunc(ctx, q.end)
	defer stop()
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.queue) == 0 && !q.ended {
		q.ready.Wait()
	}
	if q.ended {
		return nil
	}
	s := q.queue[0]
	q.queue[0] = nil
	q.queue = q.queue[1:]
	return s
}

// done ends the turn of a stream that next returned. With more it goes to the end of the queue.
func (q *scheduler) done(s *stream, more bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if (more || s.sched.again) && !q.ended {
		q.push(s)
		return
	}
	s.sched = schedState{}
	q.active--
}

// busy says whether a stream is queued, being read, or being sent.
func (q *scheduler) busy(s *stream) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return s.sched.busy
}

func (q *scheduler) load() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.active
}

func (q *scheduler) end() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ended = true
	q.ready.Broadcast()
}
