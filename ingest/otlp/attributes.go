package otlp

import (
	"errors"
	"slices"
	"strings"

	"go.opentelemetry.io/collector/pdata/pcommon"

	"github.com/braidobs/braid/internal/telemetry"
)

// errDepth is what a record is rejected with whose values nest too deep.
var errDepth = errors.New("a value nests too deep")

// convertAttrs translates attributes. The strings are those of m, which are immutable.
func convertAttrs(m pcommon.Map, depth int) (telemetry.Attrs, error) {
	if m.Len() == 0 {
		return nil, nil
	}
	as := make([]telemetry.Attr, 0, m.Len())
	for k, v := range m.All() {
		tv, err := convertValue(v, depth)
		if err != nil {
			return nil, err
		}
		as = append(as, telemetry.Attr{Key: k, Value: tv})
	}
	return telemetry.NewAttrs(as), nil
}

// convertValue translates one value that stands within depth arrays and maps.
func convertValue(v pcommon.Value, depth int) (telemetry.Value, error) {
	switch v.Type() {
	case pcommon.ValueTypeStr:
		return telemetry.String(v.Str()), nil
	case pcommon.ValueTypeBool:
		return telemetry.Bool(v.Bool()), nil
	case pcommon.ValueTypeInt:
		return telemetry.Int(v.Int()), nil
	case pcommon.ValueTypeDouble:
		return telemetry.Double(v.Double()), nil
	case pcommon.ValueTypeBytes:
		return telemetry.Bytes(v.Bytes().AsRaw()), nil
	case pcommon.ValueTypeSlice:
		if depth >= telemetry.MaxDepth {
			return telemetry.Value{}, errDepth
		}
		s := v.Slice()
		vs := make([]telemetry.Value, 0, s.Len())
		for _, e := range s.All() {
			tv, err := convertValue(e, depth+1)
			if err != nil {
				return telemetry.Value{}, err
			}
			vs = append(vs, tv)
		}
		return telemetry.Array(vs), nil
	case pcommon.ValueTypeMap:
		if depth >= telemetry.MaxDepth {
			return telemetry.Value{}, errDepth
		}
		as, err := convertAttrs(v.Map(), depth+1)
		if err != nil {
			return telemetry.Value{}, err
		}
		return telemetry.Map(as), nil
	default:
		return telemetry.Value{}, nil
	}
}

// scopes interns the scopes of one request.
type scopes struct {
	known map[string]*telemetry.Scope
	buf   []byte
}

// get returns the scope, or nil when it says nothing.
func (t *scopes) get(s pcommon.InstrumentationScope, schemaURL string) (*telemetry.Scope, error) {
	attrs, err := convertAttrs(s.Attributes(), 0)
	if err != nil {
		return nil, err
	}
	return t.intern(&telemetry.Scope{
		Name: s.Name(), Version: s.Version(), SchemaURL: schemaURL, Attrs: attrs, Dropped: s.DroppedAttributesCount(),
	}), nil
}

// intern returns a scope equal to sc, or nil when that says nothing.
func (t *scopes) intern(sc *telemetry.Scope) *telemetry.Scope {
	if sc.Name == "" && sc.Version == "" && sc.SchemaURL == "" && len(sc.Attrs) == 0 && sc.Dropped == 0 {
		return nil
	}
	t.buf = telemetry.AppendScope(t.buf[:0], sc)
	if known, ok := t.known[string(t.buf)]; ok {
		return known
	}
	if t.known == nil {
		t.known = make(map[string]*telemetry.Scope)
	}
	t.known[string(t.buf)] = sc
	return sc
}

// batches collects the records of one request by resource.
type batches struct {
	list  []telemetry.Batch
	known map[batchKey]int
}

var errSourceTwice = errors.New("a request has two resources of the same stream and file")

type batchKey struct {
	id           telemetry.ResourceID
	dropped      uint32
	stream, file string // of the source
}

// get returns the index of the batch of a resource.
func (t *batches) get(r pcommon.Resource, schemaURL string) (int, error) {
	attrs, err := convertAttrs(r.Attributes(), 0)
	if err != nil {
		return 0, err
	}
	return t.of(attrs, r.DroppedAttributesCount(), schemaURL)
}

// of returns the index of the batch of the resource with the attributes.
func (t *batches) of(attrs telemetry.Attrs, dropped uint32, schemaURL string) (int, error) {
	attrs, src, err := takeSource(attrs)
	if err != nil {
		return 0, err
	}
	res := telemetry.NewResource(schemaURL, attrs)
	res.Dropped = dropped
	k := batchKey{id: res.ID, dropped: res.Dropped}
	if src != nil {
		k.stream, k.file = src.Stream, src.File
		if _, ok := t.known[k]; ok {
			return 0, errSourceTwice
		}
	}
	if i, ok := t.known[k]; ok {
		return i, nil
	}
	if t.known == nil {
		t.known = make(map[batchKey]int)
	}
	t.known[k] = len(t.list)
	t.list = append(t.list, telemetry.Batch{Resource: res, Source: src})
	return len(t.list) - 1, nil
}

// label is a label that is being made.
type label struct{ name, value string }

// labelSet is labels that are being made. It is searched from end to end: the number of labels is bounded before.
type labelSet []label

func (s labelSet) get(name string) string {
	for i := range s {
		if s[i].name == name {
			return s[i].value
		}
	}
	return ""
}

func (s *labelSet) set(name, value string) {
	for i := range *s {
		if (*s)[i].name == name {
			(*s)[i].value = value
			return
		}
	}
	*s = append(*s, label{name, value})
}

func (s labelSet) sort() {
	slices.SortFunc(s, func(a, b label) int { return strings.Compare(a.name, b.name) })
}

// appendWith appends the canonical form of the labels, which are sorted, and of two more, which take the place of those
// with the same name. One without a name is none.
func (s labelSet) appendWith(dst []byte, a, b label) []byte {
	if b.name != "" && b.name < a.name {
		a, b = b, a
	}
	add := func(l label) {
		if l.name != "" && l.value != "" {
			dst = telemetry.AppendString(dst, l.name)
			dst = telemetry.AppendString(dst, l.value)
		}
	}
	for i := range s {
		for a.name != "" && a.name < s[i].name {
			add(a)
			a, b = b, label{}
		}
		switch s[i].name {
		case a.name:
			add(a)
			a, b = b, label{}
		default:
			add(s[i])
		}
	}
	add(a)
	add(b)
	return dst
}

// appendTo sorts the labels and appends their canonical form.
func (s labelSet) appendTo(dst []byte) []byte {
	s.sort()
	return s.appendWith(dst, label{}, label{})
}
