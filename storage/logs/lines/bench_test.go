package lines_test

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/storage/logs/lines"
)

const benchRows = 5000

func BenchmarkEncode(b *testing.B) {
	for kind := range kinds() {
		b.Run(kind, func(b *testing.B) {
			r := generate(kind, 1, benchRows)
			var out []byte
			b.SetBytes(int64(r.bytes()))
			for b.Loop() {
				b.StopTimer()
				e := lines.NewEncoder(lines.NewDict()) // templates are found anew
				b.StartTimer()
				for i, l := range r.lines {
					e.Add(l, r.times[i])
				}
				out = e.Append(out[:0])
			}
			b.ReportMetric(float64(r.bytes())/float64(len(out)), "raw/encoded")
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	for kind := range kinds() {
		b.Run(kind, func(b *testing.B) {
			r := generate(kind, 1, benchRows)
			s := newStore(b, []*rows{r})
			dec := lines.NewDecoder()
			var buf []byte
			b.SetBytes(int64(r.bytes()))
			for b.Loop() {
				blk, err := dec.Open(s.blocks[0], s.templates, timesOf(r.times))
				require.NoError(b, err)
				for i := range r.lines {
					buf, _ = blk.AppendLine(buf[:0], i)
				}
			}
		})
	}
}

func BenchmarkOpen(b *testing.B) {
	r := generate("json", 1, benchRows)
	s := newStore(b, []*rows{r})
	dec := lines.NewDecoder()
	for b.Loop() {
		_, err := dec.Open(s.blocks[0], s.templates, timesOf(r.times))
		require.NoError(b, err)
	}
}

func BenchmarkContains(b *testing.B) {
	for _, text := range []string{"retrying", "deadbeef", "12345", "connection refused"} {
		b.Run(text, func(b *testing.B) {
			r := generate("json", 1, benchRows)
			s := newStore(b, []*rows{r})
			dec := lines.NewDecoder()
			n := lines.NewNeedle(text, s.templates)
			b.SetBytes(int64(r.bytes()))
			for b.Loop() {
				blk, err := dec.Open(s.blocks[0], s.templates, timesOf(r.times))
				require.NoError(b, err)
				require.NoError(b, blk.Contains(n, lines.NewSet(blk.Rows())))
			}
		})
	}
}

// BenchmarkNeedle works out what a needle means for 5,000 templates.
func BenchmarkNeedle(b *testing.B) {
	dict := lines.NewDict()
	e := lines.NewEncoder(dict)
	for i := 0; len(dict.Templates()) < benchRows; i++ {
		r := generate("text", uint64(i), 1000)
		for k := range r.lines {
			r.lines[k] += ` took 12ms for user="u1" trace=0123456789abcdef code=17`
		}
		r.lines, r.times = append(r.lines, r.lines...), append(r.times, r.times...)
		encode(e, r)
	}
	templates := templatesOf(b, dict)
	for _, text := range []string{"zqnabsent1", "00f067aa0ba902b74bf92f3577b34da6", "upstream"} {
		b.Run(text, func(b *testing.B) {
			for b.Loop() {
				n := lines.NewNeedle(text, templates)
				for i := range templates {
					n.CanContain(i)
				}
			}
		})
	}
}

// BenchmarkIndex asks the index of 126 blocks.
func BenchmarkIndex(b *testing.B) {
	var blocks []*rows
	raw := 0
	for i := range 126 {
		r := generate([]string{"json", "access", "klog", "java", "hex"}[i%5], uint64(i), 2000)
		raw += r.bytes()
		blocks = append(blocks, r)
	}
	s := newStore(b, blocks)
	for _, text := range []string{"zqnabsent1", "00f067aa0ba902b74bf92f3577b34da6"} {
		b.Run(text, func(b *testing.B) {
			for b.Loop() {
				_, err := s.index.Blocks(lines.NewNeedle(text, s.templates))
				require.NoError(b, err)
			}
			b.ReportMetric(100*float64(s.size)/float64(raw), "%ofraw")
		})
	}
	b.Run("build", func(b *testing.B) {
		var words []*lines.Words
		for i := range blocks {
			w := &lines.Words{}
			require.NoError(b, s.open(b, i).Words(w))
			words = append(words, w)
		}
		b.SetBytes(int64(raw))
		for b.Loop() {
			var buf bytes.Buffer
			ib := lines.NewIndexBuilder(&buf)
			for _, w := range words {
				require.NoError(b, ib.Add(w))
			}
			_, err := ib.Close()
			require.NoError(b, err)
		}
	})
}
