package lines_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/logs/lines"
)

// store is blocks of lines with their index, as a part has them.
type store struct {
	dict      *lines.Dict
	templates []*storage.Template
	rows      []*rows
	blocks    [][]byte
	index     *lines.Index
	size      int64 // of the index
	indexed   []byte
}

func newStore(tb tester, blocks []*rows) *store {
	tb.Helper()
	s := &store{dict: lines.NewDict(), rows: blocks}
	e := lines.NewEncoder(s.dict)
	var buf bytes.Buffer
	ib := lines.NewIndexBuilder(&buf)
	for _, r := range blocks {
		s.blocks = append(s.blocks, encode(e, r))
		require.NoError(tb, ib.Add(e.Words()))
	}
	var err error
	s.size, err = ib.Close()
	require.NoError(tb, err)
	require.EqualValues(tb, buf.Len(), s.size)
	s.indexed = buf.Bytes()
	s.index, err = lines.OpenIndex(bytes.NewReader(buf.Bytes()), s.size)
	require.NoError(tb, err)
	require.Equal(tb, len(blocks), s.index.Len())
	s.templates = templatesOf(tb, s.dict)
	return s
}

func (s *store) open(tb tester, i int) *lines.Block {
	tb.Helper()
	b, err := lines.NewDecoder().Open(s.blocks[i], s.templates, timesOf(s.rows[i].times))
	require.NoError(tb, err)
	return b
}

// cut returns a piece of a random line.
func cut(r *rand.Rand, blocks []*rows) string {
	l := blocks[r.IntN(len(blocks))].lines
	line := l[r.IntN(len(l))]
	if line == "" {
		return ""
	}
	a := r.IntN(len(line))
	return line[a:min(len(line), a+1+r.IntN(1<<r.IntN(7)))]
}

// needles returns pieces of lines, some spoilt.
func needles(r *rand.Rand, blocks []*rows, n int) []string {
	out := []string{"", "zqnabsent1", "-", "1", "00", "deadbeef", "2025", "Oct", "T08"}
	for range n {
		t := cut(r, blocks)
		switch r.IntN(6) {
		case 0:
			t += "x"
		case 1:
			if t != "" {
				i := r.IntN(len(t))
				t = t[:i] + string(rune('0'+r.IntN(75))) + t[i+1:]
			}
		case 2:
			t += cut(r, blocks)
		}
		out = append(out, t)
	}
	return out
}

// check requires that block and index answer as strings.Contains does.
func (s *store) check(tb tester, needles []string) {
	tb.Helper()
	var blocks []*lines.Block
	for i := range s.blocks {
		blocks = append(blocks, s.open(tb, i))
	}
	for _, text := range needles {
		n := lines.NewNeedle(text, s.templates)
		found, err := s.index.Blocks(n)
		require.NoError(tb, err)
		for i, b := range blocks {
			keep := lines.NewSet(b.Rows())
			require.NoError(tb, b.Contains(n, keep))
			any := false
			for row, l := range s.rows[i].lines {
				want := strings.Contains(l, text)
				any = any || want
				if keep.Has(row) != want {
					require.Equal(tb, want, keep.Has(row), "%q in %q", text, l)
				}
			}
			if any && !found.Has(i) {
				require.Fail(tb, "the index misses a block", "%q in block %d", text, i)
			}
		}
	}
}

func TestContains(t *testing.T) {
	for kind := range kinds() {
		t.Run(kind, func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, 2))
			var blocks []*rows
			for seed := range uint64(3) {
				blocks = append(blocks, generate(kind, seed, 150))
			}
			s := newStore(t, blocks)
			s.check(t, needles(r, blocks, 400))
		})
	}
}

func TestContainsCorners(t *testing.T) {
	tests := []struct {
		name string
		in   []string
		of   []string
	}{
		{"across gaps", []string{"a1b2 1x2", "a1b3 1x2", "a11b2 11x22"}, []string{"a1b", "1b2", "b2 1", "1 11x", "1x2", "a", "x"}},
		{"empty variables", []string{`{"a":"","b":"x"}`, `{"a":"y","b":""}`}, []string{`""`, `"",`, `:"","b":"x"`, `y","b":"`, `""}`}},
		{"repeated text", []string{"1-1-1-1-1-1 a", "1-1-1-1-1-2 a"}, []string{"1-1-1", "-1-2 ", "1-1-1-1-1-1-1"}},
		{"negative numbers", []string{`{"a":-5}`, `{"a":-50}`, `{"a":5.0}`}, []string{"-5", "5.", ":-", "0}"}},
		{
			"uuid",
			[]string{"id=3f2a9b1c-1111-4222-a333-abcdefabcdef x", "id=xx3f2a9b1c-1111-4222-a333-abcdefabcdef0 x"},
			[]string{"3f2a9b1c-1111-4222-a333-abcdefabcdef", "3f2a9b1c-1111-4222-a333-abcdefabcdef0", "9b1c-1111", "abcdefabcdef", "-4222-", "=3f2a9b1c-1111-4222-a333-abcdefabcdef "},
		},
		{"many ways", []string{strings.Repeat("1 ", 200), strings.Repeat("1 ", 199) + "2 "}, []string{"1 1 1 1 1 1", "1 2", "2 1"}},
		{"whole", []string{"\x00 deadbeefdeadbeef 12345", "\x00 x"}, []string{"eefdead", "\x00 x", "2345", "x"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := &rows{}
			for range 4 {
				r.lines = append(r.lines, tt.in...)
			}
			r.times = make([]int64, len(r.lines))
			s := newStore(t, []*rows{r, r})
			s.check(t, tt.of)
		})
	}
}

func TestIndexRulesOut(t *testing.T) {
	var blocks []*rows
	for i := range 150 { // three segments
		kind := []string{"json", "access", "klog", "java", "hex"}[i%5]
		r := generate(kind, uint64(i), 110)
		if i == 77 {
			r.lines[100] = `{"level":"info","msg":"a needle qzuniqueword","trace_id":"00f067aa0ba902b74bf92f3577b34da6"}`
			r.lines[101] = "x id=11112222-3333-4444-a555-66667777ffff order=987654321 y"
		}
		blocks = append(blocks, r)
	}
	s := newStore(t, blocks)
	tests := []struct {
		needle string
		most   int
	}{
		{"zqnabsent1", 3},
		{"needle qzuniqueword", 4},
		{"qzuniq", 35}, // where words with digits are long, six bytes are too few
		{"00f067aa0ba902b74bf92f3577b34da6", 4},
		{`"trace_id":"00f067aa0ba902b74bf92f3577b34da6"`, 4},
		{"11112222-3333-4444-a555-66667777ffff", 4},
		{"order=987654321 ", 35}, // nanoseconds have nine digits, too
		{"connection absent from everything", 0},
		{"NoSuchMethodError", 3},
	}
	for _, tt := range tests {
		t.Run(tt.needle, func(t *testing.T) {
			found, err := s.index.Blocks(lines.NewNeedle(tt.needle, s.templates))
			require.NoError(t, err)
			require.LessOrEqual(t, found.Count(), tt.most)
		})
	}
}

func TestMatch(t *testing.T) {
	r := generate("json", 1, 100)
	s := newStore(t, []*rows{r})
	b := s.open(t, 0)
	keep := lines.NewSet(b.Rows())
	keep.Remove(3)
	require.NoError(t, b.Match(func(l string) bool { return strings.Contains(l, "retry") }, keep))
	for i, l := range r.lines {
		require.Equal(t, i != 3 && strings.Contains(l, "retry"), keep.Has(i), "row %d", i)
	}
}

func TestContainsNumbers(t *testing.T) {
	r := &rows{}
	for i := range 1200 {
		n := int64(i*i*i*7919) - 4_000_000
		r.lines = append(r.lines, fmt.Sprintf(`{"a":%d,"b":%d}`, n, i))
	}
	r.times = make([]int64, len(r.lines))
	s := newStore(t, []*rows{r})
	var of []string
	for i := range 130 {
		of = append(of, strconv.Itoa(i), fmt.Sprintf("0%d", i), fmt.Sprintf(":%d", i), fmt.Sprintf("%d,", i), fmt.Sprintf(`:%d,"b":%d}`, i, i), fmt.Sprintf(":-%d", i))
	}
	s.check(t, of)
}
