package lines_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"time"
)

// rows are lines with the times of their entries.
type rows struct {
	lines []string
	times []int64
}

func (r *rows) bytes() int {
	n := 0
	for _, l := range r.lines {
		n += len(l) + 1
	}
	return n
}

// source writes lines of one kind, like one stream of logs.
type source struct {
	r    *rand.Rand
	at   time.Time
	app  string
	pods []string
	hex  func(n int) string
	n    int
}

const start = 1_760_000_000

func newSource(seed uint64) *source {
	r := rand.New(rand.NewPCG(seed, 7))
	s := &source{r: r, at: time.Unix(start, 0).UTC()}
	s.hex = func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = "0123456789abcdef"[r.IntN(16)]
		}
		return string(b)
	}
	s.app = s.pick("checkout", "cart", "payment", "search", "frontend")
	for range 4 {
		s.pods = append(s.pods, s.app+"-"+s.hex(10)+"-"+s.token(5))
	}
	return s
}

func (s *source) pick(of ...string) string { return of[s.r.IntN(len(of))] }

func (s *source) token(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = "bcdfghjklmnpqrstvwxz2456789"[s.r.IntN(27)]
	}
	return string(b)
}

func (s *source) uuid() string {
	return s.hex(8) + "-" + s.hex(4) + "-4" + s.hex(3) + "-a" + s.hex(3) + "-" + s.hex(12)
}

func (s *source) ip() string {
	return fmt.Sprintf("10.%d.%d.%d", s.r.IntN(4), s.r.IntN(256), s.r.IntN(256))
}

func (s *source) ms() float64 { return math.Round(math.Exp(s.r.NormFloat64()+3)*1000) / 1000 }

func (s *source) path() string {
	switch s.r.IntN(6) {
	case 0:
		return fmt.Sprintf("/api/v1/users/%d", s.r.IntN(100_000))
	case 1:
		return fmt.Sprintf("/api/v1/orders/%d/items", s.r.IntN(1_000_000))
	case 2:
		return fmt.Sprintf("/static/app.%s.js", s.pick("3fa9c1", "77b0de", "a1b2c3"))
	default:
		return s.pick("/api/v1/cart", "/api/v1/products", "/healthz", "/api/v1/recommendations", "/login")
	}
}

func (s *source) status() int {
	if s.r.IntN(20) == 0 {
		return []int{400, 401, 404, 429, 500, 502, 503}[s.r.IntN(7)]
	}
	return 200
}

func (s *source) level() string {
	if s.r.IntN(12) == 0 {
		return s.pick("error", "warn", "debug")
	}
	return "info"
}

// jsonLine is a line of an application.
func (s *source) jsonLine(at time.Time) string {
	trace := ""
	if s.r.IntN(20) == 0 {
		trace = fmt.Sprintf(`,"trace_id":%q,"span_id":%q`, s.hex(32), s.hex(16))
	}
	stamp := at.Format("2006-01-02T15:04:05.000000Z")
	switch s.r.IntN(4) {
	case 0:
		return fmt.Sprintf(`{"time":%q,"level":%q,"msg":"request handled","service":%q,"pod":%q,"method":%q,"path":%q,"status":%d,"duration_ms":%v,"bytes":%d,"user_id":%d%s}`,
			stamp, s.level(), s.app, s.pods[s.r.IntN(4)], s.pick("GET", "GET", "POST"), s.path(), s.status(), s.ms(), s.r.IntN(60_000), s.r.IntN(100_000), trace)
	case 1:
		return fmt.Sprintf(`{"time":%q,"level":%q,"msg":"cache lookup for key user:%d took %dus","service":%q,"pod":%q,"hit":%v%s}`,
			stamp, s.level(), s.r.IntN(100_000), s.r.IntN(3000), s.app, s.pods[s.r.IntN(4)], s.r.IntN(3) > 0, trace)
	case 2:
		return fmt.Sprintf(`{"time":%q,"level":%q,"msg":"order %d confirmed, total %d.%02d EUR","service":%q,"order":{"id":%q,"items":%d},"tags":["new","web"]%s}`,
			stamp, s.level(), 1_000_000+s.n, s.r.IntN(900), s.r.IntN(100), s.app, s.uuid(), 1+s.r.IntN(9), trace)
	default:
		return fmt.Sprintf(`{"time":%q,"level":"warn","msg":"retrying upstream","upstream":"%s:8080","attempt":%d,"error":"dial tcp %s:8080: connect: connection refused","service":%q%s}`,
			stamp, s.ip(), 1+s.r.IntN(5), s.ip(), s.app, trace)
	}
}

func (s *source) accessLine(at time.Time) string {
	return fmt.Sprintf(`%s - - [%s] "%s %s HTTP/1.1" %d %d "%s" "%s" %.3f`,
		s.ip(), at.Format("02/Jan/2006:15:04:05 -0700"), s.pick("GET", "GET", "GET", "POST"), s.path(), s.status(), s.r.IntN(80_000),
		s.pick("-", "https://shop.example.com/", "https://shop.example.com/cart"),
		s.pick("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36", "curl/8.5.0", "Go-http-client/2.0", "Mozilla/5.0 (iPhone; CPU iPhone OS 17_2 like Mac OS X)"), s.ms()/1000)
}

func (s *source) klogLine(at time.Time) string {
	head := s.pick("I", "I", "I", "W", "E") + at.Format("0102 15:04:05.000000") + fmt.Sprintf(" %7d ", 1200+s.r.IntN(3))
	switch s.r.IntN(3) {
	case 0:
		return head + fmt.Sprintf(`reconciler_common.go:%d] "operationExecutor.VerifyControllerAttachedVolume started for volume" volume="kube-api-access-%s" pod="default/%s"`, 200+s.r.IntN(3), s.token(5), s.pods[s.r.IntN(4)])
	case 1:
		return head + fmt.Sprintf(`kubelet.go:2424] "SyncLoop (PLEG): event for pod" pod="default/%s" event={"ID":%q,"Type":"ContainerStarted","Data":%q}`, s.pods[s.r.IntN(4)], s.uuid(), s.hex(64))
	default:
		return head + fmt.Sprintf(`httplog.go:132] "HTTP" verb=%q URI=%q latency="%vms" userAgent="kube-probe/1.29" srcIP="%s:%d" resp=%d`, s.pick("GET", "LIST", "WATCH"), s.path(), s.ms(), s.ip(), 30_000+s.r.IntN(30_000), s.status())
	}
}

func (s *source) javaLine(at time.Time) string {
	stamp := at.Format("2006-01-02 15:04:05,000")
	switch s.r.IntN(5) {
	case 0:
		return fmt.Sprintf("%s ERROR [http-nio-8080-exec-%d] c.e.s.%sController - Unhandled exception\njava.lang.IllegalStateException: order %d not found\n\tat com.example.shop.OrderService.find(OrderService.java:%d)\n\tat com.example.shop.OrderController.get(OrderController.java:%d)\n\tat java.base/java.lang.Thread.run(Thread.java:1583)",
			stamp, s.r.IntN(20), s.pick("Order", "Cart"), s.r.IntN(1_000_000), 100+s.r.IntN(5), 40+s.r.IntN(5))
	case 1:
		return fmt.Sprintf("%s DEBUG [pool-%d-thread-%d] o.h.SQL - select o.id, o.total from orders o where o.id=%d", stamp, s.r.IntN(3), s.r.IntN(16), s.r.IntN(1_000_000))
	default:
		return fmt.Sprintf("%s INFO  [http-nio-8080-exec-%d] c.e.s.%sService - Processed order id=%d user=%s in %d ms", stamp, s.r.IntN(20), s.pick("Order", "Cart", "Payment"), s.r.IntN(1_000_000), s.pick("alice", "bob", "carol", "dave"), s.r.IntN(400))
	}
}

func (s *source) hexLine(at time.Time) string {
	return fmt.Sprintf("ts=%s level=%s msg=\"object stored\" key=%s/%s etag=%s request=%s size=%d dur=%vms",
		at.Format(time.RFC3339Nano), s.level(), s.pick("blobs", "parts"), s.uuid(), s.hex(32), s.token(22), s.r.IntN(1<<20), s.ms())
}

func (s *source) textLine(time.Time) string {
	words := strings.Fields("the quick connection to upstream was closed before response headers reached client while reading from backend pool with retry budget exhausted by caller")
	var b []string
	for range 5 + s.r.IntN(12) {
		b = append(b, words[s.r.IntN(len(words))])
	}
	return strings.Join(b, " ")
}

// kinds are the kinds of lines by name.
func kinds() map[string]func(*source, time.Time) string {
	return map[string]func(*source, time.Time) string{
		"json": (*source).jsonLine, "access": (*source).accessLine, "klog": (*source).klogLine,
		"java": (*source).javaLine, "hex": (*source).hexLine, "text": (*source).textLine,
	}
}

// generate returns n lines of a kind. Entries are a little later than the timestamps in the lines.
func generate(kind string, seed uint64, n int) *rows {
	s := newSource(seed)
	out := &rows{}
	line := kinds()[kind]
	for range n {
		s.n++
		s.at = s.at.Add(time.Duration(s.r.ExpFloat64() * 5e6))
		out.lines = append(out.lines, line(s, s.at))
		out.times = append(out.times, s.at.UnixNano()+int64(s.r.IntN(300_000)))
	}
	return out
}
