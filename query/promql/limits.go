package promql

import (
	"github.com/braidobs/braid/internal/config"
	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/storage"
)

// Config returns the settings of the engine.
func (e *Engine) Config() Config { return e.cfg }

// limits bound what one query reads; zero is no limit.
type limits struct {
	series int
	read   config.Size
}

// charge counts series that the query is about to read. The error says which limit is reached and how to get around it.
func (s *sharedView) charge(series int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.series += series
	if s.limits.series > 0 && s.series > s.limits.series {
		return httpapi.Errorf(httpapi.QueryLimit,
			"the query reads more series than promql.max_series (%d) allows: select fewer series with more labels, or shorten the time range", s.limits.series)
	}
	if s.limits.read > 0 && s.view != nil {
		if n := s.view.ReadStats().Bytes; n > s.limits.read.Bytes() {
			return httpapi.Errorf(httpapi.QueryLimit,
				"the query reads more of the store than promql.max_read (%s) allows: shorten the time range, or select fewer series with more labels", s.limits.read)
		}
	}
	return nil
}

// stats returns what was read so far.
func (s *sharedView) stats() storage.ReadStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.view == nil {
		return storage.ReadStats{}
	}
	return s.view.ReadStats()
}
