package columns

import (
	"errors"
	"unicode/utf8"

	"github.com/braidobs/braid/query/logql/fields"
	"github.com/braidobs/braid/storage"
)

// Logfmt returns what fields.Logfmt finds in the lines of a template as far as want wants it, without empty values unless
// empty is set, and false when that depends on what stands in the gaps.
func Logfmt(t *storage.Template, strict, empty bool, want func(name string) bool) (*Fields, bool) {
	y, ok := symbolsOf(t)
	if !ok {
		return nil, false
	}
	out := &Fields{Values: make(map[string]Value)}
	w := &logfmtWalker{y}
	for i := 0; ; {
		for i < len(y.s) && y.s[i] <= ' ' {
			i++
		}
		if i == len(y.s) {
			return out, true
		}
		p, n, err := w.pair(i)
		switch {
		case errors.Is(err, errUnknown):
			return nil, false
		case err != nil && strict:
			out.Failed = true
			return out, true
		case err != nil:
			timed := false
			for i = n; i < len(y.s) && (y.s[i].gap() || y.s[i] > ' '); i++ {
				switch {
				case y.s[i].gap():
					if timed = timed || w.timed(i); !timed && !solid(y.kind(y.s[i])) {
						return nil, false
					}
				case timed && (y.s[i] == '=' || y.s[i] == '"'):
					return nil, false
				}
			}
			if timed && (strict || empty) {
				return nil, false
			}
			continue
		}
		i = n
		if p.timed && (strict || empty) {
			return nil, false
		}
		if !p.known {
			if p.full || empty || strict {
				return nil, false
			}
			continue
		}
		name := fields.Name(p.key)
		if !want(name) {
			continue
		}
		if p.timed {
			return nil, false
		}
		if s, constant := p.value.Constant(); constant && s == "" && !empty {
			continue
		}
		if !empty && p.maybeEmpty {
			return nil, false
		}
		out.add(name, p.value)
	}
}

type logfmtWalker struct{ *symbols }

// pair is a key with its value.
type logfmtPair struct {
	key        string
	known      bool // the key has no gaps
	full       bool // there is a = behind the key
	timed      bool // there is a timestamp in it, which may have blanks: pieces of it may be keys without values
	value      Value
	maybeEmpty bool
}

// timed says whether the symbol is a timestamp: it has no quotes and no =.
func (w *logfmtWalker) timed(i int) bool {
	return w.s[i].gap() && w.kind(w.s[i]) == storage.GapTime
}

func (w *logfmtWalker) pair(i int) (p logfmtPair, n int, err error) {
	n = i
	p.known = true
	for n < len(w.s) && (w.s[n].gap() || w.s[n] > ' ' && w.s[n] != '=' && w.s[n] != '"') {
		if w.s[n].gap() {
			if p.timed = p.timed || w.timed(n); !w.timed(n) && !solid(w.kind(w.s[n])) {
				return p, 0, errUnknown
			}
			p.known = false
		}
		n++
	}
	if p.known {
		p.key, _ = w.text(i, n)
	}
	switch {
	case p.timed && n < len(w.s) && (w.s[n] == '"' || w.s[n] == '='):
		return p, 0, errUnknown
	case n < len(w.s) && w.s[n] == '"', n < len(w.s) && w.s[n] == '=' && n == i:
		return p, n, errMalformed
	case p.known && !utf8.ValidString(p.key):
		return p, n, errMalformed
	case n == len(w.s) || w.s[n] <= ' ':
		return p, n, nil
	}
	p.full = true
	n++
	if n < len(w.s) && w.s[n] == '"' {
		j := &jsonWalker{symbols: w.symbols}
		end, err := j.closing(n)
		if err != nil {
			return p, len(w.s), err
		}
		var ok bool
		if p.value, ok = w.value(n+1, end, fields.Unquote); !ok {
			return p, end + 1, errMalformed
		}
		p.maybeEmpty = len(p.value) > 0
		for _, part := range p.value {
			if part.Gap < 0 || w.kinds[part.Gap] != storage.GapQuoted {
				p.maybeEmpty = false
			}
		}
		return p, end + 1, nil
	}
	begin := n
	for n < len(w.s) && (w.s[n].gap() || w.s[n] > ' ') {
		switch {
		case w.s[n].gap():
			if p.timed = p.timed || w.timed(n); !w.timed(n) && !solid(w.kind(w.s[n])) {
				return p, 0, errUnknown
			}
		case w.s[n] == '=' || w.s[n] == '"':
			if p.timed {
				return p, 0, errUnknown
			}
			return p, n, errMalformed
		}
		n++
	}
	p.value, _ = w.value(begin, n, asIs)
	return p, n, nil
}
