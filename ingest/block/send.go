package block

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/s2"

	"github.com/braidobs/braid/ingest"
	"github.com/braidobs/braid/ingest/remotewrite"
	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
)

const (
	// attempts is how often a request is sent before the import gives up; the pauses grow to half a minute.
	attempts   = 20
	maxPause   = 30 * time.Second
	saveEvery  = time.Second
	reportEach = 5 * time.Second
)

// send sends the request, which ends at a position, until it is acknowledged, and begins the next.
func (im *importer) send(ctx context.Context, f found, to uint64) error {
	if im.samples == 0 {
		return nil
	}
	im.req.Symbols = im.symbols.Symbols()
	body, err := im.req.Marshal()
	if err != nil {
		return fmt.Errorf("encode a request: %w", err)
	}
	im.packed = s2.EncodeSnappy(im.packed[:cap(im.packed)], body)
	source := ingest.FormatSource(telemetry.Source{Stream: stream, File: f.id, From: im.from, To: to})
	pause := time.Second / 4
	for n := 1; ; n++ {
		wait, err := im.post(ctx, source)
		if err == nil {
			break
		}
		var again *retryable
		if !errors.As(err, &again) || n == attempts {
			return err
		}
		if err := sleep(ctx, max(wait, pause)); err != nil {
			return err
		}
		pause = min(2*pause, maxPause)
	}
	im.state[f.id] = progress{Samples: to}
	im.begin(to)
	now := im.o.Now()
	if now.Sub(im.told) >= reportEach {
		im.told = now
		fmt.Fprintf(im.o.Out, "  %d of %d samples\n", to, f.meta.Stats.NumSamples)
	}
	if now.Sub(im.saved) >= saveEvery {
		return im.save()
	}
	return nil
}

// retryable is an error that may be gone after a while.
type retryable struct{ err error }

// Error tells the cause.
func (r *retryable) Error() string { return r.err.Error() }

// Unwrap returns the cause.
func (r *retryable) Unwrap() error { return r.err }

// post sends the request once. With a retryable error it returns how long the server asks to wait.
func (im *importer) post(ctx context.Context, source string) (time.Duration, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(im.o.URL, "/")+remotewrite.ImportPath, bytes.NewReader(im.packed))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", "application/x-protobuf;proto=io.prometheus.write.v2.Request")
	req.Header.Set("Content-Encoding", "snappy")
	req.Header.Set(ingest.SourceHeader, source)
	if im.o.Tenant != "" {
		req.Header.Set(httpapi.TenantHeader, im.o.Tenant)
	}
	resp, err := im.o.Client.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		return 0, &retryable{err}
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
	if err != nil {
		return 0, &retryable{err}
	}
	message := strings.TrimSpace(string(text))
	switch {
	case resp.StatusCode/100 == 2:
		return 0, nil
	case resp.StatusCode == http.StatusBadRequest && resp.Header.Get(remotewrite.Refused) != "": // the rest is stored
		n, err := strconv.ParseUint(resp.Header.Get(remotewrite.Refused), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("the server answers with a header %s that is no number: %w", remotewrite.Refused, err)
		}
		im.totals.Refused += n
		im.totals.Reason = message
		return 0, nil
	case resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode/100 == 5:
		seconds, _ := strconv.Atoi(resp.Header.Get("Retry-After")) // 0 when it is not told
		return time.Duration(seconds) * time.Second, &retryable{fmt.Errorf("the server answers %s: %s", resp.Status, message)}
	default:
		return 0, fmt.Errorf("the server answers %s: %s", resp.Status, message)
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
