package loki

import (
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/query/logql"
	"github.com/braidobs/braid/query/logql/syntax"
	"github.com/braidobs/braid/storage"
)

// errNoAdmin is the answer where operators do not allow deletes.
func errNoAdmin() error {
	return httpapi.Errorf(httpapi.Unavailable, "deletes are not allowed here (setting server.admin_api)")
}

// remove makes lines invisible: those that a selector selects and, with a filter |=, that contain a text.
func (a *API) remove(r *http.Request) ([]byte, error) {
	if a.Admin == nil {
		return nil, errNoAdmin()
	}
	e, err := logql.Parse(r.Form.Get("query"))
	if err != nil {
		return nil, err
	}
	l, ok := e.(*syntax.Log)
	if !ok || len(l.Stages) > 1 {
		return nil, httpapi.BadDataf("a delete is for the lines of a selector with at most one filter |=")
	}
	m := storage.Mask{Tenant: httpapi.TenantFrom(r.Context()), Signal: storage.Logs, End: a.Now().UnixNano(), Matchers: l.Matchers}
	for _, s := range l.Stages {
		f, ok := s.(*syntax.LineFilter)
		if !ok || f.Op != syntax.Contains || len(f.Alternatives) != 1 || f.Alternatives[0].IP {
			return nil, httpapi.BadDataf("a delete is for the lines of a selector with at most one filter |=")
		}
		m.Contains = f.Alternatives[0].Text
	}
	for name, into := range map[string]*int64{"start": &m.Start, "end": &m.End} {
		if s := r.Form.Get(name); s != "" {
			if *into, err = parseTime(s); err != nil {
				return nil, invalid(name, err)
			}
		}
	}
	if m.End < m.Start {
		return nil, invalid("end", errors.New("it is before start"))
	}
	_, err = a.Admin.Delete(r.Context(), m)
	return nil, err
}

// removals lists the deletes, the oldest first.
func (a *API) removals(r *http.Request) ([]byte, error) {
	if a.Admin == nil {
		return nil, errNoAdmin()
	}
	rs, err := a.Admin.Receipts(r.Context(), httpapi.TenantFrom(r.Context()))
	if err != nil {
		return nil, err
	}
	dst := []byte{'['}
	for i := range rs {
		m := &rs[i].Mask
		if m.Signal != storage.Logs {
			continue
		}
		if len(dst) > 1 {
			dst = append(dst, ',')
		}
		status := "processed"
		if len(rs[i].Pending) > 0 {
			status = "received"
		}
		query := syntax.FormatSelector(m.Matchers)
		if m.Contains != "" {
			query += " |= " + syntax.Quote(m.Contains)
		}
		dst = append(dst, `{"request_id":"`...)
		dst = strconv.AppendUint(dst, m.ID, 10)
		dst = append(dst, `","start_time":`...)
		dst = appendSeconds(dst, m.Start)
		dst = appendSeconds(append(dst, `,"end_time":`...), m.End)
		dst = appendString(append(dst, `,"query":`...), query)
		dst = append(dst, `,"status":"`+status+`","created_at":`...)
		dst = append(appendSeconds(dst, m.End), '}')
	}
	return append(dst, ']'), nil
}

func appendSeconds(dst []byte, ns int64) []byte {
	return strconv.AppendFloat(dst, float64(ns/1e6)/1e3, 'f', -1, 64)
}

// undo says that a delete that is known cannot be taken back: what it covers is invisible from the moment it is made.
func (a *API) undo(r *http.Request) ([]byte, error) {
	if a.Admin == nil {
		return nil, errNoAdmin()
	}
	id, err := strconv.ParseUint(strings.TrimSpace(r.Form.Get("request_id")), 10, 64)
	if err != nil {
		return nil, invalid("request_id", errors.New("it is not that of a delete"))
	}
	rs, err := a.Admin.Receipts(r.Context(), httpapi.TenantFrom(r.Context()))
	if err != nil {
		return nil, err
	}
	for i := range rs {
		if m := &rs[i].Mask; m.Signal == storage.Logs && m.ID == id {
			return nil, httpapi.BadDataf("delete %d cannot be taken back: it holds since it was made", id)
		}
	}
	return nil, httpapi.NotFoundf("there is no delete %d", id)
}
