// Package loki receives logs as Loki does: POST /loki/api/v1/push with snappy-compressed protobuf or JSON. The wire
// format ends here; the messages are walked where they lie.
//
// A stream keeps the labels it was sent with, and structured metadata becomes attributes of its records. A stream without
// the label service_name gets one, as with Loki: see ingest.Stream. What cannot be stored is answered with 400 and the
// reason, and the rest is stored; 429 and 5xx ask for a repetition, which is stored once.
package loki

import (
	"context"
	"fmt"
	"mime"
	"net/http"
	"strconv"
	"strings"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/braidobs/braid/ingest"
	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

// PushPath is the route.
const PushPath = "/loki/api/v1/push"

// protocol is what metrics call it.
const protocol = "loki"

// The reasons for which streams and records are refused here.
const (
	reasonStream = "malformed_stream"
	reasonTime   = "time_out_of_range"
)

// Server answers push requests. It may be used concurrently.
type Server struct{ rc *ingest.Receiver }

// New returns a server.
func New(rc *ingest.Receiver) *Server { return &Server{rc: rc} }

// Routes returns the handlers by their patterns.
func (s *Server) Routes() map[string]http.Handler { return map[string]http.Handler{PushPath: s} }

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.rc.Serve(w, r, protocol, storage.Logs, http.StatusNoContent, s.push)
}

// push reads, decodes and stores a request, and returns the size of its decompressed body.
func (s *Server) push(r *http.Request) (size int, err error) {
	tenant, err := s.rc.Tenant(r)
	if err != nil {
		return 0, err
	}
	kind := r.Header.Get("Content-Type")
	if t, _, err := mime.ParseMediaType(kind); err == nil {
		kind = t
	}
	switch kind {
	case "application/json":
		err = s.rc.Read(r, false, func(body []byte) error {
			size = len(body)
			return s.store(r.Context(), tenant, "json", body, body, (*decoder).json)
		})
	case "", "application/x-protobuf":
		if e := strings.Join(r.Header.Values("Content-Encoding"), ","); e != "" && !strings.EqualFold(e, "snappy") {
			return 0, httpapi.Errorf(httpapi.UnsupportedMedia, "Content-Encoding %.40q is not supported with protobuf; use snappy", e)
		}
		err = s.rc.Read(r, true, func(packed []byte) error {
			return s.rc.Snappy(packed, func(body []byte) error {
				size = len(body)
				return s.store(r.Context(), tenant, "protobuf", packed, body, (*decoder).protobuf)
			})
		})
	default:
		err = httpapi.Errorf(httpapi.UnsupportedMedia, "Content-Type %.60q is not supported; use application/x-protobuf or application/json", kind)
	}
	return size, err
}

// store decodes a body and stores what is in it. What identifies it are the bytes that came.
func (s *Server) store(ctx context.Context, tenant telemetry.Tenant, format string, came, body []byte, decode func(*decoder, string) error) error {
	d := &decoder{rc: s.rc, room: s.rc.NewRoom(), known: make(map[telemetry.LabelSet]int)}
	if err := d.room.Take(0, len(body)); err != nil {
		return err
	}
	s.rc.Pipeline.Labels().Age(s.rc.Now())
	err := decode(d, string(body)) // a copy that the records share
	s.rc.Pipeline.Labels().Count(d.hits, d.misses)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	for reason, n := range d.refused {
		s.rc.Pipeline.Refuse(storage.Logs, reason, n)
	}
	rejected, err := s.rc.Pipeline.Write(ctx, tenant, ingest.KeyOf(tenant, "loki/push/"+format, came), d.batches, d.rejected)
	if err != nil {
		return err
	}
	if rejected.Total()+len(rejected.Reasons) == 0 {
		return nil
	}
	return httpapi.BadDataf("%d of %d entries were not stored, the others were: %s", rejected.Logs, d.entries, strings.Join(rejected.Reasons, "; "))
}

// decoder gathers what is in one request. What it makes shares memory with the body.
type decoder struct {
	rc     *ingest.Receiver
	room   *ingest.Room
	labels []labels.Label // of the stream that is read
	last   *ingest.Labels

	batches      []telemetry.Batch
	known        map[telemetry.LabelSet]int // batches by stream
	rejected     storage.Rejected
	refused      map[string]int
	entries      int
	hits, misses int
}

// refuse notes n entries that are not stored.
func (d *decoder) refuse(reason string, n int, format string, args ...any) {
	if d.refused == nil {
		d.refused = make(map[string]int)
	}
	d.refused[reason] += n
	d.rejected.Logs += n
	d.rejected.Reason(format, args...)
}

// stream returns the batch of a stream with room for n entries. The labels are added to d.labels by parse, unless the
// text is known. Without a batch the stream is refused.
func (d *decoder) stream(text string, n int, parse func(text string) error) *telemetry.Batch {
	d.entries += n
	in := d.rc.Pipeline.Labels()
	print := in.Sum([]byte(text))
	known, ok := in.Lookup(print, d.last)
	if ok {
		d.hits++
	} else {
		d.misses++
		d.labels = d.labels[:0]
		err := parse(text)
		if err != nil {
			d.refuse(reasonStream, n, "stream %s: %v", shown(text), err)
			return nil
		}
		set := ingest.Stream(d.labels)
		if set == "" {
			d.refuse(reasonStream, n, "stream %s: at least one label is required", shown(text))
			return nil
		}
		if reason, message := d.rc.Pipeline.CheckLabels(set); reason != "" {
			d.refuse(reason, n, "stream %s: %s", shown(text), message)
			return nil
		}
		known = in.Intern(print, set)
	}
	d.last = known
	i, ok := d.known[known.Labels]
	if !ok {
		i = len(d.batches)
		d.known[known.Labels] = i
		d.batches = append(d.batches, telemetry.Batch{
			Stream: known.Labels, Resource: ingest.StreamResource(known.Labels), Logs: make([]telemetry.LogRecord, 0, n),
		})
	}
	return &d.batches[i]
}

// shown is text from a client as messages have it.
func shown(s string) string {
	if len(s) > 200 {
		s = s[:200] + "..."
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// meta makes the attributes of a record.
func meta(as []telemetry.Attr) telemetry.Attrs {
	if len(as) == 0 {
		return nil
	}
	return telemetry.NewAttrs(as)
}

// parseLabels adds the labels of {name="value", ...} to d.labels.
func (d *decoder) parseLabels(s string) error {
	rest := strings.TrimSpace(s)
	bad := func(what string) error {
		return fmt.Errorf("%s at byte %d of its labels", what, len(s)-len(rest))
	}
	if !strings.HasPrefix(rest, "{") || !strings.HasSuffix(rest, "}") || len(rest) < 2 {
		return bad("no braces around labels")
	}
	rest = strings.TrimRight(rest[:len(rest)-1], " \t\n\r")
	s = strings.TrimSuffix(s, "}")
	for rest = trim(rest[1:]); rest != ""; {
		n := nameLen(rest)
		name := rest[:n]
		if n == 0 {
			return bad("no name of a label")
		}
		rest = trim(rest[n:])
		if !strings.HasPrefix(rest, "=") {
			return bad("no = after a name")
		}
		rest = trim(rest[1:])
		quoted, err := quotedPrefix(rest)
		if err != nil {
			return bad("no quoted value")
		}
		value := quoted[1 : len(quoted)-1]
		if quoted[0] != '`' && strings.ContainsAny(value, "\\\n") {
			if value, err = unquote(quoted); err != nil {
				return bad("a value with a wrong escape")
			}
		}
		d.labels = append(d.labels, labels.Label{Name: name, Value: value})
		if rest = trim(rest[len(quoted):]); rest == "" {
			return nil
		}
		if rest[0] != ',' {
			return bad("no comma after a label")
		}
		rest = trim(rest[1:])
	}
	return nil
}

// nameLen returns how many bytes of s are the name of a label.
func nameLen(s string) (n int) {
	for n < len(s) && (s[n] == '_' || s[n]|0x20 >= 'a' && s[n]|0x20 <= 'z' || n > 0 && s[n]-'0' <= 9) {
		n++
	}
	return n
}

func trim(s string) string { return strings.TrimLeft(s, " \t\n\r") }

// quotedPrefix returns the string with its quotes that s begins with.
func quotedPrefix(s string) (string, error) {
	if s == "" || s[0] != '"' && s[0] != '\'' && s[0] != '`' {
		return "", strconv.ErrSyntax
	}
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == s[0]:
			return s[:i+1], nil
		case s[i] == '\\' && s[0] != '`':
			i++
		}
	}
	return "", strconv.ErrSyntax
}

// unquote returns the text of a string in double or single quotes.
func unquote(quoted string) (string, error) {
	var out strings.Builder
	rest := quoted[1 : len(quoted)-1]
	for rest != "" {
		if rest[0] == '\n' {
			return "", strconv.ErrSyntax
		}
		c, multibyte, tail, err := strconv.UnquoteChar(rest, quoted[0])
		if err != nil {
			return "", err
		}
		if c < 0x80 || multibyte {
			out.WriteRune(c)
		} else {
			out.WriteByte(byte(c))
		}
		rest = tail
	}
	return out.String(), nil
}
