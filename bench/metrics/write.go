package main

import (
	"context"
	"errors"
	"net/http"
	"sync"

	"github.com/klauspost/compress/s2"

	"github.com/braidobs/braid/bench/harness"
)

// send writes the whole load to a remote write endpoint: each sender has pods of its own, whose samples it sends in
// the order of time.
func (l load) send(ctx context.Context, client *http.Client, url string) error {
	errs := make([]error, l.senders)
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for i := range l.senders {
		wg.Go(func() {
			if errs[i] = l.sendPart(ctx, client, url, i); errs[i] != nil {
				cancel()
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// sendPart sends the pods of one sender.
func (l load) sendPart(ctx context.Context, client *http.Client, url string, sender int) error {
	var pods []*pod
	generation := -1
	var body, packed []byte
	flush := func() error {
		if len(body) == 0 {
			return nil
		}
		packed = s2.EncodeSnappy(packed[:cap(packed)], body)
		body = body[:0]
		return post(ctx, client, url, packed)
	}
	for n := range l.scrapes() {
		t := l.at(n)
		if g := n * l.generations / l.scrapes(); g != generation {
			generation, pods = g, pods[:0]
			for i := sender; i < l.pods; i += l.senders {
				pods = append(pods, newPod(l.seed, i, g, t))
			}
		}
		held := 0
		for _, p := range pods {
			p.step(t)
			body = p.appendTo(body, t.UnixMilli())
			if held += len(p.series); held+seriesOfPod > l.batch {
				if err := flush(); err != nil {
					return err
				}
				held = 0
			}
		}
		if err := flush(); err != nil {
			return err
		}
	}
	return nil
}

// post sends until it is accepted.
func post(ctx context.Context, client *http.Client, url string, packed []byte) error {
	return harness.Send(ctx, client, url, http.Header{
		"Content-Type": {"application/x-protobuf"}, "Content-Encoding": {"snappy"}, "X-Prometheus-Remote-Write-Version": {"0.1.0"},
	}, packed)
}
