package fault

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"
)

// Config says which service a switch belongs to.
type Config struct {
	Role    string
	Version string // its service.version
	Kinds   []Kind // what it can do
	Seed    uint64 // of the ratio's dice
	Log     *slog.Logger
}

// Switch holds the faults that are on. It is safe for concurrent use.
type Switch struct {
	cfg Config

	mu     sync.Mutex // guards the rest
	active map[Kind]Fault
	dice   *rand.Rand
	leaked Size
}

// State is what GET /fault shows.
type State struct {
	Role    string  `json:"role"`
	Version string  `json:"version"`
	Faults  []Fault `json:"faults"`
	Leaked  Size    `json:"leaked_bytes"`
}

// New returns a switch with everything off. Run must run for leaking_pod to work.
func New(cfg Config) *Switch {
	return &Switch{cfg: cfg, active: map[Kind]Fault{}, dice: rand.New(rand.NewPCG(cfg.Seed, 0x5a0b))}
}

// Hit says whether the fault is to happen to this request, and with what settings. The statement matters for
// slow_database only.
func (s *Switch) Hit(kind Kind, statement string) (Fault, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f, on := s.active[kind]
	if !on || f.Version != "" && f.Version != s.cfg.Version || f.Query != "" && f.Query != statement {
		return Fault{}, false
	}
	return f, f.Ratio == 1 || s.dice.Float64() < f.Ratio
}

// Set switches a fault on, replacing an earlier one of its kind.
func (s *Switch) Set(f Fault) error {
	if err := f.Validate(); err != nil {
		return err
	}
	if !slices.Contains(s.cfg.Kinds, f.Kind) {
		return errors.New("kind: a " + s.cfg.Role + " cannot do " + string(f.Kind))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.active[f.Kind] = f.WithDefaults()
	return nil
}

// Clear switches everything off; leaked memory is given back soon after.
func (s *Switch) Clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.active)
}

// State returns what is on, ordered by kind.
func (s *Switch) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := State{Role: s.cfg.Role, Version: s.cfg.Version, Faults: []Fault{}, Leaked: s.leaked}
	for _, f := range s.active {
		st.Faults = append(st.Faults, f)
	}
	slices.SortFunc(st.Faults, func(a, b Fault) int { return strings.Compare(string(a.Kind), string(b.Kind)) })
	return st
}

// ServeHTTP is the endpoint /fault: POST switches on, DELETE switches everything off, each method answers the state.
func (s *Switch) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodGet:
	case http.MethodPost:
		var f Fault
		dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<16))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&f); err != nil {
			http.Error(w, "parse fault: "+err.Error(), http.StatusBadRequest)
			return
		}
		if err := s.Set(f); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
	case http.MethodDelete:
		s.Clear()
	default:
		w.Header().Set("Allow", "GET, POST, DELETE")
		http.Error(w, "use GET, POST or DELETE", http.StatusMethodNotAllowed)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(s.State()) // the client has gone: nobody to tell
}

// Run leaks memory while leaking_pod is on, until ctx ends.
func (s *Switch) Run(ctx context.Context) error {
	const steps = 10 // a second
	tick := time.NewTicker(time.Second / steps)
	defer tick.Stop()
	var blocks [][]byte
	var held Size
	warned := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		f, on := s.leak()
		switch {
		case !on && blocks != nil:
			blocks, held, warned = nil, 0, false
			debug.FreeOSMemory()
		case on && held < f.Limit:
			block := make([]byte, min(f.Rate/steps, f.Limit-held))
			for i := 0; i < len(block); i += os.Getpagesize() {
				block[i] = 1 // a page that was never written is not resident
			}
			blocks = append(blocks, block)
			held += Size(len(block))
		case on && !warned:
			warned = true
			s.cfg.Log.WarnContext(ctx, "memory is close to the limit", "limit_bytes", int64(f.Limit))
		}
		s.mu.Lock()
		s.leaked = held
		s.mu.Unlock()
	}
}

func (s *Switch) leak() (Fault, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f, on := s.active[LeakingPod]
	return f, on && (f.Version == "" || f.Version == s.cfg.Version)
}
