package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"
)

// Send posts a body until the server accepts it: one that is overloaded is asked again.
func Send(ctx context.Context, client *http.Client, url string, header http.Header, body []byte) error {
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
		if err != nil {
			return err
		}
		req.Header = header
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
			return fmt.Errorf("status %d: %s", resp.StatusCode, text)
		}
		if err := Sleep(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}

// Sleep waits, or until ctx ends.
func Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// Fetch returns the body of an answer of 200 to 299.
func Fetch(ctx context.Context, client *http.Client, method, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode/100 != 2 {
		return nil, fmt.Errorf("%s: status %d: %s", req.URL.Path, resp.StatusCode, b[:min(len(b), 300)])
	}
	return b, nil
}

// Flushed waits until a Braid has no records of a signal ("logs") in memory.
func (s *Server) Flushed(ctx context.Context, signal string) error {
	for {
		left, err := s.Metric(ctx, "braid_storage_head_records", `signal="`+signal+`"`)
		if err != nil || left == 0 {
			return err
		}
		if Sleep(ctx, 500*time.Millisecond) != nil {
			return errors.New("the head was not written in time")
		}
	}
}

// Calm waits until the process takes no more than idle of CPU in each of three seconds: until it has done what it does
// after writes.
func (s *Server) Calm(ctx context.Context, idle time.Duration) error {
	last, err := s.Usage()
	if err != nil {
		return err
	}
	for calm := 0; calm < 3; {
		if Sleep(ctx, time.Second) != nil {
			return errors.New("the process did not become calm in time")
		}
		u, err := s.Usage()
		if err != nil {
			return err
		}
		if calm++; u.CPU-last.CPU > idle {
			calm = 0
		}
		last = u
	}
	return nil
}

// Cost is what a question took.
type Cost struct {
	CPU     time.Duration // of the server, for one
	Latency time.Duration // the median
	Tail    time.Duration // nine of ten were as fast
	Answer  []byte        // of the first
	Err     error
}

// Measure asks a question until the CPU that it takes can be told: the clock of a process ticks every 10 ms. It is asked
// for the n-th time least times at least, and most times at most.
func (s *Server) Measure(ctx context.Context, least, most int, ask func(ctx context.Context, n int) ([]byte, error)) Cost {
	answer, err := ask(ctx, 0)
	if err != nil {
		return Cost{Err: err}
	}
	before, err := s.Usage()
	if err != nil {
		return Cost{Err: err}
	}
	var took []time.Duration
	total := time.Duration(0)
	for n := 1; n <= least || total < 1500*time.Millisecond && n <= most; n++ {
		began := time.Now()
		if _, err := ask(ctx, n); err != nil {
			return Cost{Err: err}
		}
		took = append(took, time.Since(began))
		total += took[len(took)-1]
	}
	after, err := s.Usage()
	if err != nil {
		return Cost{Err: err}
	}
	slices.Sort(took)
	return Cost{
		CPU: (after.CPU - before.CPU) / time.Duration(len(took)), Latency: took[len(took)/2], Tail: took[len(took)*9/10], Answer: answer,
	}
}
