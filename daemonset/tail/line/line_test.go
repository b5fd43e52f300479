package line_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/braidobs/braid/daemonset/tail/line"
)

const at = int64(1769868305123456789) // 2026-01-31T14:05:05.123456789Z

func TestCRI(t *testing.T) {
	const ts = "2026-01-31T14:05:05.123456789Z"
	tests := []struct {
		name, in string
		want     line.Line
	}{
		{"full", ts + " stdout F hello", line.Line{Time: at, Body: []byte("hello")}},
		{"stderr partial", ts + " stderr P he", line.Line{Time: at, Stderr: true, Partial: true, Body: []byte("he")}},
		{"empty", ts + " stdout F ", line.Line{Time: at}},
		{"empty without the space", ts + " stdout F", line.Line{Time: at}},
		{"more tags", ts + " stdout P:a:b x y", line.Line{Time: at, Partial: true, Body: []byte("x y")}},
		{"more tags and nothing else", ts + " stdout F:a", line.Line{Time: at}},
		{"no fraction", "2026-01-31T14:05:05Z stdout F x", line.Line{Time: at - 123456789, Body: []byte("x")}},
		{"trimmed fraction", "2026-01-31T14:05:05.1234Z stdout F x", line.Line{Time: at - 56789, Body: []byte("x")}},
		{"offset", "2026-01-31T16:05:05.123456789+02:00 stdout F x", line.Line{Time: at, Body: []byte("x")}},
		{"negative offset", "2026-01-31T08:35:05.123456789-05:30 stdout F x", line.Line{Time: at, Body: []byte("x")}},
		{"year 1", "0001-01-01T00:00:00Z stdout F x", line.Line{Body: []byte("x")}},
		{"year 9999", "9999-12-31T23:59:59.999999999Z stdout F x", line.Line{Body: []byte("x")}},
		{"CR and NUL stay", ts + " stdout F a\rb\x00\xff\r", line.Line{Time: at, Body: []byte("a\rb\x00\xff\r")}},
		{
			"torn: two headers", ts + " stdout " + ts + " stderr F text",
			line.Line{Time: at, Stderr: true, Torn: true, Skipped: len(ts) + 8, Body: []byte("text")},
		},
		{
			"torn: the last header counts", "nd of one " + ts + " stdout F a" + ts + " stdout F b stdout ",
			line.Line{Time: at, Torn: true, Skipped: len("nd of one " + ts + " stdout F a"), Body: []byte("b stdout ")},
		},
		{"torn: NULs in front", "\x00\x00\x00" + ts + " stdout F x", line.Line{Time: at, Torn: true, Skipped: 3, Body: []byte("x")}},
		{"text with a header in it", ts + " stdout F a " + ts + " stdout F b", line.Line{Time: at, Body: []byte("a " + ts + " stdout F b")}},
		{"nothing", "", line.Line{Torn: true}},
		{"junk", "junk\r", line.Line{Torn: true, Body: []byte("junk")}},
		{"unknown tag", ts + " stdout X a", line.Line{Torn: true, Body: []byte(ts + " stdout X a")}},
		{"unknown output", ts + " stdlog F a", line.Line{Torn: true, Body: []byte(ts + " stdlog F a")}},
		{"ten digits", "2026-01-31T14:05:05.1234567891Z stdout F x", line.Line{Torn: true, Body: []byte("2026-01-31T14:05:05.1234567891Z stdout F x")}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var p line.Parser
			got := p.Parse(line.CRI, []byte(tt.in))
			require.Equal(t, string(tt.want.Body), string(got.Body))
			tt.want.Body, got.Body = nil, nil
			require.Equal(t, tt.want, got)
		})
	}
}

// A header that is cut anywhere is torn text, and the parser goes on with the next line.
func TestCRICutAnywhere(t *testing.T) {
	const whole = "2026-01-31T14:05:05.123456789+02:00 stdout F"
	var p line.Parser
	for i := range len(whole) {
		got := p.Parse(line.CRI, []byte(whole[:i]))
		require.True(t, got.Torn, whole[:i])
		require.Equal(t, whole[:i], string(got.Body))
		got = p.Parse(line.CRI, []byte(whole+" x"))
		require.False(t, got.Torn)
		require.Equal(t, at-2*int64(time.Hour), got.Time)
	}
}

func TestStampIsThatOfTheStandardLibrary(t *testing.T) {
	var p line.Parser
	rapid.Check(t, func(t *rapid.T) {
		when := time.Unix(rapid.Int64Range(-9e9, 9e9).Draw(t, "sec"), rapid.Int64Range(0, 999999999).Draw(t, "ns"))
		when = when.In(time.FixedZone("", rapid.IntRange(-1439, 1439).Draw(t, "minutes east")*60))
		got := p.Parse(line.CRI, []byte(when.Format(time.RFC3339Nano)+" stdout F x"))
		require.Equal(t, "x", string(got.Body))
		require.Equal(t, when.UnixNano(), got.Time)
	})
}

func TestDocker(t *testing.T) {
	const ts = "2026-01-31T14:05:05.123456789Z"
	tests := []struct {
		name, in string
		want     line.Line
	}{
		{"full", `{"log":"hello\n","stream":"stdout","time":"` + ts + `"}`, line.Line{Time: at, Body: []byte("hello")}},
		{"partial", `{"log":"hel","stream":"stderr","time":"` + ts + `"}`, line.Line{Time: at, Stderr: true, Partial: true, Body: []byte("hel")}},
		{"CR", `{"log":"hello\r\n","stream":"stdout","time":"` + ts + `"}`, line.Line{Time: at, Body: []byte("hello")}},
		{"empty", `{"log":"\n","stream":"stdout","time":"` + ts + `"}`, line.Line{Time: at}},
		{"escapes", `{"log":"\"\\\/\b\f\t\u00e9\ud83d\ude00\u003c\n"}`, line.Line{Body: []byte("\"\\/\b\f\té😀<")}},
		{"lone surrogate", `{"log":"a\ud83dx\ud83d\u0041\n"}`, line.Line{Body: []byte("a\ufffdx\ufffdA")}},
		{"unknown escapes stay", `{"log":"\x\u12g4\u1\n"}`, line.Line{Body: []byte(`\x\u12g4\u1`)}},
		{"attributes", ` { "attrs":{"a":["}",{"b":1}]}, "n":null, "log" : "x\n" , "time":"` + ts + `" } `, line.Line{Time: at, Body: []byte("x")}},
		{"bad time", `{"log":"x\n","time":"` + ts + `x"}`, line.Line{Body: []byte("x")}},
		{"torn", `{"log":"cut of{"log":"x\n","time":"` + ts + `"}`, line.Line{Time: at, Torn: true, Skipped: 14, Body: []byte("x")}},
		{"junk", "junk", line.Line{Torn: true, Body: []byte("junk")}},
		{"no log", `{"a":"b"}`, line.Line{Torn: true, Body: []byte(`{"a":"b"}`)}},
		{"deep", `{"a":` + strings.Repeat("[", 1000), line.Line{Torn: true, Body: []byte(`{"a":` + strings.Repeat("[", 1000))}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var p line.Parser
			got := p.Parse(line.Docker, []byte(tt.in))
			require.Equal(t, string(tt.want.Body), string(got.Body))
			tt.want.Body, got.Body = nil, nil
			require.Equal(t, tt.want, got)
		})
	}
}

func TestDetect(t *testing.T) {
	for in, want := range map[string]line.Format{
		"2026-01-31T14:05:05Z stdout F x":     line.CRI,
		"2026-01-31T14:05:05Z stdout F":       line.CRI,
		`{"log":"` + strings.Repeat("x", 248): line.Docker,
		"2026-01-31T14:05:05Z something else": line.Raw,
		"":                                    line.Raw, `{"level":"info","log":"x"}`: line.Raw,
	} {
		got, ok := line.Detect([]byte(in))
		require.Equal(t, want, got, in)
		require.Equal(t, want != line.Raw, ok, in)
	}
	require.Equal(t, "cri docker raw unknown", fmt.Sprint(line.CRI, " ", line.Docker, " ", line.Raw, " ", line.Format(9)))
}

func TestRaw(t *testing.T) {
	var p line.Parser
	require.Equal(t, line.Line{Body: []byte("a\rb")}, p.Parse(line.Raw, []byte("a\rb\r")))
}

func FuzzCRI(f *testing.F) {
	f.Add([]byte("2026-01-31T14:05:05.123456789Z stdout F hello"))
	f.Add([]byte("2026-01-31T14:05:05.1Z stdout 2026-01-31T14:05:05+02:00 stderr P:x hello"))
	f.Add([]byte("x stdout  stderr "))
	f.Fuzz(func(t *testing.T, b []byte) {
		var p, q line.Parser
		in := bytes.Clone(b)
		got := p.Parse(line.CRI, b)
		require.Equal(t, in, b, "the line was written over")
		require.LessOrEqual(t, got.Skipped+len(got.Body), len(b))
		if got.Torn && got.Skipped == 0 {
			require.True(t, bytes.HasPrefix(b, got.Body))
		} else {
			require.True(t, bytes.HasSuffix(b, got.Body))
		}
		if !got.Torn { // what the standard library takes for the time is the same
			stamp, _, _ := bytes.Cut(b, []byte(" "))
			if when, err := time.Parse(time.RFC3339Nano, string(stamp)); err == nil && got.Time != 0 {
				require.Equal(t, when.UnixNano(), got.Time)
			}
		}
		p.Parse(line.CRI, []byte("1999-01-31T14:05:05Z stdout F x"))
		require.Equal(t, q.Parse(line.CRI, b), p.Parse(line.CRI, b), "the parser's past shows")
	})
}

func FuzzDocker(f *testing.F) {
	f.Add([]byte(`{"log":"hello\n","stream":"stdout","time":"2026-01-31T14:05:05.123456789Z"}`))
	f.Add([]byte(`{"log":"\u00e9\ud83d\ude00\\\"","attrs":{"a":[1,{}]},"stream":"stderr"}`))
	f.Add([]byte(`{"log":"cut{"log":"x\n"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var std struct {
			Log    *string `json:"log"`
			Stream string  `json:"stream"`
		}
		valid := json.Unmarshal(b, &std) == nil && std.Log != nil && bytes.HasPrefix(b, []byte(`{"log":"`)) &&
			bytes.Count(b, []byte("log")) == 1 && bytes.Count(b, []byte("stream")) <= 1 && !bytes.Contains(b, []byte(`\u00`)) &&
			bytes.Count(bytes.ToLower(b), []byte("log")) == 1 && bytes.Equal(b, bytes.ToValidUTF8(b, nil))
		depth := strings.Count(string(b), "{") + strings.Count(string(b), "[")
		var p line.Parser
		in := string(b)
		got := p.Parse(line.Docker, b)
		require.LessOrEqual(t, got.Skipped+len(got.Body), len(b))
		if valid && depth < 8 {
			require.False(t, got.Torn, in)
			want := strings.TrimSuffix(*std.Log, "\n")
			if want != *std.Log {
				want = strings.TrimSuffix(want, "\r")
			}
			require.Equal(t, want, string(got.Body), in)
		}
	})
}

func benchmarkLines(b *testing.B, f line.Format, format string) {
	b.Helper()
	var buf bytes.Buffer
	for i := 0; buf.Len() < 256<<10; i++ {
		fmt.Fprintf(&buf, format, i%60, i, strings.Repeat("lorem ipsum ", 10))
	}
	var p line.Parser
	work := make([]byte, buf.Len())
	b.SetBytes(int64(buf.Len()))
	b.ReportAllocs()
	for b.Loop() {
		copy(work, buf.Bytes())
		total := 0
		for rest := work; len(rest) > 0; {
			i := bytes.IndexByte(rest, '\n')
			total += len(p.Parse(f, rest[:i]).Body)
			rest = rest[i+1:]
		}
		if total == 0 {
			b.Fatal("no text")
		}
	}
}

func BenchmarkCRI(b *testing.B) {
	benchmarkLines(b, line.CRI, "2026-01-31T14:05:%02d.%09dZ stdout F %s\n")
}

func BenchmarkDocker(b *testing.B) {
	benchmarkLines(b, line.Docker, `{"log":"%d %d %s\n","stream":"stdout","time":"2026-01-31T14:05:05.123456789Z"}`+"\n")
}
