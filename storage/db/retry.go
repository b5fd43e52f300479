package db

import (
	"sync"
	"time"

	"github.com/braidobs/braid/storage"
)

// maxRetryKeys is how many write requests are remembered at most.
const maxRetryKeys = 200_000

// retryKeys remembers the outcome of requests by their key for a while, so that a retry is stored once.
type retryKeys struct {
	window time.Duration
	max    int

	mu    sync.Mutex // guards all below
	known map[storage.Key]*attempt
	order []aged // of finished attempts, oldest first
}

type aged struct {
	key storage.Key
	at  time.Time
}

// attempt is a request with a key: under way until done is closed, then its outcome.
type attempt struct {
	done     chan struct{}
	failed   bool
	pos      storage.Position
	rejected storage.Rejected
}

func newRetryKeys(window time.Duration, max int) *retryKeys {
	return &retryKeys{window: window, max: max, known: make(map[storage.Key]*attempt)}
}

// begin returns the attempt with this key and whether it is the caller's to make.
func (k *retryKeys) begin(key storage.Key) (*attempt, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if a, ok := k.known[key]; ok {
		return a, false
	}
	a := &attempt{done: make(chan struct{})}
	k.known[key] = a
	return a, true
}

// finish records the outcome of an attempt. After a failure the key is free again.
func (k *retryKeys) finish(key storage.Key, a *attempt, pos storage.Position, rejected storage.Rejected, failed bool, now time.Time) (evicted int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	a.pos, a.rejected, a.failed = pos, rejected, failed
	if failed {
		delete(k.known, key)
	} else {
		k.order = append(k.order, aged{key: key, at: now})
		evicted = k.trim(now)
	}
	close(a.done)
	return evicted
}

// restore remembers a request found in the log.
func (k *retryKeys) restore(key storage.Key, pos storage.Position, rejected storage.Rejected, at, now time.Time) {
	if key == (storage.Key{}) || now.Sub(at) > k.window {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	a := &attempt{done: make(chan struct{}), pos: pos, rejected: rejected}
	close(a.done)
	if _, ok := k.known[key]; !ok {
		k.order = append(k.order, aged{key: key, at: at})
	}
	k.known[key] = a
	k.trim(now)
}

// trim needs mu. It returns how many keys went before their time.
func (k *retryKeys) trim(now time.Time) (evicted int) {
	n := 0
	for n < len(k.order) {
		old := now.Sub(k.order[n].at) > k.window
		if !old && len(k.order)-n <= k.max {
			break
		}
		if !old {
			evicted++
		}
		delete(k.known, k.order[n].key)
		n++
	}
	if n > 0 {
		k.order = append(k.order[:0], k.order[n:]...)
	}
	return evicted
}
