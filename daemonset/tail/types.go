package tail

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
)

// StreamKey names a log stream: one container attempt, or one path of a plain host.
type StreamKey struct {
	Namespace, Pod, PodUID, Container string

	Restart int
	Path    string // of the live file; empty for containers of pods
	Source  string // name of the configured source; empty for containers of pods
}

// maxKeyBytes bounds StreamKey.String: what a backend takes as the name of a stream.
const maxKeyBytes = 512

// String returns the name of the stream for the backend: the same after every restart, at most 512 bytes. The end of
// a longer path is replaced by its hash.
func (k StreamKey) String() string {
	var s string
	if k.Path == "" {
		s = strings.Join([]string{"pod", k.Namespace, k.Pod, k.PodUID, k.Container, strconv.Itoa(k.Restart)}, "/")
	} else {
		s = "file/" + k.Source + "/" + strings.TrimPrefix(k.Path, "/")
	}
	if len(s) > maxKeyBytes {
		sum := sha256.Sum256([]byte(s))
		h := hex.EncodeToString(sum[:16])
		s = s[:maxKeyBytes-len(h)-1] + "#" + h
	}
	return s
}

func (k StreamKey) fields() []string {
	return []string{k.Namespace, k.Pod, k.PodUID, k.Container, strconv.Itoa(k.Restart), k.Path, k.Source}
}

func keyOf(fields []string) (StreamKey, bool) {
	if len(fields) != 7 {
		return StreamKey{}, false
	}
	n, err := strconv.Atoi(fields[4])
	if err != nil || n < 0 {
		return StreamKey{}, false
	}
	return StreamKey{
		Namespace: fields[0], Pod: fields[1], PodUID: fields[2], Container: fields[3],
		Restart: n, Path: fields[5], Source: fields[6],
	}, true
}

// Reason is why bytes were lost.
type Reason string

// The reasons. The first four come with a record in the place of the gap; of the others a part is kept.
const (
	RotatedAway Reason = "rotated_away" // the file went before it was read: the process was down
	HeldFull    Reason = "held_full"    // deleted files had more to send than max_held
	Truncated   Reason = "truncated"    // the file was cut before it was read
	Unreadable  Reason = "unreadable"   // a compressed file is damaged
	OversizeCut Reason = "oversize_cut" // the rest of a record over max_record
	Torn        Reason = "torn"         // the remains of a line in front of the next header
)

func reasons() []Reason {
	return []Reason{RotatedAway, HeldFull, Truncated, Unreadable, OversizeCut, Torn}
}

// Loss says that bytes are missing.
type Loss struct {
	Reason Reason
	Bytes  int64 // known to be lost; there may be more
	After  int64 // time of the last record before the gap, ns; 0 when unknown
	Before int64 // time of the first record after the gap, ns; 0 when unknown
}

// Record is a line, or several pieces of one put together.
type Record struct {
	Time     int64 // ns, as the container runtime says; 0 when the line tells none
	Observed int64 // ns, when it was read
	Body     []byte
	// End is the position after the record in its file. It rises within a file; records that came out of one flush of
	// pieces have the same.
	End  uint64
	Size int // of the whole body; more than len(Body) when Truncated
	// Lost is set in a record that stands for a gap; its body says so in words.
	Lost      *Loss
	Stderr    bool
	Truncated bool // longer than max_record; the body is its beginning
	Partial   bool // a record whose end never came
	Torn      bool // the line did not begin with a header: the text of the last one in it, or the line as it is
}

// Chunk is consecutive records of one stream whose ends lie in one file: the unit of acknowledgement. Bodies are valid
// until Send returns.
type Chunk struct {
	Stream   StreamKey
	File     string // name of the file for the backend, at most 32 bytes: the same after rename and gzip
	From, To uint64 // positions before and after the chunk
	Records  []Record
}

// Sink takes chunks. Send returns nil when the chunk is acknowledged by the backend, or durable; it blocks while there
// is back-pressure, and returns an error only when ctx ends. It is called for many streams at once, and never a second
// time for a stream before it has returned. It must not keep the chunk's records or bodies.
type Sink interface {
	Send(ctx context.Context, c Chunk) error
}

// StreamStatus is the state of a stream.
type StreamStatus struct {
	Key     StreamKey
	Files   []string // names as last seen, oldest first; "(deleted)" for one that has no name any more
	Read    int64    // bytes, since the start of the process
	Acked   int64    // bytes, since the start of the process
	Lag     int64    // bytes in files that are not acknowledged; of compressed files the compressed size
	Held    int64    // the part of Lag in files without a name
	Lost    int64    // bytes, since the start of the process, for any reason
	Records int64    // acknowledged since the start of the process
}
