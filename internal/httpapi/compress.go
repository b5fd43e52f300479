package httpapi

import (
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip"
)

// minCompress is the size from which an answer is worth compressing.
const minCompress = 1 << 10

// Compression compresses answers with gzip when the client accepts it and they are text, JSON or protobuf of at
// least a kilobyte. Answers that are flushed before that are compressed as well, and arrive when they are flushed.
func Compression() Middleware {
	var pool sync.Pool // of *gzip.Writer
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Add("Vary", "Accept-Encoding")
			if r.Method == http.MethodHead || !acceptsGzip(r.Header.Values("Accept-Encoding")) {
				next.ServeHTTP(w, r)
				return
			}
			c := &compressor{ResponseWriter: w, pool: &pool}
			defer c.release()
			next.ServeHTTP(c, r)
			c.close() // not after a panic: an answer that is cut off must not look whole
		})
	}
}

// acceptsGzip says whether the header allows gzip.
func acceptsGzip(values []string) bool {
	star := false
	for part := range strings.SplitSeq(strings.Join(values, ","), ",") {
		name, params, _ := strings.Cut(part, ";")
		ok := true
		if q, found := strings.CutPrefix(strings.ReplaceAll(params, " ", ""), "q="); found {
			f, err := strconv.ParseFloat(q, 64)
			ok = err == nil && f > 0
		}
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "gzip":
			return ok
		case "*":
			star = ok
		}
	}
	return star
}

// compressor holds an answer back until it is known whether it is worth compressing.
type compressor struct {
	http.ResponseWriter
	pool    *sync.Pool
	code    int // 0 until the handler wrote a header
	decided bool
	buf     []byte
	gz      *gzip.Writer // nil until decided, and when not compressing
}

// WriteHeader holds the code back.
func (c *compressor) WriteHeader(code int) {
	if code < 200 {
		c.ResponseWriter.WriteHeader(code)
		return
	}
	if c.code == 0 {
		c.code = code
	}
}

// Write writes b, now or later.
func (c *compressor) Write(b []byte) (int, error) {
	if c.code == 0 {
		c.code = http.StatusOK
	}
	if !c.decided {
		if len(c.buf)+len(b) < minCompress {
			c.buf = append(c.buf, b...)
			return len(b), nil
		}
		if err := c.decide(true, b); err != nil {
			return 0, err
		}
	}
	if c.gz != nil {
		return c.gz.Write(b)
	}
	return c.ResponseWriter.Write(b)
}

// decide writes the header and what was held back. The sample is what follows.
func (c *compressor) decide(large bool, sample []byte) error {
	c.decided = true
	h := c.Header()
	if h.Get("Content-Type") == "" && len(c.buf)+len(sample) > 0 {
		h.Set("Content-Type", http.DetectContentType(append(slices.Clip(c.buf), sample...)))
	}
	if c.code == 0 {
		c.code = http.StatusOK
	}
	body := c.code != http.StatusNoContent && c.code != http.StatusNotModified && c.code != http.StatusPartialContent
	if large && body && h.Get("Content-Encoding") == "" && compressible(h.Get("Content-Type")) {
		h.Set("Content-Encoding", "gzip")
		h.Del("Content-Length")
		if etag := h.Get("ETag"); etag != "" && !strings.HasPrefix(etag, "W/") {
			h.Set("ETag", "W/"+etag)
		}
		c.gz, _ = c.pool.Get().(*gzip.Writer)
		if c.gz == nil {
			c.gz, _ = gzip.NewWriterLevel(nil, gzip.BestSpeed) // the level is valid
		}
		c.gz.Reset(c.ResponseWriter)
	}
	c.ResponseWriter.WriteHeader(c.code)
	if len(c.buf) == 0 {
		return nil
	}
	var err error
	if c.gz != nil {
		_, err = c.gz.Write(c.buf)
	} else {
		_, err = c.ResponseWriter.Write(c.buf)
	}
	c.buf = nil
	return err
}

// Flush sends what was written so far.
func (c *compressor) Flush() { _ = c.FlushError() }

// FlushError is Flush for http.ResponseController.
func (c *compressor) FlushError() error {
	var errs []error
	if !c.decided {
		errs = append(errs, c.decide(true, nil))
	}
	if c.gz != nil {
		errs = append(errs, c.gz.Flush())
	}
	return errors.Join(append(errs, http.NewResponseController(c.ResponseWriter).Flush())...)
}

// Unwrap is for http.ResponseController.
func (c *compressor) Unwrap() http.ResponseWriter { return c.ResponseWriter }

// close ends the answer.
func (c *compressor) close() {
	if !c.decided {
		if c.code == 0 && len(c.buf) == 0 {
			return // the server writes the header
		}
		_ = c.decide(false, nil) // the client is gone
	}
	if c.gz != nil {
		_ = c.gz.Close()
	}
}

func (c *compressor) release() {
	if c.gz != nil {
		c.gz.Reset(nil)
		c.pool.Put(c.gz)
		c.gz = nil
	}
}

func compressible(contentType string) bool {
	t, _, _ := strings.Cut(contentType, ";")
	t = strings.ToLower(strings.TrimSpace(t))
	switch t {
	case "application/json", "application/x-ndjson", "application/javascript", "application/xml", "image/svg+xml",
		"application/protobuf", "application/x-protobuf", "application/openmetrics-text":
		return true
	}
	return strings.HasPrefix(t, "text/") || strings.HasSuffix(t, "+json")
}
