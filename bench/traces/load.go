package main

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"
)

// plan says what the operations of a shop of 21 services call: a line for each, "service METHOD route: calls". A call is
// service.n, the n-th operation of a service (from 0); db, cache or queue>service.n, a message that it consumes. One with a
// question mark happens every other time.
const plan = `
gateway GET /: frontend.0
gateway GET /product/{id}: frontend.1
gateway POST /cart: frontend.2
gateway POST /checkout: frontend.3
gateway GET /search: frontend.4
frontend GET /: catalog.0 recommend.0 ads.0? currency.0
frontend GET /product/{id}: catalog.1 review.0 recommend.0? inventory.0 currency.0
frontend POST /cart: auth.0 cart.0 catalog.1
frontend POST /checkout: auth.0 checkout.0
frontend GET /search: search.0 ads.0? currency.0
catalog GET /api/products: cache db? pricing.0?
catalog GET /api/products/{id}: cache db pricing.0
recommend GET /api/recommendations: user.0? cache catalog.0?
ads GET /api/ads: cache
currency GET /api/rates: cache
review GET /api/reviews/{id}: db
inventory GET /api/stock/{id}: db
inventory POST /api/reserve: db db
auth POST /api/verify: user.0 cache
user GET /api/users/{id}: db?
cart POST /api/items: cache cache db
cart GET /api/items: cache db?
pricing GET /api/prices/{id}: cache db?
search GET /api/search: catalog.0 db
checkout POST /api/orders: cart.1 inventory.1 quote.0 payment.0 shipping.0 queue>notification.0 queue>ledger.0
quote POST /api/quote: currency.0 pricing.0
payment POST /api/charge: fraud.0 db
fraud POST /api/score: cache user.0?
shipping POST /api/ship: db quote.0?
notification CONSUME orders: email.0 db
email POST /api/mail: db?
ledger CONSUME orders: db db
`

// operation is one line of the plan.
type operation struct {
	service string
	method  string
	route   string
	calls   []call
}

// call is one call of an operation.
type call struct {
	what string // "db", "cache", "queue" or "service"
	to   *operation
	half bool // every other time
}

// shop is what sends traces.
type shop struct {
	roots    []*operation
	services []string
	pods     map[string][]int // of a service: their numbers
	resource [][]byte         // of a pod, as OTLP
	node     []int            // of a pod
}

const (
	pods  = 108
	nodes = 12
)

// newShop reads the plan.
func newShop() *shop {
	s := &shop{pods: make(map[string][]int)}
	ops := make(map[string][]*operation)
	lines := strings.Split(strings.TrimSpace(plan), "\n")
	for _, l := range lines {
		head, _, _ := strings.Cut(l, ":")
		f := strings.Fields(head)
		if ops[f[0]] == nil {
			s.services = append(s.services, f[0])
		}
		ops[f[0]] = append(ops[f[0]], &operation{service: f[0], method: f[1], route: f[2]})
	}
	seen := make(map[string]int)
	for _, l := range lines {
		head, calls, _ := strings.Cut(l, ":")
		service := strings.Fields(head)[0]
		op := ops[service][seen[service]]
		seen[service]++
		for c := range strings.FieldsSeq(calls) {
			name, half := strings.CutSuffix(c, "?")
			k := call{what: name, half: half}
			if to, ok := strings.CutPrefix(name, "queue>"); ok {
				k.what, name = "queue", to
			}
			if service, n, ok := strings.Cut(name, "."); ok {
				if k.what != "queue" {
					k.what = "service"
				}
				i, _ := strconv.Atoi(n)
				k.to = ops[service][i]
			}
			op.calls = append(op.calls, k)
		}
	}
	s.roots = ops["gateway"]
	for p := range pods {
		service := s.services[p%len(s.services)]
		s.pods[service] = append(s.pods[service], p)
		s.node = append(s.node, p*7%nodes)
		s.resource = append(s.resource, resourceOf(service, p))
	}
	return s
}

func resourceOf(service string, pod int) []byte {
	rng := rand.New(rand.NewPCG(uint64(pod), 7))
	name := fmt.Sprintf("%s-%08x-%05x", service, rng.Uint32(), rng.Uint32N(1<<20))
	var b []byte
	for _, kv := range [][2]string{
		{"service.name", service},
		{"service.namespace", "shop"},
		{"service.version", fmt.Sprintf("1.%d.0", len(service))},
		{"service.instance.id", name},
		{"k8s.cluster.name", "prod-eu-1"},
		{"k8s.namespace.name", "shop"},
		{"k8s.pod.name", name},
		{"k8s.pod.uid", fmt.Sprintf("%08x-%04x-4%03x-a%03x-%012x", rng.Uint32(), rng.Uint32N(1<<16), rng.Uint32N(1<<12), rng.Uint32N(1<<12), rng.Uint64N(1<<48))},
		{"k8s.node.name", fmt.Sprintf("node-%02d", pod*7%nodes)},
		{"k8s.deployment.name", service},
		{"telemetry.sdk.language", "go"},
		{"telemetry.sdk.name", "opentelemetry"},
		{"telemetry.sdk.version", "1.38.0"},
	} {
		b = appendText(b, 1, kv[0], kv[1])
	}
	return b
}

// load says which traces there are.
type load struct {
	traces   int
	duration time.Duration
	end      time.Time
	seed     uint64
	request  int // spans of a request
	senders  int
}

func (l *load) name() string {
	return fmt.Sprintf("%d traces over %s, requests of %d spans of one node", l.traces, l.duration, l.request)
}

// span is a span as far as the questions look at it.
type span struct {
	id, parent [8]byte
	pod        int
	scope      int
	service    string
	name       string
	kind       int
	start, end int64
	failed     bool
	code       int64 // HTTP
	system     string
	user       string
	attrs      []byte // as OTLP
	event      []byte
}

// trace is one trace: what the generator makes of its number.
type trace struct {
	id    [16]byte
	spans []span
	rng   *rand.Rand
	shop  *shop
	user  string
}

// The kinds of OTLP and the scopes of the load.
const (
	kindInternal = 1
	kindServer   = 2
	kindClient   = 3
	kindProducer = 4
	kindConsumer = 5
)

func scopes() []string {
	return []string{
		"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp", "github.com/XSAM/otelsql", "github.com/redis/go-redis/extra/redisotel/v9",
		"github.com/twmb/franz-go/plugin/kotel",
	}
}

// trace fills t with trace n.
func (l *load) trace(s *shop, n int, t *trace) {
	t.rng = rand.New(rand.NewPCG(l.seed, uint64(n)))
	t.shop, t.spans = s, t.spans[:0]
	binary.BigEndian.PutUint64(t.id[:], t.rng.Uint64())
	binary.BigEndian.PutUint64(t.id[8:], t.rng.Uint64())
	t.user = "user-" + strconv.Itoa(int(t.rng.Uint32N(200_000)))
	if n%7919 == 17 {
		t.user = needleUser
	}
	step := float64(l.duration) / float64(l.traces)
	at := l.end.Add(-l.duration).UnixNano() + int64((float64(n)+t.rng.Float64())*step)
	t.server(s.roots[[]int{0, 0, 1, 1, 1, 2, 2, 3, 4, 4}[t.rng.IntN(10)]], [8]byte{}, at, "")
}

// server adds a server span with all below it, and returns when it ended.
func (t *trace) server(op *operation, parent [8]byte, at int64, peer string) (end int64, failed bool) {
	pod := t.shop.pods[op.service][t.rng.IntN(len(t.shop.pods[op.service]))]
	i := t.add(span{parent: parent, pod: pod, service: op.service, name: op.method + " " + op.route, kind: kindServer, start: at})
	if op.method == "CONSUME" {
		t.spans[i].kind, t.spans[i].scope, t.spans[i].name = kindConsumer, 3, op.route+" process"
	}
	own, now := t.spans[i].id, at+t.work(300e3)
	for _, c := range op.calls {
		if c.half && t.rng.IntN(2) == 0 {
			continue
		}
		var bad bool
		now, bad = t.call(op, c, own, pod, now)
		failed = failed || bad && t.rng.IntN(2) == 0
		now += t.work(80e3)
	}
	failed = failed || t.rng.IntN(400) == 0
	s := &t.spans[i]
	s.end, s.failed = now, failed
	if s.kind == kindConsumer {
		s.system = "kafka"
		s.attrs = appendText(s.attrs, 9, "messaging.system", "kafka")
		s.attrs = appendText(s.attrs, 9, "messaging.destination.name", op.route)
		s.attrs = appendInt(s.attrs, "messaging.kafka.offset", t.rng.Int64N(1e7))
	} else {
		s.code = 200
		switch {
		case failed:
			s.code = 500 + t.rng.Int64N(4)
		case t.rng.IntN(50) == 0:
			s.code = 404
		}
		s.attrs = appendText(s.attrs, 9, "http.request.method", op.method)
		s.attrs = appendText(s.attrs, 9, "http.route", op.route)
		s.attrs = appendText(s.attrs, 9, "url.path", strings.Replace(op.route, "{id}", strconv.Itoa(t.rng.IntN(5000)), 1))
		s.attrs = appendInt(s.attrs, "http.response.status_code", s.code)
		s.attrs = appendText(s.attrs, 9, "server.address", op.service)
		s.attrs = appendInt(s.attrs, "network.peer.port", 32768+t.rng.Int64N(28000))
		s.attrs = appendText(s.attrs, 9, "network.peer.address", peer)
		s.attrs = appendText(s.attrs, 9, "network.protocol.version", "1.1")
		s.attrs = appendText(s.attrs, 9, "url.scheme", "http")
		s.attrs = appendText(s.attrs, 9, "http.request.id", strconv.FormatUint(t.rng.Uint64(), 16))
		s.attrs = appendInt(s.attrs, "http.response.body.size", 200+t.rng.Int64N(8000))
		if parent == [8]byte{} {
			s.user = t.user
			s.attrs = appendText(s.attrs, 9, "user.id", t.user)
			s.attrs = appendText(s.attrs, 9, "user_agent.original", agents()[t.rng.IntN(len(agents()))])
		}
	}
	if failed {
		s.event = exception(s.end-1000, s.service)
	}
	return now, failed
}

func agents() []string {
	return []string{
		"Mozilla/5.0 (X11; Linux x86_64; rv:143.0) Gecko/20100101 Firefox/143.0",
		"Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) AppleWebKit/605.1.15", "curl/8.15.0", "shop-app/4.2 (Android 16)",
	}
}

// call adds what one call of an operation makes, and returns when it ended.
func (t *trace) call(op *operation, c call, parent [8]byte, pod int, at int64) (end int64, failed bool) {
	s := span{parent: parent, pod: pod, service: op.service, kind: kindClient, start: at}
	switch c.what {
	case "db":
		s.scope, s.system, s.name = 1, "postgresql", "SELECT "+op.service
		s.end, s.failed = at+t.work(1.5e6), t.rng.IntN(1000) == 0
		s.attrs = appendText(s.attrs, 9, "db.system.name", "postgresql")
		s.attrs = appendText(s.attrs, 9, "db.namespace", op.service)
		s.attrs = appendText(s.attrs, 9, "db.query.text", "SELECT id, name, state, created_at, updated_at FROM "+op.service+" WHERE id = "+strconv.Itoa(t.rng.IntN(5000))+" LIMIT 1")
		s.attrs = appendText(s.attrs, 9, "db.operation.name", "SELECT")
		s.attrs = appendText(s.attrs, 9, "db.collection.name", op.service)
		s.attrs = appendText(s.attrs, 9, "server.address", "postgres-"+op.service)
		s.attrs = appendInt(s.attrs, "server.port", 5432)
	case "cache":
		s.scope, s.system, s.name = 2, "redis", "get"
		s.end = at + t.work(200e3)
		s.attrs = appendText(s.attrs, 9, "db.system.name", "redis")
		s.attrs = appendText(s.attrs, 9, "server.address", "redis-"+op.service)
		s.attrs = appendInt(s.attrs, "server.port", 6379)
		s.attrs = appendText(s.attrs, 9, "db.operation.name", "get")
		s.attrs = appendText(s.attrs, 9, "db.query.text", "get "+op.service+":"+strconv.Itoa(t.rng.IntN(5000)))
		s.attrs = appendInt(s.attrs, "db.response.returned_rows", int64(t.rng.IntN(2)))
	case "queue":
		s.kind, s.scope, s.system, s.name = kindProducer, 3, "kafka", "orders publish"
		s.end = at + t.work(500e3)
		s.attrs = appendText(s.attrs, 9, "messaging.system", "kafka")
		s.attrs = appendText(s.attrs, 9, "messaging.destination.name", "orders")
		i := t.add(s)
		t.server(c.to, t.spans[i].id, s.end+t.work(3e6), "")
		return s.end, false
	default:
		s.name = c.to.method + " " + c.to.route
		i := t.add(s)
		peer := "10.4." + strconv.Itoa(pod%16) + "." + strconv.Itoa(pod)
		end, failed := t.server(c.to, t.spans[i].id, at+t.work(150e3), peer)
		x := &t.spans[i]
		x.end, x.failed = end+t.work(100e3), failed
		x.code = 200
		if failed {
			x.code = 500
		}
		x.attrs = appendText(x.attrs, 9, "http.request.method", c.to.method)
		x.attrs = appendText(x.attrs, 9, "url.full", "http://"+c.to.service+strings.Replace(c.to.route, "{id}", strconv.Itoa(t.rng.IntN(5000)), 1))
		x.attrs = appendInt(x.attrs, "http.response.status_code", x.code)
		x.attrs = appendText(x.attrs, 9, "server.address", c.to.service)
		x.attrs = appendInt(x.attrs, "server.port", 8080)
		x.attrs = appendText(x.attrs, 9, "network.protocol.version", "1.1")
		x.attrs = appendText(x.attrs, 9, "url.scheme", "http")
		return x.end, failed
	}
	t.add(s)
	return s.end, s.failed
}

func (t *trace) add(s span) int {
	binary.BigEndian.PutUint64(s.id[:], t.rng.Uint64()|1)
	t.spans = append(t.spans, s)
	return len(t.spans) - 1
}

// work is a time around a median, in nanoseconds: a few are much longer.
func (t *trace) work(median float64) int64 { return int64(median * math.Exp(0.8*t.rng.NormFloat64())) }

func exception(at int64, service string) []byte {
	var e []byte
	e = binary.LittleEndian.AppendUint64(append(e, 1<<3|1), uint64(at))
	e = appendBytes(e, 2, "exception")
	e = appendText(e, 3, "exception.type", "*"+service+".Error")
	e = appendText(e, 3, "exception.message", service+": the database did not answer in time")
	return e
}

// appendOTLP appends the span as a Span of OTLP.
func (s *span) appendOTLP(dst []byte, t *trace) []byte {
	dst = appendBytes(dst, 1, string(t.id[:]))
	dst = appendBytes(dst, 2, string(s.id[:]))
	if s.parent != [8]byte{} {
		dst = appendBytes(dst, 4, string(s.parent[:]))
	}
	dst = appendBytes(dst, 5, s.name)
	dst = append(dst, 6<<3, byte(s.kind))
	dst = binary.LittleEndian.AppendUint64(append(dst, 7<<3|1), uint64(s.start))
	dst = binary.LittleEndian.AppendUint64(append(dst, 8<<3|1), uint64(s.end))
	dst = append(dst, s.attrs...)
	if s.event != nil {
		dst = appendBytes(dst, 11, string(s.event))
	}
	if s.failed {
		dst = append(dst, 15<<3|2, 2, 3<<3, 2)
	}
	return append(dst, 0x85, 0x01, 0x01, 0x01, 0, 0) // flags: sampled, parent is known not to be remote
}

func appendBytes(dst []byte, field int, s string) []byte {
	dst = binary.AppendUvarint(dst, uint64(field<<3|2))
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}

// appendText appends an attribute as the given field, appendInt one of a span.
func appendText(dst []byte, field int, k, v string) []byte {
	var buf [256]byte
	return appendAttr(dst, field, k, appendBytes(buf[:0], 1, v))
}

func appendInt(dst []byte, k string, v int64) []byte {
	var buf [16]byte
	return appendAttr(dst, 9, k, binary.AppendUvarint(append(buf[:0], 3<<3), uint64(v)))
}

func appendAttr(dst []byte, field int, k string, v []byte) []byte {
	var buf [320]byte
	kv := appendBytes(buf[:0], 1, k)
	kv = binary.AppendUvarint(append(kv, 2<<3|2), uint64(len(v)))
	kv = append(kv, v...)
	dst = binary.AppendUvarint(dst, uint64(field<<3|2))
	dst = binary.AppendUvarint(dst, uint64(len(kv)))
	return append(dst, kv...)
}
