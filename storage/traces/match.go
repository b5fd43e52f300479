package traces

import (
	"slices"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

// match says what storage.SpanBlock.Match does of a block with just this span, without making one.
func match(p storage.Predicate, res *telemetry.Resource, s *telemetry.Span) bool {
	switch p := p.(type) {
	case nil:
		return true
	case storage.And:
		for _, q := range p {
			if !match(q, res, s) {
				return false
			}
		}
		return true
	case storage.Or:
		return slices.ContainsFunc(p, func(q storage.Predicate) bool { return match(q, res, s) })
	case storage.Not:
		return !match(p.P, res, s)
	case storage.ResourceIn:
		return res != nil && slices.Contains(p, res.ID)
	case storage.TraceIn:
		return !s.TraceID.IsZero() && slices.Contains(p, s.TraceID)
	case storage.DurationRange:
		d := s.End - s.Start
		return d >= p.Min && d <= p.Max
	case storage.FieldMatch:
		return p.M.Matches(fieldText(s, p.Field))
	case storage.AttrMatch:
		var scope, resource telemetry.Attrs
		if s.Scope != nil {
			scope = s.Scope.Attrs
		}
		if res != nil {
			resource = res.Attrs
		}
		switch p.Scope {
		case storage.RecordScope:
			return p.Match(s.Attrs)
		case storage.InstrumentationScope:
			return p.Match(scope)
		case storage.ResourceScope:
			return p.Match(resource)
		case storage.AnyScope:
			return p.Match(s.Attrs, scope, resource)
		default:
			return p.Match()
		}
	case storage.ValueMatch:
		switch p.Key.Scope { // most are about these: a function for each span would cost more than the look
		case storage.RecordScope:
			v, ok := s.Attrs.Get(p.Key.Name)
			return ok && p.Accept(v)
		case storage.ResourceScope:
			if res == nil {
				return false
			}
			v, ok := res.Attrs.Get(p.Key.Name)
			return ok && p.Accept(v)
		default:
		}
		ok := false
		p.Key.Each(res, s, func(v telemetry.Value) { ok = ok || p.Accept(v) })
		return ok
	default:
		return false // a predicate about logs
	}
}

func fieldText(s *telemetry.Span, f storage.SpanField) string {
	switch f {
	case storage.SpanName:
		return s.Name
	case storage.SpanKindField:
		return s.Kind.String()
	case storage.SpanStatus:
		return s.Status.String()
	case storage.SpanStatusMessage:
		return s.StatusMessage
	case storage.SpanParent:
		if !s.ParentID.IsZero() {
			return s.ParentID.String()
		}
	default: // is not compared as text
	}
	return ""
}
