package syslog

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/ingest"
	"github.com/braidobs/braid/internal/telemetry"
)

// now is the time of the tests.
var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.FixedZone("", 3600))

func show(m message) string {
	at := "-"
	if m.time != 0 {
		at = time.Unix(0, m.time).UTC().Format(time.RFC3339Nano)
	}
	return fmt.Sprintf("%d %s host=%s app=%s pid=%s id=%s %s %q", m.priority, at, m.host, m.app, m.procID, m.msgID, telemetry.NewAttrs(m.data).AppendJSON(nil), m.body)
}

func TestParse(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"empty", "", `-1 - host= app= pid= id= {} ""`},
		{"text", "hello world", `-1 - host= app= pid= id= {} "hello world"`},
		{"5424", `<165>1 2003-10-11T22:14:15.003Z mymachine.example.com evntslog - ID47 [exampleSDID@32473 iut="3" eventSource="Application" eventID="1011"] An application event log entry...`, `165 2003-10-11T22:14:15.003Z host=mymachine.example.com app=evntslog pid= id=ID47 {"exampleSDID@32473.eventID":"1011","exampleSDID@32473.eventSource":"Application","exampleSDID@32473.iut":"3"} "An application event log entry..."`},
		{"5424 with BOM", "<34>1 2003-10-11T22:14:15.003+02:00 h su 7 ID47 - \ufeff'su root' failed", `34 2003-10-11T20:14:15.003Z host=h app=su pid=7 id=ID47 {} "'su root' failed"`},
		{"5424 with nothing", "<13>1 - - - - - -", `13 - host= app= pid= id= {} ""`},
		{"5424 two elements", `<13>1 - h a - - [x@1 a="b\"c\]\\d\e"][y]  two blanks`, `13 - host=h app=a pid= id= {"x@1.a":"b\"c]\\d\\e"} " two blanks"`},
		{"5424 with a data that does not end", `<13>1 - h a - - [x@1 a="b`, `13 - host= app= pid= id= {} "1 - h a - - [x@1 a=\"b"`},
		{"5424 with another time", "<13>1 yesterday h a - - - x", `13 - host= app= pid= id= {} "1 yesterday h a - - - x"`},
		{"5424 cut off", "<13>1 2003-10-11T22:14:15.003Z h a", `13 - host= app= pid= id= {} "1 2003-10-11T22:14:15.003Z h a"`},
		{"3164", "<34>Feb 11 22:14:15 mymachine su[231]: 'su root' failed: x", `34 2026-02-11T21:14:15Z host=mymachine app=su pid=231 id= {} "'su root' failed: x"`},
		{"3164 of last year", "<34>Oct  1 22:14:15 mymachine su: x", `34 2025-10-01T21:14:15Z host=mymachine app=su pid= id= {} "x"`},
		{"3164 of tomorrow", "<34>Mar  2 11:00:00 h su: x", `34 2026-03-02T10:00:00Z host=h app=su pid= id= {} "x"`},
		{"3164 without a tag", "<34>Feb 11 22:14:15 h hello world: x", `34 2026-02-11T21:14:15Z host=h app= pid= id= {} "hello world: x"`},
		{"3164 without a host", "<34>Feb 11 22:14:15 su[1]: x", `34 2026-02-11T21:14:15Z host= app=su pid=1 id= {} "x"`},
		{"3164 without a time", "<34>su: x", `34 - host= app= pid= id= {} "su: x"`},
		{"3164 with a fraction", "<34>Feb 11 22:14:15.25 h a: x", `34 2026-02-11T21:14:15.25Z host=h app=a pid= id= {} "x"`},
		{"cisco", "<189>Feb 11 2024 22:14:15: %ASA-6-302013: Built", `189 2024-02-11T21:14:15Z host= app=%ASA-6-302013 pid= id= {} "Built"`},
		{"rsyslog", "<34>2026-02-11T22:14:15.5+01:00 h app[7]: x", `34 2026-02-11T21:14:15.5Z host=h app=app pid=7 id= {} "x"`},
		{"without priority", "Feb 11 22:14:15 h app: x", `-1 2026-02-11T21:14:15Z host=h app=app pid= id= {} "x"`},
		{"no priority", "<999>x", `-1 - host= app= pid= id= {} "<999>x"`},
		{"no number", "<a>x", `-1 - host= app= pid= id= {} "<a>x"`},
		{"not UTF-8", "<13>1 - h\xff a - - - x\xff\x00y", `13 - host=h� app=a pid= id= {} "x\xff\x00y"`},
	}
	var p parser
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			require.Equal(t, tt.want, show(p.parse([]byte(tt.in), now)))
		})
	}
	m := message{priority: 8*23 + 3}
	n, word := m.severity()
	require.Equal(t, "17 err local7", fmt.Sprint(n, " ", word, " ", m.facility()))
	m.priority = -1
	n, word = m.severity()
	require.Equal(t, "0 ", fmt.Sprint(n, " ", word, m.facility()))
}

func TestFrames(t *testing.T) {
	long := strings.Repeat("x", maxMessage+5000)
	tests := []struct {
		name, in string
		want     []string
		err      error
	}{
		{"nothing", "", nil, io.EOF},
		{"lines", "<1>a\n<2>b\r\n\n<3>c", []string{"<1>a\n", "<2>b\r\n", "<3>c"}, io.EOF},
		{"counted", "4 <1>a9 <2>b\nb\nbb 3 <3>", []string{"<1>a", "<2>b\nb\nbb", "<3>"}, io.EOF},
		{"both", "4 <1>a<2>b\n5 <3>cc", []string{"<1>a", "<2>b\n", "<3>cc"}, io.EOF},
		{"a line with a number in front", "12 apples\n2026 x\n7\n", []string{"12 apples\n", "2026 x\n", "7\n"}, io.EOF},
		{"a long number", "12345678901234 <x\n", []string{"12345678901234 <x\n"}, io.EOF},
		{"counted, cut off", "10 <1>a", []string{"<1>a"}, io.ErrUnexpectedEOF},
		{"counted, too long", "999999999 <1>a\n", nil, errFrame},
		{"long line", long + "\n<1>b\n", []string{long[:maxMessage], "<1>b\n"}, io.EOF},
		{"long and counted", fmt.Sprintf("%d <%s4 <1>b", len(long)+1, long), []string{"<" + long[:maxMessage-1], "<1>b"}, io.EOF},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			readers := []io.Reader{strings.NewReader(tt.in)}
			if len(tt.in) < 1000 {
				readers = append(readers, iotest.OneByteReader(strings.NewReader(tt.in)))
			}
			for _, r := range readers {
				f := framer{r: bufio.NewReader(r)}
				var got []string
				var err error
				for err == nil {
					var b []byte
					if b, err = f.next(); len(b) > 0 {
						got = append(got, string(b))
					}
				}
				require.ErrorIs(t, err, tt.err)
				require.Len(t, got, len(tt.want))
				for i := range got {
					if got[i] != tt.want[i] { // which may have a megabyte
						t.Fatalf("frame %d: %.40q is not %.40q", i, got[i], tt.want[i])
					}
				}
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`<165>1 2003-10-11T22:14:15.003Z h a 1 ID47 [x@1 a="b\"c"][y] text`))
	f.Add([]byte("<34>Feb 11 22:14:15.25 h su[231]: x"))
	f.Add([]byte("<189>Feb 11 2024 22:14:15: %ASA-6-302013: Built"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var p parser
		in := bytes.Clone(b)
		m := p.parse(b, now)
		require.Equal(t, in, b)
		require.GreaterOrEqual(t, m.priority, -1)
		require.Less(t, m.priority, 192)
		require.True(t, bytes.HasSuffix(b, []byte(m.body)), "the body is what stands at the end")
		m.severity()
		m.facility()
		s := &Server{Deps: Deps{Now: func() time.Time { return now }}}
		for _, batch := range batches([]received{s.receive(&p, b, nil)}) {
			require.NoError(t, batch.Stream.Check())
			require.NotEmpty(t, batch.Stream.Get(ingest.ServiceName))
		}
	})
}

func FuzzFrames(f *testing.F) {
	f.Add([]byte("4 <1>a<2>b\n5 <3>cc12 apples\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		f := framer{r: bufio.NewReaderSize(bytes.NewReader(b), 16)}
		total := 0
		for {
			m, err := f.next()
			total += len(m)
			if err != nil {
				require.True(t, errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, errFrame), err)
				break
			}
			require.NotEmpty(t, m)
		}
		require.LessOrEqual(t, total, len(b))
	})
}

func BenchmarkParse(b *testing.B) {
	in := []byte(`<165>1 2026-02-11T22:14:15.003Z web-17 nginx 4711 access [x@1 a="b"] 10.2.3.4 - - "GET /api/v1/query_range HTTP/1.1" 200 5316`)
	var p parser
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	for b.Loop() {
		p.parse(in, now)
	}
}
