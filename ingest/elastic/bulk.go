package elastic

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/braidobs/braid/ingest"
	"github.com/braidobs/braid/ingest/document"
	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

// maxIndex is the longest name of an index.
const maxIndex = 255

// The reasons for which documents are refused here.
const (
	reasonDocument = "malformed_document"
	reasonAction   = "unknown_action"
)

func quote(s string) string { return string(telemetry.AppendJSONString(nil, s)) }

// item is the answer to one action.
type item struct {
	action, index, id string
	code              int
	kind, reason      string // of an error
}

// bulk answers a bulk request.
func (s *Server) bulk(w http.ResponseWriter, r *http.Request) {
	began := s.rc.Now()
	size, code, body := 0, http.StatusOK, []byte(nil)
	items, err := s.take(r, &size)
	if err == nil {
		body = appendAnswer(nil, s.rc.Now().Sub(began).Milliseconds(), items)
	} else {
		var e *httpapi.Error
		e, code = s.rc.Errors.Header(w, r, httpapi.Ingest, err)
		if code == http.StatusMethodNotAllowed || r.Method != http.MethodPost && r.Method != http.MethodPut {
			code = http.StatusMethodNotAllowed
			w.Header().Set("Allow", "POST, PUT")
		}
		body = appendError(nil, code, kindOf(code), e.Message)
	}
	s.rc.Pipeline.Observe(protocol, storage.Logs, strconv.Itoa(code), size)
	write(w, code, string(body))
}

// kindOf returns what Elasticsearch calls an error.
func kindOf(code int) string {
	switch code {
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return "es_rejected_execution_exception"
	case http.StatusInternalServerError:
		return "exception"
	default:
		return "illegal_argument_exception"
	}
}

// take reads and stores a request.
func (s *Server) take(r *http.Request, size *int) (items []item, err error) {
	if r.Method != http.MethodPost && r.Method != http.MethodPut {
		return nil, httpapi.BadDataf("method %q is not allowed; use POST", r.Method)
	}
	tenant, err := s.rc.Tenant(r)
	if err != nil {
		return nil, err
	}
	index := r.PathValue("index")
	err = s.rc.Read(r, false, func(body []byte) error {
		*size = len(body)
		d := decoder{
			rc: s.rc, room: s.rc.NewRoom(), check: s.rc.Pipeline.Checker(), index: index, refused: make(map[string]int),
			docs: document.NewReader(document.Names{Time: []string{"@timestamp"}, Message: []string{"message"}}, s.rc.Now()),
		}
		if err := d.room.Take(0, len(body)); err != nil {
			return err
		}
		if err := d.decode(body); err != nil {
			return err
		}
		if err := r.Context().Err(); err != nil {
			return err
		}
		for reason, n := range d.refused {
			s.rc.Pipeline.Refuse(storage.Logs, reason, n)
		}
		items = d.items
		batches, timeless := d.docs.Batches()
		var key storage.Key
		if !timeless {
			key = ingest.KeyOf(tenant, "elastic/"+index, body)
		}
		if len(batches) == 0 {
			return nil
		}
		// What else is refused was looked at here record by record, so that its item tells.
		_, err := s.rc.Pipeline.Write(r.Context(), tenant, key, batches, storage.Rejected{})
		return err
	})
	return items, err
}

// decoder gathers the documents of a request.
type decoder struct {
	rc      *ingest.Receiver
	room    *ingest.Room
	check   *ingest.Checker
	docs    *document.Reader
	index   string // of the path
	items   []item
	refused map[string]int
	last    []byte // action line that was read last
	action  item   // of it
}

// decode reads lines: an action, and for most of them a document after it.
func (d *decoder) decode(body []byte) error {
	number := 0
	next := func() (line []byte, ok bool) {
		for len(body) > 0 {
			line, body, _ = bytes.Cut(body, []byte("\n"))
			number++
			if line = bytes.TrimSpace(line); len(line) > 0 {
				return line, true
			}
		}
		return nil, false
	}
	for {
		line, ok := next()
		if !ok {
			return nil
		}
		it, err := d.read(line)
		if err != nil {
			return httpapi.BadDataf("line %d is no action: %v", number, err)
		}
		if it.action == "delete" {
			d.refuse(it, reasonAction, "illegal_argument_exception", "delete is not supported: logs are only appended")
			continue
		}
		doc, ok := next()
		if !ok {
			return httpapi.BadDataf("the action in line %d has no document after it", number)
		}
		if err := d.room.Take(1, 4*len(doc)); err != nil {
			return err
		}
		d.document(it, doc)
	}
}

// read reads the line of an action.
func (d *decoder) read(line []byte) (item, error) {
	if d.last != nil && bytes.Equal(line, d.last) {
		return d.action, nil
	}
	var action map[string]struct {
		Index string `json:"_index"`
		ID    string `json:"_id"`
	}
	if err := json.Unmarshal(line, &action); err != nil {
		return item{}, httpapi.BadDataf("it is not JSON of the form {\"create\":{\"_index\":\"...\"}}")
	}
	if len(action) != 1 {
		return item{}, httpapi.BadDataf("it has %d actions instead of one", len(action))
	}
	for name, a := range action {
		switch name {
		case "index", "create", "update", "delete":
			d.action = item{action: name, index: a.Index, id: a.ID}
		default:
			return item{}, httpapi.BadDataf("unknown action %.20q", name)
		}
	}
	if d.action.index == "" {
		d.action.index = d.index
	}
	d.last = append(d.last[:0], line...)
	return d.action, nil
}

func (d *decoder) refuse(it item, reason string, kind, text string) {
	d.refused[reason]++
	it.code, it.kind, it.reason = http.StatusBadRequest, kind, text
	d.items = append(d.items, it)
}

// document takes the document of an action.
func (d *decoder) document(it item, doc []byte) {
	const bad, illegal = "document_parsing_exception", "illegal_argument_exception"
	switch {
	case it.action == "update":
		d.refuse(it, reasonAction, illegal, "update is not supported: logs are only appended")
		return
	case it.index == "" || len(it.index) > maxIndex:
		d.refuse(it, reasonDocument, illegal, "the name of an index must have 1 to 255 bytes")
		return
	case !d.docs.Read(doc):
		d.refuse(it, reasonDocument, bad, "the document is not a JSON object")
		return
	}
	rec := d.docs.Record()
	if reason, text := d.check.Log(&rec); reason != "" {
		d.refuse(it, reason, bad, text)
		return
	}
	index := strings.ToValidUTF8(it.index, "\uFFFD")
	stream := d.docs.Labels(undated(index), labels.Label{Name: "index", Value: index})
	if reason, text := d.rc.Pipeline.CheckLabels(stream); reason != "" {
		d.refuse(it, reason, bad, text)
		return
	}
	d.docs.Add(stream, rec)
	it.code = http.StatusCreated
	d.items = append(d.items, it)
}

// undated returns the name of an index without the date that shippers put behind it: filebeat-8.1-2026.03.01.
func undated(index string) string {
	end := len(index)
	for end > 0 && (index[end-1]-'0' <= 9 || index[end-1] == '.' || index[end-1] == '-' || index[end-1] == '_') {
		end--
	}
	if end == 0 {
		return index
	}
	return index[:end]
}

func appendAnswer(dst []byte, took int64, items []item) []byte {
	failed := false
	for i := range items {
		failed = failed || items[i].kind != ""
	}
	dst = append(dst, `{"took":`...)
	dst = strconv.AppendInt(dst, took, 10)
	dst = append(dst, `,"errors":`...)
	dst = strconv.AppendBool(dst, failed)
	dst = append(dst, `,"items":[`...)
	for i := range items {
		if i > 0 {
			dst = append(dst, ',')
		}
		it := &items[i]
		dst = append(dst, `{"`+it.action+`":{"_index":`...)
		dst = telemetry.AppendJSONString(dst, it.index)
		dst = append(dst, `,"_id":`...)
		if it.id == "" {
			dst = append(strconv.AppendInt(append(dst, '"'), int64(i), 10), '"')
		} else {
			dst = telemetry.AppendJSONString(dst, it.id)
		}
		if it.kind == "" {
			dst = append(dst, `,"_version":1,"result":"created","_shards":{"total":1,"successful":1,"failed":0},"_seq_no":`...)
			dst = strconv.AppendInt(dst, int64(i), 10)
			dst = append(dst, `,"_primary_term":1`...)
		} else {
			dst = append(dst, `,"error":{"type":"`+it.kind+`","reason":`...)
			dst = telemetry.AppendJSONString(dst, it.reason)
			dst = append(dst, '}')
		}
		dst = append(dst, `,"status":`...)
		dst = strconv.AppendInt(dst, int64(it.code), 10)
		dst = append(dst, "}}"...)
	}
	return append(dst, "]}"...)
}

func appendError(dst []byte, code int, kind, reason string) []byte {
	text := quote(strings.ToValidUTF8(reason, "\uFFFD"))
	dst = append(dst, `{"error":{"root_cause":[{"type":"`+kind+`","reason":`+text+`}],"type":"`+kind+`","reason":`+text+`},"status":`...)
	return append(strconv.AppendInt(dst, int64(code), 10), '}')
}
