package syslog

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/prometheus/model/labels"
	"golang.org/x/sync/semaphore"

	"github.com/braidobs/braid/ingest"
	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/lifecycle"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

const (
	// gather is how long messages wait for others to be written with.
	gather = 100 * time.Millisecond
	// maxBatch is how many messages are written together.
	maxBatch = 2000
	// maxWaiting is how many bytes of messages may wait to be written.
	maxWaiting = 32 << 20
	// maxMessage is how much of a message is kept; the body is then cut to ingest.MaxLine.
	maxMessage = ingest.MaxLine + 64<<10
	// maxCounted is the largest length that a sender may announce.
	maxCounted = 64 << 20
	// maxConns is how many connections may be open at once.
	maxConns = 1024
	// handshake is how long that of TLS may take.
	handshake = 10 * time.Second
	// overhead is what a message takes beside its bytes.
	overhead = 512
)

// protocol is what metrics call it.
const protocol = "syslog"

// Deps are what a server depends on.
type Deps struct {
	Pipeline *ingest.Pipeline
	Now      func() time.Time
	Log      *slog.Logger
	Metrics  prometheus.Registerer // nil registers nothing
}

// Server receives syslog.
type Server struct {
	Deps
	config  Config
	packets []net.PacketConn
	streams []net.Listener

	queue   chan received
	waiting *semaphore.Weighted // bytes

	mu    sync.Mutex // guards conns; nothing is called under it
	conns map[net.Conn]struct{}

	messages    *prometheus.CounterVec
	dropped     *prometheus.CounterVec
	connections prometheus.Gauge
}

// received is a message on its way to the store.
type received struct {
	record telemetry.LogRecord
	host   string
	app    string
	size   int64
}

// New returns a server that does not listen yet. The configuration must be valid.
func New(c Config, d Deps) *Server {
	f := promauto.With(d.Metrics)
	return &Server{
		Deps: d, config: c, queue: make(chan received, maxBatch), waiting: semaphore.NewWeighted(maxWaiting), conns: make(map[net.Conn]struct{}),
		messages: f.NewCounterVec(prometheus.CounterOpts{
			Name: "braid_syslog_messages_total", Help: "Messages of syslog that arrived.",
		}, []string{"transport"}),
		dropped: f.NewCounterVec(prometheus.CounterOpts{
			Name: "braid_syslog_dropped_total", Help: "Messages and connections of syslog that were dropped: queue_full (datagrams), refused (by the store or a limit), bad_frame, bad_handshake, too_many_connections.",
		}, []string{"reason"}),
		connections: f.NewGauge(prometheus.GaugeOpts{
			Name: "braid_syslog_connections", Help: "Open connections of syslog.",
		}),
	}
}

// Part returns the server as a part of a process; it comes after the store.
func (s *Server) Part() lifecycle.Part {
	return lifecycle.Part{Name: "syslog", Start: s.Listen, Run: s.Serve, Stop: func(context.Context) error { return s.close() }}
}

// Listen takes the addresses.
func (s *Server) Listen(ctx context.Context) error {
	var lc net.ListenConfig
	for _, at := range s.config.Listen {
		transport, addr, _ := strings.Cut(at, "://")
		var err error
		if transport == "udp" {
			var c net.PacketConn
			if c, err = lc.ListenPacket(ctx, "udp", addr); err == nil {
				if u, ok := c.(*net.UDPConn); ok {
					_ = u.SetReadBuffer(4 << 20) // what the system allows of it
				}
				s.packets = append(s.packets, c)
			}
		} else {
			var l net.Listener
			if l, err = lc.Listen(ctx, "tcp", addr); err == nil && transport == "tls" {
				if _, err = s.config.certificate(nil); err == nil {
					l = tls.NewListener(l, &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: s.config.certificate})
				}
			}
			if l != nil {
				s.streams = append(s.streams, l)
			}
		}
		if err != nil {
			return errors.Join(fmt.Errorf("listen on %s: %w", at, err), s.close())
		}
	}
	return nil
}

// Addrs returns the addresses that the server listens on, those of UDP first.
func (s *Server) Addrs() (out []string) {
	for _, c := range s.packets {
		out = append(out, c.LocalAddr().String())
	}
	for _, l := range s.streams {
		out = append(out, l.Addr().String())
	}
	return out
}

func (s *Server) close() error {
	var errs []error
	for _, c := range s.packets {
		errs = append(errs, c.Close())
	}
	for _, l := range s.streams {
		errs = append(errs, l.Close())
	}
	s.packets, s.streams = nil, nil
	for i, err := range errs {
		if errors.Is(err, net.ErrClosed) {
			errs[i] = nil
		}
	}
	return errors.Join(errs...)
}

// Serve receives until ctx ends, then writes what has arrived.
func (s *Server) Serve(ctx context.Context) error {
	var readers, writer sync.WaitGroup
	done := make(chan struct{})
	writer.Go(func() { s.write(ctx, done) })
	for _, c := range s.packets {
		readers.Go(func() { s.datagrams(ctx, c) })
	}
	for _, l := range s.streams {
		readers.Go(func() { s.accept(ctx, l, &readers) })
	}
	<-ctx.Done()
	for _, c := range s.packets {
		_ = c.Close()
	}
	for _, l := range s.streams {
		_ = l.Close()
	}
	s.mu.Lock()
	for c := range s.conns {
		_ = c.Close()
	}
	s.mu.Unlock()
	readers.Wait()
	close(done)
	writer.Wait()
	return nil
}

// datagrams receives over UDP, a message each.
func (s *Server) datagrams(ctx context.Context, c net.PacketConn) {
	var p parser
	buf := make([]byte, 64<<10)
	for ctx.Err() == nil {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue // of a datagram that was sent before
		}
		s.messages.WithLabelValues("udp").Inc()
		r := s.receive(&p, buf[:n], from)
		if !s.waiting.TryAcquire(r.size) {
			s.dropped.WithLabelValues("queue_full").Inc()
			continue
		}
		select {
		case s.queue <- r:
		default:
			s.waiting.Release(r.size)
			s.dropped.WithLabelValues("queue_full").Inc()
		}
	}
}

// accept takes connections.
func (s *Server) accept(ctx context.Context, l net.Listener, readers *sync.WaitGroup) {
	for {
		c, err := l.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) || ctx.Err() != nil {
				return
			}
			t := time.NewTimer(10 * time.Millisecond) // out of file descriptors, say
			select {
			case <-t.C:
			case <-ctx.Done():
			}
			t.Stop()
			continue
		}
		s.mu.Lock()
		full := len(s.conns) >= maxConns || ctx.Err() != nil
		if !full {
			s.conns[c] = struct{}{}
		}
		s.mu.Unlock()
		if full {
			s.dropped.WithLabelValues("too_many_connections").Inc()
			_ = c.Close()
			continue
		}
		s.connections.Inc()
		readers.Go(func() {
			s.connection(ctx, c)
			_ = c.Close()
			s.mu.Lock()
			delete(s.conns, c)
			s.mu.Unlock()
			s.connections.Dec()
		})
	}
}

// connection receives over one connection until it ends.
func (s *Server) connection(ctx context.Context, c net.Conn) {
	transport := "tcp"
	if secure, ok := c.(*tls.Conn); ok {
		transport = "tls"
		early, cancel := context.WithTimeout(ctx, handshake)
		err := secure.HandshakeContext(early)
		cancel()
		if err != nil {
			s.dropped.WithLabelValues("bad_handshake").Inc()
			return
		}
	}
	var p parser
	f := framer{r: bufio.NewReaderSize(c, 64<<10)}
	for {
		b, err := f.next()
		if errors.Is(err, errFrame) {
			s.dropped.WithLabelValues("bad_frame").Inc()
		}
		if len(b) > 0 {
			s.messages.WithLabelValues(transport).Inc()
			r := s.receive(&p, b, c.RemoteAddr())
			if s.waiting.Acquire(ctx, r.size) != nil {
				return
			}
			select {
			case s.queue <- r:
			case <-ctx.Done():
				s.waiting.Release(r.size)
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// receive makes a record of a message.
func (s *Server) receive(p *parser, b []byte, from net.Addr) received {
	now := s.Now()
	b = bytes.TrimRight(b, "\r\n\x00")
	m := p.parse(b, now)
	if m.host == "" && from != nil {
		if host, _, err := net.SplitHostPort(from.String()); err == nil {
			m.host = host
		}
	}
	out := received{host: m.host, app: m.app, size: int64(min(len(b), maxMessage)) + overhead}
	r := &out.record
	r.Time, r.Observed, r.Body = m.time, now.UnixNano(), telemetry.String(m.body)
	if r.Time == 0 {
		r.Time, r.TimeInferred = r.Observed, true
	}
	r.Severity, r.SeverityText = m.severity()
	for _, a := range [...]struct{ key, value string }{{"syslog.facility", m.facility()}, {"syslog.procid", m.procID}, {"syslog.msgid", m.msgID}} {
		if a.value != "" {
			m.data = append(m.data, telemetry.Attr{Key: a.key, Value: telemetry.String(a.value)})
		}
	}
	if len(m.data) > 0 {
		r.Attrs = telemetry.NewAttrs(m.data)
	}
	return out
}

// write writes what arrives, until done is closed and the queue is empty.
func (s *Server) write(ctx context.Context, done <-chan struct{}) {
	var batch []received
	for n := uint64(0); ; n++ {
		batch = batch[:0]
		select {
		case r := <-s.queue:
			batch = append(batch, r)
		case <-done:
			select {
			case r := <-s.queue:
				batch = append(batch, r)
			default:
				return
			}
		}
		t := time.NewTimer(gather)
	more:
		for len(batch) < maxBatch {
			select {
			case r := <-s.queue:
				batch = append(batch, r)
			case <-t.C:
				break more
			case <-ctx.Done(): // what is there already
				select {
				case r := <-s.queue:
					batch = append(batch, r)
				default:
					break more
				}
			}
		}
		t.Stop()
		s.store(ctx, batch)
		for i := range batch {
			s.waiting.Release(batch[i].size)
		}
		clear(batch)
	}
}

// store writes messages and repeats it while the store asks for that.
func (s *Server) store(ctx context.Context, batch []received) {
	var key storage.Key // of no other batch: messages may be equal
	_, _ = rand.Read(key[:])
	bytes := 0
	for i := range batch {
		bytes += int(batch[i].size)
	}
	for {
		rejected, err := s.Pipeline.Write(context.WithoutCancel(ctx), telemetry.DefaultTenant, key, batches(batch), storage.Rejected{})
		if err == nil {
			s.dropped.WithLabelValues("refused").Add(float64(rejected.Total()))
			s.Pipeline.Observe(protocol, storage.Logs, "ok", bytes)
			return
		}
		e := ingest.Classify(err)
		if e == nil {
			e = httpapi.FromError(err)
		}
		s.Pipeline.Observe(protocol, storage.Logs, e.Kind.String(), 0)
		if e.Kind != httpapi.Overloaded || ctx.Err() != nil {
			s.dropped.WithLabelValues("refused").Add(float64(len(batch)))
			s.Log.WarnContext(ctx, "messages of syslog are lost: the store refused them", "messages", len(batch), "err", err)
			return
		}
		t := time.NewTimer(max(e.RetryAfter, gather))
		select {
		case <-t.C:
		case <-ctx.Done():
		}
		t.Stop()
	}
}

// batches groups messages by host and app.
func batches(in []received) []telemetry.Batch {
	type producer struct{ host, app string }
	known := make(map[producer]int)
	var out []telemetry.Batch
	for i := range in {
		p := producer{in[i].host, in[i].app}
		at, ok := known[p]
		if !ok {
			at = len(out)
			known[p] = at
			app := p.app
			if app == "" {
				app = ingest.UnknownService
			}
			var as []telemetry.Attr
			if p.host != "" {
				as = append(as, telemetry.Attr{Key: "host.name", Value: telemetry.String(p.host)})
			}
			if p.app != "" {
				as = append(as, telemetry.Attr{Key: "service.name", Value: telemetry.String(p.app)})
			}
			b := telemetry.Batch{Stream: ingest.Stream([]labels.Label{{Name: ingest.ServiceName, Value: app}, {Name: "host", Value: p.host}})}
			if as != nil {
				b.Resource = telemetry.NewResource("", as)
			}
			out = append(out, b)
		}
		r := in[i].record
		out[at].Logs = append(out[at].Logs, r)
	}
	return out
}

// errFrame is the error of a length that no message has.
var errFrame = errors.New("malformed frame")

// framer finds messages in a stream: those with their length before them (octet counting), and lines.
type framer struct {
	r   *bufio.Reader
	buf []byte
}

// next returns the next message, which is valid until the one after it. With an error it may be the last.
func (f *framer) next() ([]byte, error) {
	f.buf = f.buf[:0]
	for {
		c, err := f.r.ReadByte()
		if err != nil {
			return nil, err
		}
		if c == '\n' || c == '\r' || c == 0 || c == ' ' { // between messages
			continue
		}
		if err := f.r.UnreadByte(); err != nil {
			return nil, err
		}
		break
	}
	n, ok, err := f.length()
	switch {
	case err != nil:
		return f.buf, err
	case !ok:
		return f.line()
	}
	keep := min(n, maxMessage)
	f.buf = append(f.buf[:0], make([]byte, min(keep, 64<<10))...)
	for got := 0; got < keep; { // memory is taken as bytes come
		if got == len(f.buf) {
			f.buf = append(f.buf, make([]byte, min(len(f.buf), keep-got))...)
		}
		k, err := io.ReadFull(f.r, f.buf[got:min(len(f.buf), keep)])
		got += k
		if err != nil {
			return f.buf[:got], err
		}
	}
	_, err = io.CopyN(io.Discard, f.r, int64(n-keep))
	return f.buf[:keep], err
}

// length reads the length before a message. Without one the bytes that were looked at are in f.buf.
func (f *framer) length() (n int, ok bool, err error) {
	for {
		c, err := f.r.ReadByte()
		if err != nil {
			return 0, false, err
		}
		if c-'0' > 9 || len(f.buf) == 0 && c == '0' {
			if c == ' ' && len(f.buf) > 0 {
				if after, err := f.r.Peek(1); err == nil && after[0] == '<' {
					if n > maxCounted {
						f.buf = f.buf[:0]
						return 0, false, errFrame
					}
					return n, true, nil
				}
			}
			f.buf = append(f.buf, c)
			return 0, false, nil
		}
		f.buf = append(f.buf, c)
		if n = n*10 + int(c-'0'); len(f.buf) > 10 {
			return 0, false, nil
		}
	}
}

// line reads up to the end of the line.
func (f *framer) line() ([]byte, error) {
	if n := len(f.buf); n > 0 && f.buf[n-1] == '\n' {
		return f.buf, nil
	}
	for {
		part, err := f.r.ReadSlice('\n')
		if room := maxMessage - len(f.buf); len(part) > room {
			f.buf = append(f.buf, part[:room]...)
		} else {
			f.buf = append(f.buf, part...)
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		return f.buf, err
	}
}
