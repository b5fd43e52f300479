package vfs

import (
	"errors"
	"math/rand/v2"
	"sync"
	"syscall"
)

// ErrCrashed is the error of every operation after a [Crash].
var ErrCrashed = errors.New("the machine has crashed")

// Crash is a power loss, or a kill, at a chosen operation. Its Hook is for one [Fault].
type Crash struct {
	clone func() *Mem
	at    uint64

	mu      sync.Mutex // guards below
	changes uint64
	crashed bool
	disk    *Mem
}

// CrashAt returns a Crash of mem just before the n-th operation that changes something (OpKind.Changes), 1 being
// the first. rng is as in [Mem.CrashClone].
func CrashAt(mem *Mem, n uint64, rng *rand.Rand) *Crash {
	return &Crash{clone: func() *Mem { return mem.CrashClone(rng) }, at: n}
}

// KillAt is CrashAt for a process that is killed while the machine goes on: what it leaves is [Mem.KillClone].
func KillAt(mem *Mem, n uint64) *Crash {
	return &Crash{clone: mem.KillClone, at: n}
}

// Hook counts, and crashes when the time has come.
func (c *Crash) Hook(op Op) Action {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.disk == nil && op.Kind.Changes() {
		if c.changes++; c.changes >= c.at {
			c.crashed = true
			c.disk = c.clone()
		}
	}
	if c.disk != nil {
		return Action{Err: ErrCrashed}
	}
	return Action{}
}

// Crashed reports whether the n-th change came. A crash made by Disk does not count.
func (c *Crash) Crashed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.crashed
}

// Changes returns the number of changing operations seen before the crash.
func (c *Crash) Changes() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changes
}

// Disk returns what the crash has left. When it has not happened it happens now; no operation may be under way
// then.
func (c *Crash) Disk() *Mem {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.disk == nil {
		c.disk = c.clone()
	}
	return c.disk
}

// Space is a disk that fills up.
type Space struct {
	mu   sync.Mutex // guards left
	left int64
}

// DiskFull returns a disk that takes bytes more bytes of writes. The write that does not fit is done in part and
// fails with ENOSPC, as does the creation of files, directories and links when nothing is left. Removing a file
// gives nothing back: see [Space.Add].
func DiskFull(bytes int64) *Space { return &Space{left: bytes} }

// Add makes n more bytes free.
func (s *Space) Add(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left += n
}

// Hook is the hook of the disk.
func (s *Space) Hook(op Op) Action {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch op.Kind {
	case OpWrite:
		if n := int64(op.Len); n > s.left {
			short := int(s.left)
			s.left = 0
			return Action{Err: syscall.ENOSPC, Short: short}
		}
		s.left -= int64(op.Len)
	case OpCreate, OpMkdir, OpLink:
		if s.left == 0 {
			return Action{Err: syscall.ENOSPC}
		}
	case OpFreeBytes:
		return Action{Free: uint64(max(0, s.left)), FreeSet: true}
	default:
	}
	return Action{}
}

// FailOp returns a hook that fails the n-th operation of a kind (1 is the first, 0 means every one) on names that
// match pattern, with err. A pattern is one of path.Match and is tried on the name and on its last element; ""
// matches all. The hook counts by itself: use it for one Fault.
func FailOp(kind OpKind, pattern string, n uint64, err error) Hook {
	return nth(kind, pattern, n, func(Op) Action { return Action{Err: err} })
}

// ShortWrite returns a hook that ends the n-th write to names that match pattern after keep bytes, with EIO.
func ShortWrite(pattern string, n uint64, keep int) Hook {
	return nth(OpWrite, pattern, n, func(Op) Action { return Action{Err: syscall.EIO, Short: keep} })
}

// ReadError returns a hook that fails every read that touches byte offset of names that match pattern, with EIO.
// The bytes before it are read.
func ReadError(pattern string, offset int64) Hook {
	return at(OpRead, pattern, offset, func(i int) Action { return Action{Err: syscall.EIO, Short: i} })
}

// BitFlip returns a hook that inverts a bit of the byte at offset whenever it is read from names that match
// pattern. [Mem.FlipBit] changes the stored byte instead.
func BitFlip(pattern string, offset int64, bit uint) Hook {
	return at(OpRead, pattern, offset, func(i int) Action { return Action{Flip: true, FlipByte: i, FlipBit: bit} })
}

// BitFlipWrite is BitFlip on the way to the disk: what is stored is wrong, and every layer was told it is right.
func BitFlipWrite(pattern string, offset int64, bit uint) Hook {
	return at(OpWrite, pattern, offset, func(i int) Action { return Action{Flip: true, FlipByte: i, FlipBit: bit} })
}

func nth(kind OpKind, pattern string, n uint64, act func(Op) Action) Hook {
	var seen uint64 // hooks of a Fault are never called concurrently
	return func(op Op) Action {
		if op.Kind != kind || !match(pattern, op.Name) {
			return Action{}
		}
		if seen++; n != 0 && seen != n {
			return Action{}
		}
		return act(op)
	}
}

func at(kind OpKind, pattern string, offset int64, act func(int) Action) Hook {
	return func(op Op) Action {
		if op.Kind != kind || !match(pattern, op.Name) || offset < op.Offset || offset >= op.Offset+int64(op.Len) {
			return Action{}
		}
		return act(int(offset - op.Offset))
	}
}
