package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/klauspost/compress/s2"
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
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(packed))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", "application/x-protobuf")
		req.Header.Set("Content-Encoding", "snappy")
		req.Header.Set("X-Prometheus-Remote-Write-Version", "0.1.0")
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		text, err := io.ReadAll(io.LimitReader(resp.Body, 1000))
		_ = resp.Body.Close()
		switch {
		case err != nil:
			return err
		case resp.StatusCode/100 == 2:
			return nil
		case resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode/100 != 5:
			return fmt.Errorf("write: status %d: %s", resp.StatusCode, text)
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
