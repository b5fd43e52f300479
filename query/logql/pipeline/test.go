package pipeline

import (
	"fmt"
	"strconv"
	"time"

	"github.com/braidobs/braid/query/logql/address"
	"github.com/braidobs/braid/query/logql/syntax"
	"github.com/braidobs/braid/query/logql/template"
)

func compileTest(t syntax.Test) (func(*Row) bool, error) {
	switch t := t.(type) {
	case *syntax.And:
		l, err := compileTest(t.L)
		if err != nil {
			return nil, err
		}
		r, err := compileTest(t.R)
		return func(row *Row) bool { return l(row) && r(row) }, err
	case *syntax.Or:
		l, err := compileTest(t.L)
		if err != nil {
			return nil, err
		}
		r, err := compileTest(t.R)
		return func(row *Row) bool { return l(row) || r(row) }, err
	case *syntax.Match:
		return func(r *Row) bool {
			v, _ := r.Get(t.M.Name)
			return t.M.Matches(v)
		}, nil
	case *syntax.IP:
		set, err := address.Parse(t.Text)
		if err != nil {
			return nil, err
		}
		return func(r *Row) bool {
			if r.Failed() {
				return true
			}
			v, ok := r.Get(t.Name)
			return ok && set.Contains(v) != t.Not
		}, nil
	case *syntax.Compare:
		return func(r *Row) bool {
			if t.Name == ErrorLabel || t.Name == DetailsLabel {
				return false
			}
			s, ok := r.Get(t.Name)
			if !ok {
				return false
			}
			v, err := ParseValue(t.Type, s)
			if err != nil {
				if !r.Failed() { // the first error stays
					r.fail(ErrFilter, err.Error())
				}
				return true
			}
			return Compare(t.Op, v, t.Value)
		}, nil
	default:
		return nil, fmt.Errorf("unknown test %T", t)
	}
}

// ParseValue reads the value of a label as a number: nanoseconds of durations.
func ParseValue(t syntax.ValueType, s string) (float64, error) {
	switch t {
	case syntax.DurationValue:
		d, err := time.ParseDuration(s)
		return float64(d), err
	case syntax.BytesValue:
		return template.Bytes(s)
	default:
		return strconv.ParseFloat(s, 64)
	}
}

// Compare compares two numbers.
func Compare(op string, a, b float64) bool {
	switch op {
	case "==":
		return a == b
	case "!=":
		return a != b
	case ">":
		return a > b
	case ">=":
		return a >= b
	case "<":
		return a < b
	case "<=":
		return a <= b
	default:
		return false
	}
}

// Unwrap turns a label of rows into their value. A label that does not say a number makes the row carry an error; a row
// without the label has no value.
func Unwrap(u *syntax.Unwrap, r *Row) (v float64, ok bool) {
	s, found := r.Get(u.Label)
	if !found {
		return 0, false
	}
	v, err := Convert(u.Conversion, s)
	if err != nil {
		r.fail(ErrSample, err.Error())
	}
	return v, true
}

// Convert reads the value of an unwrapped label.
func Convert(c syntax.Conversion, s string) (float64, error) {
	switch c {
	case syntax.Duration, syntax.DurationSeconds:
		d, err := time.ParseDuration(s)
		return d.Seconds(), err
	case syntax.Bytes:
		return template.Bytes(s)
	default:
		return strconv.ParseFloat(s, 64)
	}
}
