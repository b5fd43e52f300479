package traces

import (
	"slices"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/traces/packed"
)

// verdicts says which spans of a snapshot of a head match a predicate. It asks about what spans share once: about a resource, and
// about a text that the head holds once. It is for one caller at a time.
type verdicts struct {
	of   *Tenant
	test func(row int32, e *entry) bool
	one  unpacked
}

// verdicts returns what match says of p.
func (t *Tenant) verdicts(p storage.Predicate) *verdicts {
	v := &verdicts{of: t}
	v.test = v.compile(p)
	return v
}

// matches says whether the span of a row, which e brought, matches.
func (v *verdicts) matches(row int32, e *entry) bool { return v.test(row, e) }

func (v *verdicts) compile(p storage.Predicate) func(row int32, e *entry) bool {
	switch p := p.(type) {
	case nil:
		return func(int32, *entry) bool { return true }
	case storage.And:
		tests := v.all(p)
		return func(row int32, e *entry) bool {
			for _, f := range tests {
				if !f(row, e) {
					return false
				}
			}
			return true
		}
	case storage.Or:
		tests := v.all(p)
		return func(row int32, e *entry) bool {
			return slices.ContainsFunc(tests, func(f func(int32, *entry) bool) bool { return f(row, e) })
		}
	case storage.ResourceIn:
		return v.byResource(p)
	case storage.TraceIn:
		return func(row int32, _ *entry) bool {
			id := v.of.traces[v.of.rows[row].trace].id
			return !id.IsZero() && slices.Contains(p, id)
		}
	case storage.DurationRange:
		return func(row int32, _ *entry) bool {
			d := v.of.view.Duration(v.of.rows[row].at)
			return d >= p.Min && d <= p.Max
		}
	case storage.FieldMatch:
		switch p.Field {
		case storage.SpanName:
			return v.byText((*packed.View).Name, func(x telemetry.Value) bool { return p.M.Matches(x.Str()) })
		case storage.SpanStatusMessage:
			return v.byText((*packed.View).Message, func(x telemetry.Value) bool { return p.M.Matches(x.Str()) })
		case storage.SpanKindField, storage.SpanStatus:
			return v.byKind(p.Field, func(n int64) bool {
				if p.Field == storage.SpanStatus {
					return p.M.Matches(telemetry.StatusCode(n).String())
				}
				return p.M.Matches(telemetry.SpanKind(n).String())
			})
		default: // below
		}
	case storage.AttrMatch:
		if p.Scope == storage.ResourceScope {
			return v.byResource(p)
		}
	case storage.ValueMatch:
		switch {
		case p.Key.Scope == storage.ResourceScope:
			return v.byResource(p)
		case p.Key.Scope == storage.RecordScope:
			key := v.of.view.Key(p.Key.Name)
			return v.byTextIf(func(view *packed.View, at packed.Place) (packed.Text, bool) { return view.Attr(at, key) }, p.Accept)
		case p.Key == storage.Field(storage.SpanName):
			return v.byText((*packed.View).Name, p.Accept)
		case p.Key == storage.Field(storage.SpanStatusMessage):
			return v.byText((*packed.View).Message, p.Accept)
		case p.Key == storage.Field(storage.SpanKindField), p.Key == storage.Field(storage.SpanStatus):
			return v.byKind(p.Key.Field, func(n int64) bool { return p.Accept(telemetry.Int(n)) })
		}
	}
	return func(row int32, e *entry) bool { return match(p, e.res, v.one.of(v.of, row)) }
}

// all compiles some predicates, those about resources first: they are answered for many rows at once.
func (v *verdicts) all(ps []storage.Predicate) (out []func(int32, *entry) bool) {
	of := func(p storage.Predicate) bool {
		switch p := p.(type) {
		case storage.ResourceIn:
			return true
		case storage.AttrMatch:
			return p.Scope == storage.ResourceScope
		case storage.ValueMatch:
			return p.Key.Scope == storage.ResourceScope
		default:
			return false
		}
	}
	for _, first := range []bool{true, false} {
		for _, p := range ps {
			if of(p) == first {
				out = append(out, v.compile(p))
			}
		}
	}
	return out
}

// byResource asks about each resource once.
func (v *verdicts) byResource(p storage.Predicate) func(int32, *entry) bool {
	known := make(map[*telemetry.Resource]bool)
	var last *entry
	ok := false
	return func(_ int32, e *entry) bool {
		if e == last {
			return ok
		}
		var seen bool
		if ok, seen = known[e.res]; !seen {
			ok = match(p, e.res, &telemetry.Span{})
			known[e.res] = ok
		}
		last = e
		return ok
	}
}

// byKind asks about each kind, or status, once.
func (v *verdicts) byKind(field storage.SpanField, accept func(int64) bool) func(int32, *entry) bool {
	var known [256]verdict
	return func(row int32, _ *entry) bool {
		kind, status := v.of.view.Kind(v.of.rows[row].at)
		n := uint8(kind)
		if field == storage.SpanStatus {
			n = uint8(status)
		}
		return known[n].of(func() bool { return accept(int64(n)) })
	}
}

// byText asks about each text that is held once, and each time about others.
func (v *verdicts) byText(field func(*packed.View, packed.Place) packed.Text, accept func(telemetry.Value) bool) func(int32, *entry) bool {
	return v.byTextIf(func(view *packed.View, at packed.Place) (packed.Text, bool) { return field(view, at), true }, accept)
}

func (v *verdicts) byTextIf(field func(*packed.View, packed.Place) (packed.Text, bool), accept func(telemetry.Value) bool) func(int32, *entry) bool {
	known := make([]verdict, v.of.view.Texts())
	return func(row int32, _ *entry) bool {
		text, ok := field(&v.of.view, v.of.rows[row].at)
		switch {
		case !ok:
			return false
		case text.Number == packed.None:
			return accept(text.Value)
		default:
			return known[text.Number].of(func() bool { return accept(text.Value) })
		}
	}
}

// verdict is an answer that is asked for once.
type verdict uint8

const (
	unknown verdict = iota
	accepted
	refused
)

func (k *verdict) of(ask func() bool) bool {
	if *k == unknown {
		if *k = refused; ask() {
			*k = accepted
		}
	}
	return *k == accepted
}
