package zipkin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"

	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
)

// jsonSpan is a span as JSON has it. Fields that it does not name are ignored.
type jsonSpan struct {
	TraceID        string                `json:"traceId"`
	ID             string                `json:"id"`
	ParentID       string                `json:"parentId"`
	Kind           string                `json:"kind"`
	Name           string                `json:"name"`
	Timestamp      json.Number           `json:"timestamp"`
	Duration       json.Number           `json:"duration"`
	LocalEndpoint  *jsonEndpoint         `json:"localEndpoint"`
	RemoteEndpoint *jsonEndpoint         `json:"remoteEndpoint"`
	Annotations    []jsonNote            `json:"annotations"`
	Tags           map[string]jsonString `json:"tags"`
	Debug          bool                  `json:"debug"`
	Shared         bool                  `json:"shared"`
}

type jsonEndpoint struct {
	ServiceName string `json:"serviceName"`
	IPv4        string `json:"ipv4"`
	IPv6        string `json:"ipv6"`
	Port        int64  `json:"port"`
}

type jsonNote struct {
	Timestamp json.Number `json:"timestamp"`
	Value     string      `json:"value"`
}

// jsonString is a string; a number or a boolean, which some senders write, is its text.
type jsonString string

// UnmarshalJSON implements json.Unmarshaler.
func (s *jsonString) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		return json.Unmarshal(b, (*string)(s))
	}
	if len(b) > 0 && (b[0] == '{' || b[0] == '[') {
		return errors.New("a tag is not a text")
	}
	*s = jsonString(b)
	return nil
}

// json decodes a list of spans, one at a time.
func (d *decoder) json(body []byte) error {
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	malformed := func(err error) error {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return httpapi.BadDataf("the request is malformed at byte %d, span %d: %s", dec.InputOffset(), d.n+1, strings.ToValidUTF8(err.Error(), "\uFFFD"))
	}
	if t, err := dec.Token(); err != nil || t != json.Delim('[') {
		return malformed(errors.Join(err, errors.New("want a list of spans: [{...}]")))
	}
	for dec.More() {
		if err := d.room.Take(0, spanSize); err != nil {
			return err
		}
		var j jsonSpan
		if err := dec.Decode(&j); err != nil {
			return malformed(err)
		}
		z, err := j.span()
		if err != nil {
			d.n++
			d.rejected.Spans++
			d.rejected.Reason("span %d: %s", d.n, strings.ToValidUTF8(err.Error(), "\uFFFD"))
			continue
		}
		d.add(z)
	}
	if _, err := dec.Token(); err != nil {
		return malformed(err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return malformed(errors.New("something follows the list"))
	}
	return nil
}

// span returns the span that j stands for.
func (j *jsonSpan) span() (*span, error) {
	z := &span{kind: kindOf(j.Kind), name: j.Name, local: j.LocalEndpoint.endpoint(), remote: j.RemoteEndpoint.endpoint(), debug: j.Debug, shared: j.Shared}
	var errs [6]error
	z.trace, errs[0] = rawID(j.TraceID)
	z.id, errs[1] = rawID(j.ID)
	z.parent, errs[2] = rawID(j.ParentID)
	number := func(n json.Number) (uint64, error) {
		if n == "" {
			return 0, nil
		}
		return micros(n.String())
	}
	z.at, errs[3] = number(j.Timestamp)
	z.duration, errs[4] = number(j.Duration)
	for _, a := range j.Annotations {
		n := note{value: a.Value}
		var err error
		n.at, err = number(a.Timestamp)
		errs[5] = errors.Join(errs[5], err)
		z.notes = append(z.notes, n)
	}
	for i, what := range []string{"traceId", "id", "parentId", "timestamp", "duration", "annotations"} {
		if errs[i] != nil {
			return nil, fmt.Errorf("%s: %w", what, errs[i])
		}
	}
	z.notes = sorted(z.notes)
	for k, v := range j.Tags {
		z.tags = append(z.tags, telemetry.Attr{Key: k, Value: telemetry.String(string(v))})
	}
	z.tags = telemetry.NewAttrs(z.tags)
	return z, nil
}

// endpoint returns the endpoint; an address that is none is left out.
func (e *jsonEndpoint) endpoint() endpoint {
	if e == nil {
		return endpoint{}
	}
	out := endpoint{service: e.ServiceName, port: e.Port}
	for _, s := range []string{e.IPv4, e.IPv6} {
		if a, err := netip.ParseAddr(s); err == nil && !out.addr.IsValid() {
			out.addr = a
		}
	}
	return out
}
