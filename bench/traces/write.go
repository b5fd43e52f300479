package main

import (
	"context"
	"encoding/binary"
	"net/http"

	"golang.org/x/sync/errgroup"

	"github.com/braidobs/braid/bench/harness"
)

// sent is what was written.
type sent struct {
	spans, bytes int64
	ids          [][16]byte // of some traces
	sizes        []int      // of those, in spans
	truth        []count    // by question
}

// count is how many spans and traces answer a question.
type count struct{ spans, traces int64 }

// batch is the spans of one node that wait for the next request: by pod and scope.
type batch struct {
	spans int
	of    map[[2]int][]byte
}

// send sends the whole load: spans wait on their node until there are enough for a request, so that the spans of a trace
// come in several.
func (l *load) send(ctx context.Context, client *http.Client, url string) (sent, error) {
	s := newShop()
	out := sent{truth: make([]count, len(questions()))}
	var waiting [nodes]batch
	bodies := make(chan []byte, l.senders)
	g, ctx := errgroup.WithContext(ctx)
	for range l.senders {
		g.Go(func() error {
			for b := range bodies {
				if err := harness.Send(ctx, client, url, http.Header{"Content-Type": {"application/x-protobuf"}}, b); err != nil {
					return err
				}
			}
			return nil
		})
	}
	g.Go(func() error {
		defer close(bodies)
		flush := func(b *batch) error {
			if b.spans == 0 {
				return nil
			}
			body := b.encode(s)
			out.bytes += int64(len(body))
			*b = batch{}
			select {
			case bodies <- body:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		var t trace
		var buf []byte
		for n := range l.traces {
			l.trace(s, n, &t)
			out.look(&t)
			if n%max(l.traces/2000, 1) == 0 {
				out.ids, out.sizes = append(out.ids, t.id), append(out.sizes, len(t.spans))
			}
			for i := range t.spans {
				p := &t.spans[i]
				buf = p.appendOTLP(buf[:0], &t)
				b := &waiting[s.node[p.pod]]
				if b.of == nil {
					b.of = make(map[[2]int][]byte)
				}
				k := [2]int{p.pod, p.scope}
				b.of[k] = appendBytes(b.of[k], 2, string(buf))
				if b.spans++; b.spans >= l.request {
					if err := flush(b); err != nil {
						return err
					}
				}
			}
		}
		for i := range waiting {
			if err := flush(&waiting[i]); err != nil {
				return err
			}
		}
		return nil
	})
	return out, g.Wait()
}

// encode returns the batch as a request of OTLP.
func (b *batch) encode(s *shop) []byte {
	byPod := make(map[int][]byte)
	for k, spans := range b.of {
		scope := appendBytes(nil, 1, string(appendBytes(nil, 1, scopes()[k[1]])))
		byPod[k[0]] = appendBytes(byPod[k[0]], 2, string(append(scope, spans...)))
	}
	var body []byte
	for pod, spans := range byPod {
		res := appendBytes(nil, 1, string(s.resource[pod]))
		body = binary.AppendUvarint(append(body, 1<<3|2), uint64(len(res)+len(spans)))
		body = append(append(body, res...), spans...)
	}
	return body
}

// look counts what answers the questions.
func (s *sent) look(t *trace) {
	s.spans += int64(len(t.spans))
	for q, question := range questions() {
		if question.match == nil {
			continue
		}
		if n := question.match(t); n > 0 {
			s.truth[q].spans += int64(n)
			s.truth[q].traces++
		}
	}
}
