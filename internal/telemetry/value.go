package telemetry

import (
	"encoding/base64"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Kind is the type of a Value; the set is the one of OTLP's AnyValue.
type Kind uint8

// The kinds of a Value. Their numbers are on disk: they never change.
const (
	KindEmpty Kind = iota
	KindString
	KindBool
	KindInt
	KindDouble
	KindBytes
	KindArray
	KindMap
)

// String returns the kind's name as OTLP's documentation writes it.
func (k Kind) String() string {
	switch k {
	case KindString:
		return "string"
	case KindBool:
		return "bool"
	case KindInt:
		return "int"
	case KindDouble:
		return "double"
	case KindBytes:
		return "bytes"
	case KindArray:
		return "array"
	case KindMap:
		return "map"
	default:
		return "empty"
	}
}

// MaxDepth is how deep arrays and maps may nest inside a value; deeper input is refused by the decoders.
const MaxDepth = 32

// Value is one attribute value or log body. It is comparable: two values are equal exactly when they were
// sent equal (a NaN equals the same NaN). Arrays and maps are kept in their canonical binary form and are
// decoded when asked for.
type Value struct {
	kind Kind
	num  uint64
	str  string
}

// String returns a text value.
func String(s string) Value { return Value{kind: KindString, str: s} }

// Bool returns a boolean value.
func Bool(b bool) Value {
	if b {
		return Value{kind: KindBool, num: 1}
	}
	return Value{kind: KindBool}
}

// Int returns an integer value.
func Int(n int64) Value { return Value{kind: KindInt, num: uint64(n)} }

// Double returns a floating-point value; its bits are kept, those of a NaN too.
func Double(f float64) Value { return Value{kind: KindDouble, num: math.Float64bits(f)} }

// Bytes returns a value of raw bytes, which are copied.
func Bytes(b []byte) Value { return Value{kind: KindBytes, str: string(b)} }

// Array returns a value that holds vs in order.
func Array(vs []Value) Value {
	b := AppendUvarint(nil, uint64(len(vs)))
	for i := range vs {
		b = AppendValue(b, vs[i])
	}
	return Value{kind: KindArray, str: string(b)}
}

// Map returns a value that holds as; see NewAttrs for the order and for repeated keys.
func Map(as Attrs) Value { return Value{kind: KindMap, str: string(AppendAttrs(nil, as))} }

// Kind returns the value's type.
func (v Value) Kind() Kind { return v.kind }

// IsZero says whether the value is empty.
func (v Value) IsZero() bool { return v.kind == KindEmpty }

// Str returns the text of a string value or the raw bytes of a bytes value, and "" for every other kind.
func (v Value) Str() string {
	if v.kind == KindString || v.kind == KindBytes {
		return v.str
	}
	return ""
}

// Bool returns the value of a boolean.
func (v Value) Bool() bool { return v.kind == KindBool && v.num != 0 }

// Int returns the value of an integer.
func (v Value) Int() int64 {
	if v.kind != KindInt {
		return 0
	}
	return int64(v.num)
}

// Double returns the value of a double.
func (v Value) Double() float64 {
	if v.kind != KindDouble {
		return 0
	}
	return math.Float64frombits(v.num)
}

// Array returns the elements of an array.
func (v Value) Array() []Value {
	if v.kind != KindArray {
		return nil
	}
	d := NewDecoder(v.str)
	vs := d.values(0)
	return vs
}

// Map returns the entries of a map.
func (v Value) Map() Attrs {
	if v.kind != KindMap {
		return nil
	}
	d := NewDecoder(v.str)
	return d.attrs(0)
}

// Size returns an estimate of the memory that the value holds, in bytes.
func (v Value) Size() int { return 32 + len(v.str) }

// Text returns the value as people read it and as filters compare it: strings as they are, numbers in their
// shortest decimal form, bytes in base64, arrays and maps as JSON.
func (v Value) Text() string {
	switch v.kind {
	case KindString:
		return v.str
	case KindArray, KindMap:
		return string(v.AppendJSON(nil))
	case KindBytes:
		return base64.StdEncoding.EncodeToString([]byte(v.str))
	case KindBool:
		return strconv.FormatBool(v.num != 0)
	case KindInt:
		return strconv.FormatInt(int64(v.num), 10)
	case KindDouble:
		return strconv.FormatFloat(math.Float64frombits(v.num), 'g', -1, 64)
	default:
		return ""
	}
}

// AppendJSON appends the value as JSON: bytes in base64, a NaN or an infinity as a string, an empty value as
// null.
func (v Value) AppendJSON(dst []byte) []byte {
	switch v.kind {
	case KindString:
		return AppendJSONString(dst, v.str)
	case KindBool:
		return strconv.AppendBool(dst, v.num != 0)
	case KindInt:
		return strconv.AppendInt(dst, int64(v.num), 10)
	case KindDouble:
		f := math.Float64frombits(v.num)
		if math.IsNaN(f) || math.IsInf(f, 0) {
			return AppendJSONString(dst, strconv.FormatFloat(f, 'g', -1, 64))
		}
		return strconv.AppendFloat(dst, f, 'g', -1, 64)
	case KindBytes:
		return AppendJSONString(dst, base64.StdEncoding.EncodeToString([]byte(v.str)))
	case KindArray:
		dst = append(dst, '[')
		for i, e := range v.Array() {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = e.AppendJSON(dst)
		}
		return append(dst, ']')
	case KindMap:
		return v.Map().AppendJSON(dst)
	default:
		return append(dst, "null"...)
	}
}

// MarshalJSON is AppendJSON for encoding/json.
func (v Value) MarshalJSON() ([]byte, error) { return v.AppendJSON(nil), nil }

// Attr is one attribute.
type Attr struct {
	Key   string
	Value Value
}

// Attrs are attributes sorted by key, each key once, with the names they were sent under.
type Attrs []Attr

// NewAttrs sorts as in place by key. Of a key sent more than once the last value stays, which is what the
// OpenTelemetry SDKs do.
func NewAttrs(as []Attr) Attrs {
	sorted := true
	for i := 1; i < len(as); i++ {
		if as[i-1].Key >= as[i].Key {
			sorted = false
			break
		}
	}
	if sorted {
		return as
	}
	slices.SortStableFunc(as, func(a, b Attr) int { return strings.Compare(a.Key, b.Key) })
	n := 0
	for i := range as {
		if n > 0 && as[n-1].Key == as[i].Key {
			as[n-1] = as[i]
			continue
		}
		as[n] = as[i]
		n++
	}
	return as[:n]
}

// Get returns the value of key.
func (as Attrs) Get(key string) (Value, bool) {
	i, ok := slices.BinarySearchFunc(as, key, func(a Attr, k string) int { return strings.Compare(a.Key, k) })
	if !ok {
		return Value{}, false
	}
	return as[i].Value, true
}

// Text returns the value of key as text, "" when it is absent.
func (as Attrs) Text(key string) string {
	v, _ := as.Get(key)
	return v.Text()
}

// Equal says whether both hold the same keys with the same values.
func (as Attrs) Equal(bs Attrs) bool { return slices.Equal(as, bs) }

// Size returns an estimate of the memory that the attributes hold, in bytes.
func (as Attrs) Size() int {
	n := 24
	for i := range as {
		n += 16 + len(as[i].Key) + as[i].Value.Size()
	}
	return n
}

// AppendJSON appends the attributes as one JSON object.
func (as Attrs) AppendJSON(dst []byte) []byte {
	dst = append(dst, '{')
	for i := range as {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = AppendJSONString(dst, as[i].Key)
		dst = append(dst, ':')
		dst = as[i].Value.AppendJSON(dst)
	}
	return append(dst, '}')
}

// MarshalJSON is AppendJSON for encoding/json.
func (as Attrs) MarshalJSON() ([]byte, error) { return as.AppendJSON(nil), nil }

const hexDigits = "0123456789abcdef"

// AppendJSONString appends s as a JSON string. Bytes that are not UTF-8 become U+FFFD, as encoding/json does.
func AppendJSONString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	start := 0
	for i, r := range s {
		switch {
		case r == '"' || r == '\\':
			dst = append(dst, s[start:i]...)
			dst = append(dst, '\\', byte(r))
			start = i + 1
		case r < 0x20:
			dst = append(dst, s[start:i]...)
			switch r {
			case '\n':
				dst = append(dst, '\\', 'n')
			case '\t':
				dst = append(dst, '\\', 't')
			case '\r':
				dst = append(dst, '\\', 'r')
			default:
				dst = append(dst, '\\', 'u', '0', '0', hexDigits[r>>4], hexDigits[r&15])
			}
			start = i + 1
		case r == '\uFFFD' && !strings.HasPrefix(s[i:], "\uFFFD"):
			dst = append(dst, s[start:i]...)
			dst = append(dst, "\uFFFD"...)
			start = i + 1
		}
	}
	dst = append(dst, s[start:]...)
	return append(dst, '"')
}
