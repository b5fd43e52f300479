package extract_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/ingest/extract"
)

const at = int64(1769868305123000000) // 2026-01-31T14:05:05.123Z

func show(a []extract.Attribute) string {
	var out []string
	for _, x := range a {
		v := string(x.Value.Bytes)
		switch x.Value.Kind {
		case extract.String:
			v = fmt.Sprintf("%q", v)
		case extract.Int:
			v = strconv.FormatInt(x.Value.Int, 10)
		case extract.Float:
			v = fmt.Sprintf("%gf", x.Value.Float)
		case extract.Bool:
			v = strconv.FormatBool(x.Value.Bool)
		case extract.JSON:
			v = "json " + v
		}
		out = append(out, string(x.Key)+"="+v)
	}
	return strings.Join(out, " ")
}

func TestParse(t *testing.T) {
	const trace, span = "0123456789abcdef0123456789ABCDEF", "0123456789abcdef"
	tests := []struct {
		name, in string
		time     int64
		severity int
		trace    string
		span     string
		message  string
		attrs    string
	}{
		{name: "empty"},
		{name: "plain", in: "hello error world"},
		{name: "plain level", in: "2026-01-31 14:05:05 ERROR something", severity: 17},
		{name: "plain level in brackets", in: "[warn] something", severity: 13},
		{name: "go panic", in: "panic: runtime error", severity: 21},
		{name: "plain level too late", in: strings.Repeat("x", 80) + " ERROR"},
		{name: "no level in words", in: "MY_ERROR 3INFO terrors INFOS"},
		{
			name: "json", in: `{"ts":"2026-01-31T14:05:05.123Z","level":"warn","msg":"hi \"you\"","trace_id":"` + trace + `","span_id":"` + span + `","n":1,"f":1.5,"b":true,"z":null,"o":{"a":"x","p":{"q":-2}},"l":[1,{"a":"]"}]}`,
			time: at, severity: 13, trace: strings.ToLower(trace), span: span, message: `hi "you"`,
			attrs: `n=1 f=1.5f b=true o.a="x" o.p.q=-2 l=json [1,{"a":"]"}]`,
		},
		{name: "json last of a key wins", in: `{"a":1,"b":2,"a":"x"}`, attrs: `a="x" b=2`},
		{name: "json depth", in: `{"a":{"b":{"c":{"d":{"e":{"f":1}}}}}}`, attrs: `a.b.c.d.e=json {"f":1}`},
		{name: "json nested level", in: `{"log":{"level":"error"},"trace":{"id":"` + span + `"}}`, severity: 17, trace: strings.Repeat("0", 16) + span},
		{name: "pino", in: `{"level":30,"time":1769868305123,"msg":"x"}`, time: at, severity: 9, message: "x"},
		{name: "bunyan fatal", in: `{"level":60,"v":0}`, severity: 21, attrs: "v=0"},
		{name: "zap epoch", in: `{"level":"dpanic","ts":1769868305.123}`, time: at, severity: 18},
		{name: "zap number", in: `{"level":-1}`, severity: 5},
		{name: "syslog", in: `{"severity":3}`, severity: 17},
		{name: "exponent", in: `{"ts":1.769868305123E9}`, time: at},
		{name: "nanoseconds", in: `{"ts":1769868305123000000}`, time: at},
		{name: "microseconds in text", in: `{"ts":"1769868305123000"}`, time: at},
		{name: "serilog", in: `{"@t":"2026-01-31T14:05:05.123Z","@l":"Warning","@m":"x"}`, time: at, severity: 13, message: "x"},
		{name: "python", in: `{"timestamp":"2026-01-31 14:05:05,123","message":""}`, time: at},
		{name: "offset without colon", in: `{"timestamp":"2026-01-31T16:05:05.123+0200"}`, time: at},
		{name: "offset", in: `{"timestamp":"2026-01-31 16:05:05.123+02:00"}`, time: at},
		{name: "not a time", in: `{"time":"later","t":5,"level":"odd","msg":3}`, attrs: `time="later" t=5 level="odd" msg=3`},
		{name: "datadog", in: `{"dd.trace_id":"1234567890123456","dd.span_id":81985529216486895}`, trace: "0000000000000000000462d53c8abac0", span: span},
		{name: "google", in: `{"logging.googleapis.com/trace":"projects/p/traces/` + trace + `"}`, trace: strings.ToLower(trace)},
		{name: "traceparent", in: `{"traceparent":"00-` + trace + `-` + span + `-01"}`, trace: strings.ToLower(trace), span: span},
		{name: "bad ids stay", in: `{"trace_id":"00000000000000000000000000000000","span_id":"xyz"}`, attrs: `trace_id="00000000000000000000000000000000" span_id="xyz"`},
		{name: "escapes", in: `{"msg":"\u00e9\ud83d\ude00\n\ud83d","k\t":"v"}`, message: "é😀\n\ufffd", attrs: "k\t=\"v\""},
		{name: "json cut off", in: `{"level":"error","msg":"x`},
		{name: "json and more", in: `{"level":"error"} x`},
		{name: "json wrong escape", in: `{"a":"\x"}`},
		{name: "wrong numbers", in: `{"a":01}`},
		{name: "huge number", in: `{"a":1e999,"b":12345678901234567890}`, attrs: `a="1e999" b=1.2345678901234567e+19f`},
		{
			name: "logfmt", in: `time=2026-01-31T14:05:05.123Z level=info msg="hello \"w\"" n=3 d=1.5s f=0.5 ok=true e= trace_id=` + trace,
			time: at, severity: 9, message: `hello "w"`, trace: strings.ToLower(trace), attrs: `n=3 d="1.5s" f=0.5f ok=true e=""`,
		},
		{name: "not logfmt", in: `key=value and then words INFO`, severity: 9},
		{
			name: "klog", in: `W0131 14:05:05.123456       7 file.go:12] hello] world`,
			severity: 13, message: "hello] world", attrs: `thread.id=7 caller="file.go:12"`,
		},
		{name: "nearly klog", in: `W0131 14:05:05.12345x       7 file.go:12] hello`},
		{name: "CR", in: "{\"msg\":\"x\"}\r\n", message: "x"},
	}
	var sticky extract.Parser
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for i, p := range []*extract.Parser{{}, &sticky} {
				in := []byte(tt.in)
				var got extract.Fields
				p.Parse(in, &got)
				require.Equal(t, tt.in, string(in), "the line was changed")
				require.Equal(t, tt.time, got.Time, "parser %d", i)
				require.Equal(t, tt.severity, got.Severity)
				require.Equal(t, tt.severity > 0, len(got.SeverityText) > 0)
				require.Equal(t, tt.message, string(got.Message))
				require.Equal(t, tt.attrs, show(got.Attributes))
				require.Equal(t, tt.trace, unlessZero(got.TraceID[:]))
				require.Equal(t, tt.span, unlessZero(got.SpanID[:]))
			}
		})
	}
}

func unlessZero(b []byte) string {
	if bytes.Equal(b, make([]byte, len(b))) {
		return ""
	}
	return hex.EncodeToString(b)
}

// A stream changes its format, or mixes two: each line is read as what it is, whatever came before.
func TestFormatChanges(t *testing.T) {
	var p extract.Parser
	var got extract.Fields
	for round := range 3 {
		for range 50 * (round + 1) {
			p.Parse([]byte("starting up"), &got)
			require.Empty(t, got.Attributes)
		}
		for range 50 {
			p.Parse([]byte(`{"level":"info","a":1}`), &got)
			require.Equal(t, 9, got.Severity)
			p.Parse([]byte(`WARN plain text`), &got)
			require.Equal(t, 13, got.Severity)
			require.Empty(t, got.Attributes)
		}
	}
	for i := range 2100 { // plain lines are not looked at for logfmt each time
		p.Parse([]byte(`level=info a=1`), &got)
		if i > 1100 {
			require.Equal(t, 9, got.Severity)
			require.Len(t, got.Attributes, 1)
		}
	}
}

func TestBounds(t *testing.T) {
	var p extract.Parser
	var got extract.Fields
	var b strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&b, `,"k%d":{"v":%d}`, i, i)
	}
	p.Parse([]byte("{"+b.String()[1:]+"}"), &got)
	require.Len(t, got.Attributes, 256)
	require.Equal(t, 10_000-256, got.Dropped)

	p.Parse([]byte(strings.Repeat(`{"a":`, 1000)+"1"+strings.Repeat("}", 1000)), &got)
	require.Len(t, got.Attributes, 1)
	require.Equal(t, "a.a.a.a.a", string(got.Attributes[0].Key))

	p.Parse([]byte(`{"`+strings.Repeat("k", 300)+`":1,"a":{"`+strings.Repeat("k", 300)+`":{"b":1}}}`), &got)
	require.Empty(t, got.Attributes)
	require.Equal(t, 2, got.Dropped)

	hostile := []byte(`{"` + strings.Repeat("k", 200) + `":{"a":1` + strings.Repeat(`,"a":1`, 100_000) + "}}")
	n := testing.AllocsPerRun(3, func() { p.Parse(hostile, &got) })
	require.Less(t, n, 1.0)
	require.Len(t, got.Attributes, 1)
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"ts":"2026-01-31T14:05:05.123Z","level":30,"a":{"b":[1,"\u00e9"]},"a.b":1e3}`), []byte(`x`))
	f.Add([]byte(`time=1769868305 level=info msg="a \"b\"" x`), []byte(`{"a":1}`))
	f.Add([]byte(`E0131 14:05:05.123456       7 file.go:12] hello`), []byte(`ERROR x`))
	f.Fuzz(func(t *testing.T, first, b []byte) {
		var p, fresh extract.Parser
		var got, alone extract.Fields
		p.Parse(first, &got)
		in := bytes.Clone(b)
		p.Parse(b, &got)
		require.Equal(t, in, b)
		require.LessOrEqual(t, len(got.Attributes), 256)
		require.LessOrEqual(t, got.Severity, 24)
		fresh.Parse(b, &alone)
		require.Equal(t, alone.Time, got.Time)
		require.Equal(t, show(alone.Attributes), show(got.Attributes))
		// What the standard library reads as a flat object is read alike.
		var std map[string]any
		if json.Unmarshal(b, &std) != nil || len(std) != 1 || !bytes.Equal(b, bytes.ToValidUTF8(b, nil)) {
			return
		}
		for k, v := range std {
			s, ok := v.(string)
			if !ok || len(k) > 256 || len(got.Attributes) == 0 {
				return
			}
			require.Equal(t, k, string(got.Attributes[0].Key))
			require.Equal(t, s, string(got.Attributes[0].Value.Bytes))
		}
	})
}

func BenchmarkParse(b *testing.B) {
	for name, in := range map[string]string{
		"json":   `{"level":"info","ts":"2026-01-31T14:05:05.123456789Z","caller":"server/handler.go:123","msg":"request done","method":"GET","path":"/api/v1/query_range","status":200,"duration":0.0123,"trace_id":"0123456789abcdef0123456789abcdef"}`,
		"logfmt": `ts=2026-01-31T14:05:05.123456789Z level=info caller=server/handler.go:123 msg="request done" method=GET path=/api/v1/query_range status=200 duration=12.3ms`,
		"klog":   `I0131 14:05:05.123456       7 handler.go:123] request done method GET path /api/v1/query_range status 200 in 12.3ms`,
		"plain":  `2026-01-31 14:05:05.123 INFO 1 --- [nio-8080-exec-1] c.e.d.Handler : request done GET /api/v1/query_range 200 in 12.3ms`,
	} {
		b.Run(name, func(b *testing.B) {
			var p extract.Parser
			var f extract.Fields
			line := []byte(in)
			b.SetBytes(int64(len(line)))
			b.ReportAllocs()
			for b.Loop() {
				p.Parse(line, &f)
			}
			require.NotZero(b, f.Severity)
		})
	}
}

func TestTimeIsThatOfTheStandardLibrary(t *testing.T) {
	var p extract.Parser
	var got extract.Fields
	for i := range 1000 {
		when := time.Unix(int64(i)*1_900_000, int64(i)*999_000).UTC()
		p.Parse([]byte(`{"time":"`+when.Format(time.RFC3339Nano)+`"}`), &got)
		require.Equal(t, when.UnixNano(), got.Time)
	}
}
