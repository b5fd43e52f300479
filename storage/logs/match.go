package logs

import (
	"slices"
	"strings"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

// rowMatcher decides about single records: what storage.LogBlock.Match says, without making a block of them. What it
// found out about streams it keeps.
type rowMatcher struct {
	streams map[streamPredicate]bool
}

// streamPredicate is a stream and the first matcher of a storage.StreamMatch, which tells it from others of a scan.
type streamPredicate struct {
	stream telemetry.LabelSet
	first  any
}

func (m *rowMatcher) match(p storage.Predicate, e *entry, r *telemetry.LogRecord) bool {
	switch p := p.(type) {
	case nil:
		return true
	case storage.And:
		for _, q := range p {
			if !m.match(q, e, r) {
				return false
			}
		}
		return true
	case storage.Or:
		return slices.ContainsFunc(p, func(q storage.Predicate) bool { return m.match(q, e, r) })
	case storage.Not:
		return !m.match(p.P, e, r)
	case storage.StreamMatch:
		if len(p) == 0 {
			return true
		}
		key := streamPredicate{e.stream, &p[0]}
		ok, known := m.streams[key]
		if !known {
			ok = storage.MatchLabels(e.stream, p)
			m.streams[key] = ok
		}
		return ok
	case storage.ResourceIn:
		return e.res != nil && slices.Contains(p, e.res.ID)
	case storage.TraceIn:
		return !r.TraceID.IsZero() && slices.Contains(p, r.TraceID)
	case storage.LineContains:
		return strings.Contains(r.Body.Text(), string(p))
	case storage.LineMatch:
		return p(r.Body.Text())
	case storage.SeverityRange:
		return r.Severity >= p.Min && r.Severity <= p.Max
	case storage.AttrMatch:
		var scope, resource telemetry.Attrs
		if r.Scope != nil {
			scope = r.Scope.Attrs
		}
		if e.res != nil {
			resource = e.res.Attrs
		}
		switch p.Scope {
		case storage.RecordScope:
			return p.Match(r.Attrs)
		case storage.InstrumentationScope:
			return p.Match(scope)
		case storage.ResourceScope:
			return p.Match(resource)
		default:
			return p.Match(r.Attrs, scope, resource)
		}
	default:
		return false // a predicate about spans
	}
}

func (m *rowMatcher) masked(e *entry, r *telemetry.LogRecord, masks []Mask) bool {
	for i := range masks {
		k := &masks[i]
		if e.pos < k.Position && r.Time >= k.Start && r.Time <= k.End && m.match(k.Where, e, r) {
			return true
		}
	}
	return false
}
