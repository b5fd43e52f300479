package lines_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/logs/lines"
)

// pieces are what drawn lines are made of: everything that the splitter looks at, often in the wrong place.
func pieces() []string {
	return []string{
		`"`, `\`, `\"`, `\u00e9`, `=`, ` `, `, `, `{`, `}`, `[`, `]`, `:`, `"a":`, `"b":"`, `","`, "\t", "\n", "\x00", "\x7f", "\x1b[0m",
		"é", "\xff", "0", "7", "42", "-3", "1.50", "12ms", "v2", "a1b2", "00ff00ff", "deadbeef01", "word", "level=info", "k=", "k=v", "x=\"q\"", "/", "/a/b/17",
		"10.1.2.3:80", "3f2a9b1c-1111-4222-a333-abcdefabcdef", "2025-10-09T08:53:20.120Z", "Oct  9 08:53:20", "1760000000.5", "1760000000123", "I1009 08:53:20.123456",
		"...", "--", "µ", "1e5", "true", "null", "_", "@", "99999999999999999999", "ABCDEF12", strings.Repeat("z9y8", 5), "0x1f",
	}
}

// drawRows draws lines that are alike: a few frames, in which a piece is exchanged.
func drawRows(t *rapid.T, label string) *rows {
	piece := rapid.SampledFrom(pieces())
	frames := rapid.SliceOfN(rapid.SliceOfN(piece, 0, 8), 1, 4).Draw(t, label)
	n := rapid.IntRange(0, 40).Draw(t, label+" rows")
	r := &rows{}
	at := int64(start) * 1e9
	for range n {
		f := append([]string(nil), rapid.SampledFrom(frames).Draw(t, "frame")...)
		if len(f) > 0 && rapid.Bool().Draw(t, "change") {
			f[rapid.IntRange(0, len(f)-1).Draw(t, "where")] = piece.Draw(t, "piece")
		}
		r.lines = append(r.lines, strings.Join(f, rapid.SampledFrom([]string{"", " "}).Draw(t, "between")))
		at += rapid.Int64Range(-1e9, 1e12).Draw(t, "step")
		r.times = append(r.times, at)
	}
	return r
}

// Whatever the lines are, blocks give them back, also from other parts that they were merged into, and block and index
// answer as strings.Contains does.
func TestLinesProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawRows(t, "a"), drawRows(t, "b")
		s := newStore(t, []*rows{a, b, a})
		for i := range s.blocks {
			same(t, s.open(t, i), s.rows[i].lines)
		}
		var of []string
		for range 8 {
			l := rapid.SampledFrom([]*rows{a, b}).Draw(t, "of").lines
			if len(l) == 0 {
				continue
			}
			line := rapid.SampledFrom(l).Draw(t, "line")
			from := rapid.IntRange(0, len(line)).Draw(t, "from")
			of = append(of, line[from:rapid.IntRange(from, len(line)).Draw(t, "to")], rapid.SampledFrom(pieces()).Draw(t, "other"))
		}
		s.check(t, of)
		merge(t, s)
	})
}

// merge makes another part of the store: its blocks copied, then row by row into one block.
func merge(tb tester, s *store) {
	tb.Helper()
	dict := lines.NewDict()
	e := lines.NewEncoder(dict)
	e.Add("something else 1", 0)
	e.Append(nil)
	var (
		copies [][]byte
		all    rows
		words  lines.Words
		buf    bytes.Buffer
	)
	ib := lines.NewIndexBuilder(&buf)
	for i := range s.blocks {
		c, ok := s.open(tb, i).AppendTo(nil, dict)
		require.True(tb, ok)
		copies = append(copies, c)
		b, err := lines.NewDecoder().Open(c, templatesOf(tb, dict), timesOf(s.rows[i].times))
		require.NoError(tb, err)
		require.NoError(tb, b.Words(&words))
		require.NoError(tb, ib.Add(&words))
		for row := range b.Rows() {
			require.NoError(tb, e.AddFrom(b, row, s.rows[i].times[row]))
		}
		all.lines, all.times = append(all.lines, s.rows[i].lines...), append(all.times, s.rows[i].times...)
	}
	merged := e.Append(nil)
	require.NoError(tb, ib.Add(e.Words()))
	size, err := ib.Close()
	require.NoError(tb, err)
	ix, err := lines.OpenIndex(bytes.NewReader(buf.Bytes()), size)
	require.NoError(tb, err)
	m := &store{dict: dict, templates: templatesOf(tb, dict), blocks: append(copies, merged), rows: append(slices.Clip(s.rows), &all), index: ix}
	for i := range m.blocks {
		same(tb, m.open(tb, i), m.rows[i].lines)
	}
	var of []string
	for _, l := range all.lines {
		of = append(of, l[len(l)/3:max(len(l)/3, len(l)*2/3)])
		if len(of) == 10 {
			break
		}
	}
	m.check(tb, of)
}

func TestMerge(t *testing.T) {
	var blocks []*rows
	for kind := range kinds() {
		blocks = append(blocks, generate(kind, 5, 100))
	}
	merge(t, newStore(t, blocks))
}

func FuzzRoundTrip(f *testing.F) {
	f.Add("a 1\nb 2\na 3", int64(0))
	f.Add(`{"ts":"2025-10-09T08:53:20.120Z","n":1.5}`+"\n"+`{"ts":"2025-10-09T08:53:21.120Z","n":2}`, int64(1_760_000_000e9))
	f.Fuzz(func(t *testing.T, text string, at int64) {
		r := &rows{lines: strings.Split(text, "\n")}
		r.lines = append(r.lines, r.lines...)
		for i := range r.lines {
			r.times = append(r.times, at+int64(i))
		}
		s := newStore(t, []*rows{r, r})
		for i := range s.blocks {
			same(t, s.open(t, i), r.lines)
		}
		l := r.lines[len(r.lines)/2]
		s.check(t, []string{l, l[len(l)/2:], l[:len(l)/2], text[:min(3, len(text))]})
	})
}

func FuzzOpen(f *testing.F) {
	dict := lines.NewDict()
	e := lines.NewEncoder(dict)
	for kind := range kinds() {
		f.Add(encode(e, generate(kind, 1, 60)))
	}
	var templates []*storage.Template
	for _, s := range dict.Templates() {
		t, err := lines.ParseTemplate(s)
		require.NoError(f, err)
		templates = append(templates, t)
	}
	dec := lines.NewDecoder()
	f.Fuzz(func(t *testing.T, b []byte) {
		blk, err := dec.Open(b, templates, func() ([]int64, error) { return make([]int64, 60), nil })
		if err != nil {
			return
		}
		keep := lines.NewSet(blk.Rows())
		_ = blk.Contains(lines.NewNeedle("a1", templates), keep)
		_ = blk.Words(&lines.Words{})
		for row := range min(blk.Rows(), 100) {
			if _, err := blk.AppendLine(nil, row); err != nil {
				return
			}
		}
		out, ok := blk.AppendTo(nil, lines.NewDict())
		require.True(t, ok)
		require.NotEmpty(t, out)
	})
}

func FuzzTemplate(f *testing.F) {
	f.Add("a\x00\x01b\x00\x02")
	f.Add("\x00\x00")
	f.Fuzz(func(t *testing.T, s string) {
		if tm, err := lines.ParseTemplate(s); err == nil {
			require.Equal(t, s, string(lines.AppendTemplate(nil, tm)))
			require.Len(t, tm.Text, len(tm.Gaps)+1)
		}
	})
}

func FuzzIndex(f *testing.F) {
	var buf bytes.Buffer
	ib := lines.NewIndexBuilder(&buf)
	dict := lines.NewDict()
	e := lines.NewEncoder(dict)
	for i := range 3 {
		encode(e, generate("json", uint64(i), 20))
		require.NoError(f, ib.Add(e.Words()))
	}
	_, err := ib.Close()
	require.NoError(f, err)
	f.Add(buf.Bytes(), "needle 12345")
	f.Add(buf.Bytes(), "00f067aa0ba902b74bf92f3577b34da6")
	templates := templatesOf(f, dict)
	f.Fuzz(func(t *testing.T, b []byte, text string) {
		ix, err := lines.OpenIndex(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		found, err := ix.Blocks(lines.NewNeedle(text[:min(len(text), 200)], templates))
		if err == nil {
			require.LessOrEqual(t, found.Count(), ix.Len())
		}
	})
}
