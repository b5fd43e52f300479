// Package wal is the contract of the write-ahead log: a durable sequence of records, numbered by [Position]. A
// request is acknowledged when its record is durable here; everything else the engine keeps in memory can be
// rebuilt from the log and the committed parts.
//
// Package file implements it on local disks, package waltest is the acceptance suite of implementations.
package wal

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Position numbers the records of one log: 0 for the first ever, then each one more. A position never names two
// records that were both acknowledged. Positions are contiguous, except that opening a log may skip some (they
// are declared, see package file, and are no hole).
type Position uint64

var (
	// ErrFailed is found in the error of every append that the log could not make durable or refused because an
	// earlier one failed. The cause is found as well (syscall.ENOSPC for a full disk). All of these can be tried
	// again by whoever sent the record.
	ErrFailed = errors.New("write-ahead log append failed")
	// ErrOverloaded is found in the error of an append over the limit of queued bytes.
	ErrOverloaded = errors.New("write-ahead log queue is full")
	// ErrTooLarge is found in the error of an append of a record over the limit; trying again is of no use.
	ErrTooLarge = errors.New("write-ahead log record is too large")
	// ErrClosed is the error of appends to a closed log.
	ErrClosed = errors.New("write-ahead log is closed")
)

// Log is a durable sequence of records. It is safe for concurrent use.
type Log interface {
	// Append queues rec, which it then owns, and returns at once. It calls done exactly once, and the dones of
	// all appends one after the other, in the order of the appends, from one goroutine of the log: with the
	// position of the record once it is durable, or with an error; then the record is found zero times or once
	// after a restart.
	//
	// When an append fails, for whatever reason, every append made before the dones of all failed ones have
	// returned fails too. So a caller that makes its appends in the order in which it advances some state can
	// advance it before the append and roll it back in done: nothing built on the lost state gets through.
	// After that the log accepts again.
	//
	// done must not wait for another append. It may call Append. After Close, done is called with ErrClosed
	// before Append returns.
	Append(rec []byte, done func(Position, error))

	// Replay calls fn for every durable record at or after from, in order; records before Base are gone and not
	// mentioned. fn must not retain rec, and must not call Trim. What cannot be read is returned as holes, in
	// order, and replay goes on after each: holes say that acknowledged records are missing. An error of fn ends
	// the replay and is returned, wrapped.
	Replay(ctx context.Context, from Position, fn func(pos Position, at time.Time, rec []byte) error) ([]Hole, error)

	// End returns the position after the last durable record, which is what the next append gets if nothing is
	// queued.
	End() Position

	// Base returns the first position that is still held, or End when there is none.
	Base() Position

	// Trim removes what it can of the records that are below upTo and were appended before olderThan; it goes by
	// whole segments and leaves the youngest one. It waits for a running Replay.
	Trim(upTo Position, olderThan time.Time) error

	// Bytes returns the size of the log on disk.
	Bytes() int64

	// Close waits for the queued appends and their dones, then releases the log.
	Close() error
}

// Hole is a place where records that had been acknowledged are missing or damaged. [From, To) are the positions
// lost; From == To when the damage is known but has not cost a record that is known of.
type Hole struct {
	File     string
	Offset   int64
	From, To Position
	Err      error // what is wrong and what the operator can do
}

// String says where the hole is, what is lost, why, and what to do.
func (h Hole) String() string {
	return fmt.Sprintf("%s: offset %d: positions [%d, %d): %v", h.File, h.Offset, h.From, h.To, h.Err)
}
