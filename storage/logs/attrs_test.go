package logs

import (
	"bytes"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/telemetry"
)

func attrRowsOf(t require.TestingT, raw []byte, n int) ([]telemetry.Attrs, error) {
	cols, err := readAttrs(string(raw), n)
	if err != nil {
		return nil, err
	}
	rows := make([]int, n)
	for i := range rows {
		rows[i] = i
	}
	as := make([]telemetry.Attrs, len(rows))
	err = attrsOf(as, cols, rows, n)
	if err != nil {
		return nil, err
	}
	for i := range cols {
		seen := 0
		require.NoError(t, cols[i].matches(labels.MustNewMatcher(labels.MatchRegexp, "", ".*"), func(row int, ok bool) {
			require.True(t, ok)
			_, has := as[row].Get(cols[i].key)
			require.True(t, has)
			seen++
		}))
		require.Equal(t, cols[i].n, seen)
	}
	return as, nil
}

// FuzzAttrs reads any bytes as the attributes of a block: an error, or attributes that are written and read again the same.
func FuzzAttrs(f *testing.F) {
	var w attrWriter
	w.add(0, telemetry.NewAttrs([]telemetry.Attr{{Key: "a", Value: telemetry.Int(5)}, {Key: "b", Value: telemetry.String("x")}}))
	w.add(1, telemetry.NewAttrs([]telemetry.Attr{{Key: "a", Value: telemetry.Int(7)}, {Key: "c", Value: telemetry.Double(1.5)}}))
	w.add(2, telemetry.NewAttrs([]telemetry.Attr{{Key: "c", Value: telemetry.Array([]telemetry.Value{telemetry.Bool(true), {}})}, {Key: "b", Value: telemetry.String("x")}}))
	f.Add(w.append(nil, 3), uint16(3))
	f.Add(w.append(nil, 0), uint16(1))
	f.Fuzz(func(t *testing.T, raw []byte, rows uint16) {
		n := int(rows)
		as, err := attrRowsOf(t, raw, n)
		if err != nil {
			return
		}
		var w attrWriter
		for i, a := range as {
			w.add(i, a)
		}
		first := w.append(nil, n)
		again, err := attrRowsOf(t, first, n)
		require.NoError(t, err)
		require.Equal(t, as, again)
		for i, a := range again {
			w.add(i, a)
		}
		require.True(t, bytes.Equal(first, w.append(nil, n)))
	})
}
