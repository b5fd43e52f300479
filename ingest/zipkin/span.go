package zipkin

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/braidobs/braid/ingest"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

// span is a span as Zipkin has it, whatever it was encoded in.
type span struct {
	trace, id, parent string // raw bytes
	kind              telemetry.SpanKind
	name              string
	at, duration      uint64 // microseconds
	local, remote     endpoint
	notes             []note
	tags              []telemetry.Attr
	debug, shared     bool
}

// endpoint is where a span was, or what it talked to.
type endpoint struct {
	service string
	addr    netip.Addr
	port    int64
}

// note is something that happened at a time, in microseconds.
type note struct {
	at    uint64
	value string
}

// decoder collects the spans of one request.
type decoder struct {
	room     *ingest.Room
	now      time.Time
	list     []telemetry.Batch
	batches  map[telemetry.ResourceID]int
	names    map[string]*telemetry.Resource // by service name
	rejected storage.Rejected
	timeless bool
	n        int // spans seen
}

// spanSize is about what a span takes without its texts.
const spanSize = 500

// Tags that say what OpenTelemetry has fields for, and Zipkin has not.
const (
	tagError       = "error"
	tagStatus      = "otel.status_code"
	tagDescription = "otel.status_description"
	tagScope       = "otel.scope.name"
	tagVersion     = "otel.scope.version"
	tagState       = "w3c.tracestate"
)

// add translates a span, following OpenTelemetry's mapping for Zipkin exporters the other way round: tags are attributes,
// annotations events, the tag error the status, the remote endpoint peer.service and network.peer.*.
func (d *decoder) add(z *span) {
	d.n++
	var s telemetry.Span
	if !padded(s.TraceID[:], z.trace) || s.TraceID.IsZero() {
		d.refuse("trace ID")
		return
	}
	if !padded(s.SpanID[:], z.id) || s.SpanID.IsZero() {
		d.refuse("ID")
		return
	}
	if !padded(s.ParentID[:], z.parent) {
		d.refuse("parent ID")
		return
	}
	s.Kind, s.Name = z.kind, z.name
	if s.Kind == telemetry.SpanKindUnspecified {
		s.Kind = telemetry.SpanKindInternal
	}
	s.Start = nanos(z.at)
	if z.at == 0 {
		for _, n := range z.notes {
			if t := nanos(n.at); t > 0 && (s.Start == 0 || t < s.Start) {
				s.Start = t
			}
		}
	}
	if s.Start == 0 {
		d.timeless = true
		s.Start = d.now.UnixNano()
	}
	s.End = s.Start + min(nanos(z.duration), math.MaxInt64-s.Start)
	for _, n := range z.notes {
		s.Events = append(s.Events, telemetry.Event{Time: nanos(n.at), Name: n.value})
	}
	s.Scope = d.scope(z)
	s.Attrs = attrs(z, &s)
	res := d.resource(z.local.service)
	i, ok := d.batches[res.ID]
	if !ok {
		i = len(d.list)
		d.batches[res.ID] = i
		d.list = append(d.list, telemetry.Batch{Resource: res})
	}
	d.list[i].Spans = append(d.list[i].Spans, s)
}

// refuse counts a span whose ID is none.
func (d *decoder) refuse(what string) {
	d.rejected.Spans++
	d.rejected.Reason("span %d: its %s is not hexadecimal, too long, or zero", d.n, what)
}

// padded fills dst from the right.
func padded(dst []byte, s string) bool {
	if len(s) > len(dst) {
		return false
	}
	copy(dst[len(dst)-len(s):], s)
	return true
}

func nanos(micros uint64) int64 { return int64(min(micros, math.MaxInt64/1000)) * 1000 }

// resource returns what sent a span; only its service's name is known.
func (d *decoder) resource(service string) *telemetry.Resource {
	if r := d.names[service]; r != nil {
		return r
	}
	if d.names == nil {
		d.names = make(map[string]*telemetry.Resource)
	}
	var as telemetry.Attrs
	if service != "" {
		as = telemetry.Attrs{{Key: "service.name", Value: telemetry.String(service)}}
	}
	r := telemetry.NewResource("", as)
	d.names[service] = r
	return r
}

func (d *decoder) scope(z *span) *telemetry.Scope {
	name, version := tag(z.tags, tagScope), tag(z.tags, tagVersion)
	if name+version == "" {
		return nil
	}
	// Scopes of a request are few: they are compared one by one.
	for _, b := range d.list {
		if n := len(b.Spans); n > 0 {
			if sc := b.Spans[n-1].Scope; sc != nil && sc.Name == name && sc.Version == version {
				return sc
			}
		}
	}
	return &telemetry.Scope{Name: name, Version: version}
}

func tag(tags []telemetry.Attr, key string) string {
	i := slices.IndexFunc(tags, func(a telemetry.Attr) bool { return a.Key == key })
	if i < 0 {
		return ""
	}
	return tags[i].Value.Str()
}

// attrs returns the attributes of a span, and sets its status and state.
func attrs(z *span, s *telemetry.Span) telemetry.Attrs {
	as := make([]telemetry.Attr, 0, len(z.tags)+6)
	failed := false
	for _, t := range z.tags {
		v := t.Value.Str()
		switch t.Key {
		case tagError:
			failed = true
			if v != "" && v != "true" && s.StatusMessage == "" {
				s.StatusMessage = v
			}
			if v == "false" {
				failed, s.StatusMessage = false, ""
				as = append(as, t)
			}
		case tagStatus:
			switch strings.ToUpper(v) {
			case "OK":
				s.Status = telemetry.StatusOK
			case "ERROR":
				failed = true
			}
		case tagDescription:
			s.StatusMessage = v
		case tagState:
			s.State = v
		case tagScope, tagVersion:
		default:
			as = append(as, t)
		}
	}
	if failed {
		s.Status = telemetry.StatusError
	}
	text := func(key, value string) {
		if value != "" && tag(as, key) == "" {
			as = append(as, telemetry.Attr{Key: key, Value: telemetry.String(value)})
		}
	}
	ends := func(prefix string, e *endpoint) {
		if e.addr.IsValid() {
			text(prefix+".address", e.addr.String())
		}
		if e.port > 0 {
			as = append(as, telemetry.Attr{Key: prefix + ".port", Value: telemetry.Int(e.port)})
		}
	}
	text("peer.service", z.remote.service)
	ends("network.peer", &z.remote)
	ends("network.local", &z.local)
	if z.shared {
		as = append(as, telemetry.Attr{Key: "zipkin.shared", Value: telemetry.Bool(true)})
	}
	if z.debug {
		as = append(as, telemetry.Attr{Key: "zipkin.debug", Value: telemetry.Bool(true)})
	}
	return telemetry.NewAttrs(as)
}

// kindOf returns the kind that Zipkin's word names.
func kindOf(s string) telemetry.SpanKind {
	switch strings.ToUpper(s) {
	case "CLIENT":
		return telemetry.SpanKindClient
	case "SERVER":
		return telemetry.SpanKindServer
	case "PRODUCER":
		return telemetry.SpanKindProducer
	case "CONSUMER":
		return telemetry.SpanKindConsumer
	default:
		return telemetry.SpanKindUnspecified
	}
}

// rawID returns the bytes that hexadecimal digits stand for; an odd number of them has a zero before.
func rawID(s string) (string, error) {
	if len(s) > 32 {
		return "", fmt.Errorf("an ID of %d digits", len(s))
	}
	if len(s)%2 == 1 {
		s = "0" + s
	}
	b, err := hex.DecodeString(s)
	return string(b), err
}

// micros reads a number of microseconds: a whole one, though some senders write fractions.
func micros(text string) (uint64, error) {
	if n, err := strconv.ParseUint(text, 10, 64); err == nil {
		return n, nil
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || !(f >= 0 && f < math.MaxInt64) {
		return 0, fmt.Errorf("%q is not a number of microseconds", text[:min(len(text), 40)])
	}
	return uint64(f), nil
}

// sorted are notes in the order of time.
func sorted(ns []note) []note {
	slices.SortStableFunc(ns, func(a, b note) int { return cmp.Compare(a.at, b.at) })
	return ns
}
