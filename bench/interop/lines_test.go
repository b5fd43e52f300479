//go:build long

package interop

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/bench/harness"
)

// TestRealLines pushes the lines of all .log files below the folder LINES_DIR and junk besides, and reads them back byte
// for byte: from memory, from parts, and after kill -9.
func TestRealLines(t *testing.T) {
	dir := os.Getenv("LINES_DIR")
	if dir == "" {
		t.Skip("LINES_DIR names no folder with .log files")
	}
	files := map[string][]string{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(path, ".log") {
			return err
		}
		b, err := os.ReadFile(path)
		name := strings.TrimSuffix(filepath.Base(path), ".log")
		for line := range strings.SplitSeq(string(b), "\n") {
			files[name] = append(files[name], strings.ToValidUTF8(line, "?")) // JSON holds nothing else
		}
		return err
	}))
	require.GreaterOrEqual(t, len(files), 16)
	files["junk"] = junk()

	ctx := t.Context()
	data := t.TempDir()
	start := func() *harness.Server {
		s, err := harness.Start(ctx, harness.Options{Binary: braid, Data: data, Config: "storage:\n  flush_interval: 2s\n"})
		require.NoError(t, err)
		t.Cleanup(s.Kill)
		return s
	}
	s := start()
	base := time.Now().Add(-30 * time.Minute).UnixNano()
	total := 0
	for name, lines := range files {
		for from := 0; from < len(lines); from += 500 {
			values := [][2]string{}
			for i, line := range lines[from:min(from+500, len(lines))] {
				values = append(values, [2]string{strconv.FormatInt(base+int64(from+i)*1000, 10), line})
			}
			body, err := json.Marshal(map[string]any{"streams": []any{map[string]any{"stream": map[string]string{"system": name}, "values": values}}})
			require.NoError(t, err)
			resp, err := http.Post("http://"+s.HTTP+"/loki/api/v1/push", "application/json", bytes.NewReader(body))
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			require.Equal(t, http.StatusNoContent, resp.StatusCode, name)
		}
		total += len(lines)
	}
	compare := func(when string) {
		for name, want := range files {
			got := readBack(t, s, name, base, len(want))
			require.Len(t, got, len(want), "%s, %s", when, name)
			for i := range want {
				if len(want[i]) > 1<<20 {
					require.Equal(t, want[i][:1<<20], got[i], "%s, %s: line %d is cut", when, name, i)
					continue
				}
				require.Equal(t, want[i], got[i], "%s, %s: line %d", when, name, i)
			}
		}
	}
	compare("in memory")
	require.Eventually(t, func() bool {
		left, err := s.Metric(ctx, "braid_storage_head_records", `signal="logs"`)
		return err == nil && left == 0
	}, time.Minute, 100*time.Millisecond)
	compare("in parts")
	s.Kill()
	s = start()
	compare("after kill -9")
	t.Logf("%d lines of %d systems", total, len(files))
}

// junk returns lines that are nothing anybody should log.
func junk() []string {
	keys := strings.Builder{}
	keys.WriteString(`{`)
	for i := range 10_000 {
		if i > 0 {
			keys.WriteString(",")
		}
		keys.WriteString(`"k` + strconv.Itoa(i) + `":` + strconv.Itoa(i*i))
	}
	keys.WriteString(`}`)
	lines := []string{
		"a\x00b", "\x1b[31mred\x1b[0m", "", " ", "\t", "\r", `{"a":`, `{"a":"\u00zz"}`, `{"a":1e999}`, `=`, `a="`, `"`, `\`, strings.Repeat("x", 1<<20),
		strings.Repeat("y", 10<<20), keys.String(), strings.Repeat(`{"a":`, 1000) + "1" + strings.Repeat("}", 1000), strings.Repeat("[", 1000),
		"\x11\x12\x13\x14\x15", "ünïcödé \u2028 \U0001F600", `level=error level=info level=`, "12 34 56 78 0x 00 007 1e5 -0 -1 +1 9223372036854775808",
	}
	for i, l := range lines {
		if !utf8.ValidString(l) {
			panic(i)
		}
	}
	return lines
}

// readBack returns the lines of a system, oldest first.
func readBack(t *testing.T, s *harness.Server, system string, base int64, n int) []string {
	t.Helper()
	out := make([]string, 0, n)
	for from := 0; from < n; from += 1000 {
		q := url.Values{
			"query": {`{system="` + system + `"}`}, "direction": {"forward"}, "limit": {"1000"},
			"start": {strconv.FormatInt(base+int64(from)*1000, 10)}, "end": {strconv.FormatInt(base+int64(from+1000)*1000, 10)},
		}
		var answer struct {
			Data struct {
				Result []struct {
					Values [][]string `json:"values"`
				} `json:"result"`
			} `json:"data"`
		}
		ok, err := s.JSON(t.Context(), "/loki/api/v1/query_range", q, &answer)
		require.NoError(t, err)
		require.True(t, ok)
		byTime := map[int64]string{}
		for _, r := range answer.Data.Result {
			for _, v := range r.Values {
				at, err := strconv.ParseInt(v[0], 10, 64)
				require.NoError(t, err)
				byTime[at] = v[1]
			}
		}
		for i := from; i < min(from+1000, n); i++ {
			if line, ok := byTime[base+int64(i)*1000]; ok {
				out = append(out, line)
			}
		}
	}
	return out
}
