package lines_test

import (
	"bytes"
	"encoding/binary"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/logs/lines"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

// Version 1 of templates, blocks and the index stays readable for ever: each kind of line in a block of its own.
func TestGolden(t *testing.T) {
	names := []string{"access", "hex", "java", "json", "klog", "text"}
	dir := filepath.Join("testdata", "v1")
	if *rewrite {
		var want []*rows
		for i, kind := range names {
			want = append(want, generate(kind, uint64(i), 60))
		}
		s := newStore(t, want)
		require.NoError(t, os.MkdirAll(dir, 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "templates"), []byte(strings.Join(s.dict.Templates(), "\x00\xff")), 0o600))
		for i, kind := range names {
			require.NoError(t, os.WriteFile(filepath.Join(dir, kind), s.blocks[i], 0o600))
			require.NoError(t, os.WriteFile(filepath.Join(dir, kind+".lines"), []byte(strings.Join(want[i].lines, "\x00")), 0o600))
			times, err := binary.Append(nil, binary.LittleEndian, want[i].times)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(filepath.Join(dir, kind+".times"), times, 0o600))
		}
		require.NoError(t, os.WriteFile(filepath.Join(dir, "index"), s.indexed, 0o600))
	}
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		return b
	}
	s := &store{}
	for text := range strings.SplitSeq(string(read("templates")), "\x00\xff") {
		tm, err := lines.ParseTemplate(text)
		require.NoError(t, err)
		s.templates = append(s.templates, tm)
	}
	for i, kind := range names {
		s.blocks = append(s.blocks, read(kind))
		r := &rows{lines: strings.Split(string(read(kind+".lines")), "\x00")}
		r.times = make([]int64, len(r.lines))
		_, err := binary.Decode(read(kind+".times"), binary.LittleEndian, r.times)
		require.NoError(t, err)
		s.rows = append(s.rows, r)
		same(t, s.open(t, i), s.rows[i].lines)
	}
	ix := read("index")
	var err error
	s.index, err = lines.OpenIndex(bytes.NewReader(ix), int64(len(ix)))
	require.NoError(t, err)
	s.check(t, []string{"retrying upstream", "order ", "GET /", "10.2.", "java.lang", "absentword"})
	var used []storage.Gap
	for _, tm := range s.templates {
		used = append(used, tm.Gaps...)
	}
	for g := storage.GapLine; g <= storage.GapTime; g++ {
		require.Contains(t, used, g)
	}
}
