package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/klauspost/compress/s2"

	"github.com/braidobs/braid/bench/harness"
)

// sent is what was written.
type sent struct {
	lines, bytes int64
	traceID      string // of a line in the middle
	needleAt     time.Time
}

// send pushes the whole load: each sender has pods of its own, whose lines it sends in the order of time.
func (l *load) send(ctx context.Context, client *http.Client, url string) (sent, error) {
	errs := make([]error, l.senders)
	all := make([]sent, l.senders)
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for i := range l.senders {
		wg.Go(func() {
			if all[i], errs[i] = l.sendPart(ctx, client, url, i); errs[i] != nil {
				cancel()
			}
		})
	}
	wg.Wait()
	var sum sent
	for _, s := range all {
		sum.lines, sum.bytes = sum.lines+s.lines, sum.bytes+s.bytes
		if s.traceID != "" {
			sum.traceID = s.traceID
		}
		if !s.needleAt.IsZero() {
			sum.needleAt = s.needleAt
		}
	}
	return sum, errors.Join(errs...)
}

// sendPart sends the lines of one sender's pods: a few of a pod at a time, as a node agent does.
func (l *load) sendPart(ctx context.Context, client *http.Client, url string, sender int) (s sent, err error) {
	w := newWriter(l, sender)
	var pods [][2]int
	for i := sender; i < streams; i += l.senders {
		pods = append(pods, [2]int{i % apps, i / apps})
	}
	perPod := l.lines / streams
	step := l.duration / time.Duration(max(perPod, 1))
	const run = 20 // lines of a pod that follow each other in a request
	var body, stream, packed []byte
	text := 0
	flush := func() error {
		if text == 0 {
			return nil
		}
		packed = s2.EncodeSnappy(packed[:cap(packed)], body)
		body, text = body[:0], 0
		return harness.Send(ctx, client, url, http.Header{"Content-Type": {"application/x-protobuf"}}, packed)
	}
	begin := l.end.Add(-l.duration)
	for from := 0; from < perPod; from += run {
		for _, p := range pods {
			stream = appendBytes(stream[:0], 1, []byte(labelsOf(p[0], p[1])))
			for n := from; n < min(from+run, perPod); n++ {
				at := begin.Add(time.Duration(n)*step + time.Duration(w.rng.Int64N(int64(step)+1)))
				line := w.line(p[0], p[1], at)
				middle := n == perPod/2 && p[0] == 0
				if middle && sender == 0 && s.needleAt.IsZero() {
					line = append(line[:len(line)-1], `,"note":"`+needleWord+`"}`...)
					s.needleAt = at
				}
				if i := bytes.Index(line, []byte(`"trace_id":"`)); i >= 0 && n >= perPod/2 && s.traceID == "" {
					s.traceID = string(line[i+12 : i+44])
				}
				stream = appendEntry(stream, at, line)
				text += len(line)
				s.lines++
				s.bytes += int64(len(line)) + 1
			}
			body = appendBytes(body, 1, stream)
			if text >= l.request {
				if err := flush(); err != nil {
					return s, err
				}
			}
		}
	}
	return s, flush()
}

func appendBytes(dst []byte, field int, b []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(field<<3|2))
	dst = binary.AppendUvarint(dst, uint64(len(b)))
	return append(dst, b...)
}

// appendEntry appends an entry of a stream: its time and its line.
func appendEntry(dst []byte, at time.Time, line []byte) []byte {
	var stamp [24]byte
	ts := binary.AppendUvarint(append(stamp[:0], 1<<3), uint64(at.Unix()))
	ts = binary.AppendUvarint(append(ts, 2<<3), uint64(at.Nanosecond()))
	n := 1 + 1 + len(ts) + 1 + uvarintLen(len(line)) + len(line)
	dst = binary.AppendUvarint(append(dst, 2<<3|2), uint64(n))
	dst = append(append(dst, 1<<3|2, byte(len(ts))), ts...)
	return appendBytes(dst, 2, line)
}

func uvarintLen(n int) int {
	l := 1
	for n >= 0x80 {
		n >>= 7
		l++
	}
	return l
}
