package rows

import (
	"cmp"
	"encoding/hex"
	"math"
	"strings"
	"time"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/query/traceql/syntax"
)

// Value is what a field is worth in a row. It is comparable with ==.
type Value struct {
	Type  syntax.Type     // TypeNil for no value, TypeAny for arrays, maps and bytes
	Value telemetry.Value // durations in nanoseconds, status and kind as numbers
}

// Nil returns no value.
func Nil() Value { return Value{Type: syntax.TypeNil} }

// IsNil says whether there is no value.
func (v Value) IsNil() bool { return v.Type == syntax.TypeNil }

// Text returns the value as people read it: error, 1.5s, nil.
func (v Value) Text() string {
	switch v.Type {
	case syntax.TypeNil:
		return "nil"
	case syntax.TypeDuration:
		return time.Duration(v.Value.Int()).String()
	case syntax.TypeStatus:
		return telemetry.StatusCode(v.Value.Int()).String()
	case syntax.TypeKind:
		return telemetry.SpanKind(v.Value.Int()).String()
	default:
		return v.Value.Text()
	}
}

// Compare orders values: by type, then by value.
func (v Value) Compare(w Value) int {
	if v.Type.Numeric() && w.Type.Numeric() || v.Type == w.Type {
		if c, ok := compare(v, w); ok && c != 0 {
			return c
		}
	}
	return cmp.Or(cmp.Compare(v.Type, w.Type), strings.Compare(v.Value.Text(), w.Value.Text()))
}

// Number returns the value as a float, durations in nanoseconds, and whether it is a number.
func (v Value) Number() (float64, bool) {
	switch v.Type {
	case syntax.TypeInt, syntax.TypeDuration:
		return float64(v.Value.Int()), true
	case syntax.TypeFloat:
		return v.Value.Double(), true
	default:
		return 0, false
	}
}

// typed returns what was sent with its type.
func typed(v telemetry.Value) Value {
	switch v.Kind() {
	case telemetry.KindEmpty:
		return Nil()
	case telemetry.KindString:
		return Value{syntax.TypeString, v}
	case telemetry.KindBool:
		return Value{syntax.TypeBool, v}
	case telemetry.KindInt:
		return Value{syntax.TypeInt, v}
	case telemetry.KindDouble:
		return Value{syntax.TypeFloat, v}
	default:
		return Value{syntax.TypeAny, v}
	}
}

func number(t syntax.Type, n int64) Value { return Value{t, telemetry.Int(n)} }

func boolean(b bool) Value { return Value{syntax.TypeBool, telemetry.Bool(b)} }

// constant returns what a constant is worth.
func constant(s *syntax.Static) Value {
	switch s.Type {
	case syntax.TypeBool:
		return boolean(s.Int != 0)
	case syntax.TypeFloat:
		return Value{s.Type, telemetry.Double(s.Float)}
	case syntax.TypeString:
		return Value{s.Type, telemetry.String(s.Text)}
	case syntax.TypeNil, syntax.TypeAny:
		return Nil()
	default:
		return number(s.Type, s.Int)
	}
}

// compare compares two values of one kind; it says false for others.
func compare(a, b Value) (int, bool) {
	switch {
	case a.Type.Numeric() && b.Type.Numeric():
		if a.Type != syntax.TypeFloat && b.Type != syntax.TypeFloat {
			return cmp.Compare(a.Value.Int(), b.Value.Int()), true
		}
		return compareFloats(a, b)
	case a.Type != b.Type:
		return 0, false
	case a.Type == syntax.TypeString:
		return strings.Compare(a.Value.Str(), b.Value.Str()), true
	case a.Type == syntax.TypeBool:
		return cmp.Compare(bit(a.Value.Bool()), bit(b.Value.Bool())), true
	case a.Type == syntax.TypeStatus, a.Type == syntax.TypeKind:
		return cmp.Compare(a.Value.Int(), b.Value.Int()), true
	default:
		return 0, false
	}
}

// compareFloats compares two numbers of which one is a float. A NaN compares with nothing. Integers that no float is equal to
// are told apart.
func compareFloats(a, b Value) (int, bool) {
	x, _ := a.Number()
	y, _ := b.Number()
	switch {
	case math.IsNaN(x) || math.IsNaN(y):
		return 0, false
	case x != y || math.Abs(x) < 1<<53:
		return cmp.Compare(x, y), true
	case a.Type != syntax.TypeFloat:
		return compareLarge(a.Value.Int(), y), true
	case b.Type != syntax.TypeFloat:
		return -compareLarge(b.Value.Int(), x), true
	default:
		return 0, true
	}
}

// compareLarge compares an integer with the float that it is rounded to.
func compareLarge(n int64, f float64) int {
	if f >= math.MaxInt64 { // 2^63
		return -1
	}
	return cmp.Compare(n, int64(f))
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

// elements appends the values that comparisons look at: those of an array one by one.
func elements(dst []Value, v Value) []Value {
	if v.Type == syntax.TypeAny && v.Value.Kind() == telemetry.KindArray {
		for _, e := range v.Value.Array() {
			if e := typed(e); e.Type != syntax.TypeAny && !e.IsNil() {
				dst = append(dst, e)
			}
		}
		return dst
	}
	if v.IsNil() || v.Type == syntax.TypeAny {
		return dst
	}
	return append(dst, v)
}

// compares says whether a comparison holds between some element of ls and some of rs. != holds when there are elements
// that can be compared, and none are equal.
func compares(op syntax.Op, ls, rs []Value) bool {
	comparable := false
	for _, l := range ls {
		for _, r := range rs {
			c, ok := compare(l, r)
			if !ok {
				continue
			}
			comparable = true
			if op == syntax.NotEqual {
				if c == 0 {
					return false
				}
				continue
			}
			if holds(op, c) {
				return true
			}
		}
	}
	return op == syntax.NotEqual && comparable
}

func holds(op syntax.Op, c int) bool {
	switch op {
	case syntax.Equal:
		return c == 0
	case syntax.NotEqual:
		return c != 0
	case syntax.Greater:
		return c > 0
	case syntax.GreaterEqual:
		return c >= 0
	case syntax.Less:
		return c < 0
	case syntax.LessEqual:
		return c <= 0
	default:
		return false
	}
}

// Arithmetic computes with two numbers; it returns no value for what is no number, and for an integer divided by zero.
func Arithmetic(op syntax.Op, a, b Value) Value {
	if !a.Type.Numeric() || !b.Type.Numeric() {
		return Nil()
	}
	if a.Type != syntax.TypeFloat && b.Type != syntax.TypeFloat {
		n, ok := syntax.Integers(op, a.Value.Int(), b.Value.Int())
		if !ok {
			return Nil()
		}
		if a.Type == syntax.TypeDuration || b.Type == syntax.TypeDuration {
			return number(syntax.TypeDuration, n)
		}
		return number(syntax.TypeInt, n)
	}
	x, _ := a.Number()
	y, _ := b.Number()
	return Value{syntax.TypeFloat, telemetry.Double(syntax.Floats(op, x, y))}
}

// padded returns a hexadecimal ID in full length and lower case.
func padded(s string, length int) string {
	low := strings.ToLower(s)
	if len(s) > length || len(s) == 0 {
		return s
	}
	low = strings.Repeat("0", length-len(low)) + low
	if _, err := hex.DecodeString(low); err != nil {
		return s
	}
	return low
}

// interval is the integers from lo to hi, or the others.
type interval struct {
	lo, hi int64
	not    bool
}

func (i interval) has(n int64) bool { return (n >= i.lo && n <= i.hi) != i.not }

// intervalOf returns the integers for which a comparison with a number holds.
func intervalOf(op syntax.Op, v Value) interval {
	lo, hi := int64(math.MinInt64), int64(math.MaxInt64)
	none := interval{1, 0, false}
	var below, above int64 // the largest integer <= v, the smallest >= v
	if v.Type == syntax.TypeFloat {
		f := v.Value.Double()
		switch {
		case math.IsNaN(f):
			return none
		case f >= math.MaxInt64: // above all
			if op == syntax.Less || op == syntax.LessEqual || op == syntax.NotEqual {
				return interval{lo, hi, false}
			}
			return none
		case f < math.MinInt64:
			if op == syntax.Greater || op == syntax.GreaterEqual || op == syntax.NotEqual {
				return interval{lo, hi, false}
			}
			return none
		}
		below, above = int64(math.Floor(f)), int64(math.Ceil(f))
	} else {
		below, above = v.Value.Int(), v.Value.Int()
	}
	switch op {
	case syntax.Equal, syntax.NotEqual:
		if below != above {
			return interval{1, 0, op == syntax.NotEqual}
		}
		return interval{below, above, op == syntax.NotEqual}
	case syntax.LessEqual:
		return interval{lo, below, false}
	case syntax.GreaterEqual:
		return interval{above, hi, false}
	case syntax.Less:
		if above == lo {
			return none
		}
		return interval{lo, above - 1, false}
	case syntax.Greater:
		if below == hi {
			return none
		}
		return interval{below + 1, hi, false}
	default:
		return none
	}
}
