package ingest

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
)

// SourceHeader is the header of HTTP and, in lower case, the metadata of gRPC by which a sender says where the whole
// request comes from (see telemetry.Source). Its value is a query string:
//
//	Braid-Source: stream=agent%2Fnode-1&file=queue-7&from=41&to=42
const SourceHeader = "Braid-Source"

// FormatSource returns the value of the header for s.
func FormatSource(s telemetry.Source) string {
	return url.Values{
		"stream": {s.Stream}, "file": {s.File}, "from": {strconv.FormatUint(s.From, 10)}, "to": {strconv.FormatUint(s.To, 10)},
	}.Encode()
}

// ParseSource reads the values of the header; none is nil. Errors are httpapi.BadData.
func ParseSource(header []string) (*telemetry.Source, error) {
	if len(header) == 0 {
		return nil, nil //nolint:nilnil // most requests have none
	}
	bad := func(format string, args ...any) error {
		text := fmt.Sprintf(format, args...)
		return httpapi.BadDataf("header %s: %s", SourceHeader, strings.ToValidUTF8(text[:min(len(text), 200)], "\uFFFD"))
	}
	q, err := url.ParseQuery(header[0])
	if err != nil {
		return nil, bad("%v", err)
	}
	src := &telemetry.Source{Stream: q.Get("stream"), File: q.Get("file")}
	for name, into := range map[string]*uint64{"from": &src.From, "to": &src.To} {
		if *into, err = strconv.ParseUint(q.Get(name), 10, 63); err != nil {
			return nil, bad("%s is no position: %q", name, q.Get(name))
		}
	}
	if err := src.Check(0); err != nil {
		return nil, bad("%v", err)
	}
	return src, nil
}
