package otlp

import (
	"errors"
	"fmt"
	"math"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/braidobs/braid/internal/config"
	"github.com/braidobs/braid/internal/httpapi"
)

const (
	// maxNesting is how deep values may nest before a request is refused as a whole. Records with values that nest
	// deeper than telemetry.MaxDepth are rejected one by one.
	maxNesting = 128
	// maxBrackets is what maxNesting comes to in JSON, with what stands around a value.
	maxBrackets = 4*maxNesting + 32
)

// message is a kind of protobuf message that can hold values or many small parts.
type message uint8

const (
	leaf message = iota
	anyValue
	arrayValue
	keyValueList
	keyValue
	resource
	scope
	spanRequest
	resourceSpans
	scopeSpans
	spanMessage
	spanEvent
	spanLink
	logRequest
	resourceLogs
	scopeLogs
	logMessage
	metricRequest
	resourceMetrics
	scopeMetrics
	metricMessage
	numberData
	histogramData
	exponentialData
	summaryData
	numberPoint
	histogramPoint
	exponentialPoint
	exponentialBuckets
	summaryPoint
	exemplarMessage
	entityRef
	messages // how many there are
)

// layout tells what the fields of each message hold, up to field 15: none with parts has a larger number.
type layout [messages][16]message

func newLayout() *layout {
	l := new(layout)
	for m := range messages {
		for n := range l[m] {
			l[m][n] = m.part(protowire.Number(n))
		}
	}
	return l
}

// part returns what field n of m holds.
func (m message) part(n protowire.Number) message {
	type field struct {
		m message
		n protowire.Number
	}
	switch (field{m, n}) {
	case field{anyValue, 5}:
		return arrayValue
	case field{anyValue, 6}:
		return keyValueList
	case field{arrayValue, 1}, field{keyValue, 2}, field{logMessage, 5}:
		return anyValue
	case field{keyValueList, 1}, field{resource, 1}, field{scope, 3}, field{spanMessage, 9}, field{spanEvent, 3}, field{spanLink, 4},
		field{logMessage, 6}, field{metricMessage, 12}, field{numberPoint, 7}, field{histogramPoint, 9}, field{exponentialPoint, 1},
		field{summaryPoint, 7}, field{exemplarMessage, 7}:
		return keyValue
	case field{resource, 3}:
		return entityRef
	case field{spanRequest, 1}:
		return resourceSpans
	case field{logRequest, 1}:
		return resourceLogs
	case field{metricRequest, 1}:
		return resourceMetrics
	case field{resourceSpans, 1}, field{resourceLogs, 1}, field{resourceMetrics, 1}:
		return resource
	case field{resourceSpans, 2}:
		return scopeSpans
	case field{resourceLogs, 2}:
		return scopeLogs
	case field{resourceMetrics, 2}:
		return scopeMetrics
	case field{scopeSpans, 1}, field{scopeLogs, 1}, field{scopeMetrics, 1}:
		return scope
	case field{scopeSpans, 2}:
		return spanMessage
	case field{spanMessage, 11}:
		return spanEvent
	case field{spanMessage, 13}:
		return spanLink
	case field{scopeLogs, 2}:
		return logMessage
	case field{scopeMetrics, 2}:
		return metricMessage
	case field{metricMessage, 5}, field{metricMessage, 7}:
		return numberData
	case field{metricMessage, 9}:
		return histogramData
	case field{metricMessage, 10}:
		return exponentialData
	case field{metricMessage, 11}:
		return summaryData
	case field{numberData, 1}:
		return numberPoint
	case field{histogramData, 1}:
		return histogramPoint
	case field{exponentialData, 1}:
		return exponentialPoint
	case field{summaryData, 1}:
		return summaryPoint
	case field{numberPoint, 5}, field{histogramPoint, 8}, field{exponentialPoint, 11}:
		return exemplarMessage
	case field{exponentialPoint, 8}, field{exponentialPoint, 9}:
		return exponentialBuckets
	}
	return leaf
}

// cost is about what a message takes in memory besides its parts, decoded and translated.
func (m message) cost() int64 {
	switch m {
	case spanMessage, histogramPoint, exponentialPoint:
		return 500
	case logMessage, metricMessage, numberPoint, summaryPoint:
		return 350
	case resource, resourceSpans, resourceLogs, resourceMetrics, scopeSpans, scopeLogs, scopeMetrics, scope, spanEvent, spanLink, exemplarMessage:
		return 160
	default:
		return 48
	}
}

// guard looks over encoded requests. What it lets pass can be decoded with bounded stack and memory.
type guard struct {
	layout *layout
	limit  int64 // of memory
	used   int64
	attrs  int // attributes seen
}

// errMalformed is what a body that is no protobuf gets.
var errMalformed = errors.New("it is not a protobuf message of this kind")

// protobuf looks over a message.
func (g *guard) protobuf(b []byte, m message, depth int) error {
	if depth > maxNesting {
		return httpapi.BadDataf("the request nests values deeper than %d", maxNesting)
	}
	g.used += m.cost()
	if m == keyValue {
		g.attrs++
	}
	for len(b) > 0 {
		var num protowire.Number
		var typ protowire.Type
		var size uint64
		n := 1
		if c := b[0]; c < 0x80 && c >= 8 {
			num, typ = protowire.Number(c>>3), protowire.Type(c&7)
		} else if num, typ, n = protowire.ConsumeTag(b); n < 0 {
			return errMalformed
		}
		b = b[n:]
		if typ != protowire.BytesType {
			if n = protowire.ConsumeFieldValue(num, typ, b); n < 0 {
				return errMalformed
			}
			b = b[n:]
			g.used += 8
			continue
		}
		if len(b) > 0 && b[0] < 0x80 {
			size, n = uint64(b[0]), 1
		} else {
			size, n = protowire.ConsumeVarint(b)
		}
		if n < 0 || size > uint64(len(b)-n) {
			return errMalformed
		}
		in := b[n : n+int(size)]
		b = b[n+int(size):]
		p := leaf
		if num < 16 {
			p = g.layout[m][num]
		}
		if p != leaf {
			d := depth
			if p == anyValue {
				d++
			}
			if err := g.protobuf(in, p, d); err != nil {
				return err
			}
		} else {
			g.used += 32 + int64(size)
			if m == exponentialBuckets {
				g.used += 7 * int64(size) // packed numbers
			}
		}
		if g.used > g.limit {
			return g.tooLarge()
		}
	}
	return nil
}

// json looks over one JSON object: its brackets, not its grammar.
func (g *guard) json(b []byte) error {
	depth, ended := 0, false
	g.used += int64(len(b))
	for i := 0; i < len(b); i++ {
		c := b[i]
		switch c {
		case ' ', '\t', '\n', '\r':
			continue
		}
		if ended || depth == 0 && c != '{' {
			return fmt.Errorf("offset %d: want one JSON object", i)
		}
		switch c {
		case '{', '[':
			depth++
			g.used += 160
			if depth > maxBrackets {
				return httpapi.BadDataf("offset %d: the request nests deeper than %d", i, maxBrackets)
			}
		case '}', ']':
			depth--
			ended = depth == 0
		case ',':
			g.used += 8
		case '"':
			for i++; i < len(b) && b[i] != '"'; i++ {
				if b[i] == '\\' {
					i++
				}
			}
		}
		if g.used > g.limit {
			return g.tooLarge()
		}
	}
	if !ended {
		return errors.New("the JSON object ends too early")
	}
	return nil
}

// add accounts for memory that is made while translating.
func (g *guard) add(n int) error {
	g.used += int64(n)
	if g.used > g.limit {
		return g.tooLarge()
	}
	return nil
}

func (g *guard) tooLarge() error {
	return httpapi.Errorf(httpapi.TooLarge,
		"the request needs more than %s of memory once it is decoded: send less in one request, or raise otlp.max_body",
		config.Size(g.limit))
}

func newGuard(c Config, l *layout) *guard {
	return &guard{layout: l, limit: min(c.MaxBody.Bytes(), math.MaxInt64/expansion) * expansion}
}
