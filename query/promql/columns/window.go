package columns

// window is the samples that one step of an evaluation sees: those from lo up to hi, and for what is extrapolated the
// time that they cover and the time from there to the ends of the range.
type window struct {
	lo, hi         int32
	covered        float64 // seconds between the first and the last sample
	toStart, toEnd float64 // seconds, as far as is extrapolated when nothing else limits it
	factor         float64 // by which what was seen is extrapolated
}

// span is how the windows of a shape lie on its grid.
type span struct {
	grid   Grid
	offset int64
	length int64
	rate   bool    // per second
	secs   float64 // the range in seconds
	extra  bool    // extrapolate
}

// fill computes the window of each step. A window holds the samples after its start and up to its end.
func (s *span) fill(times []int64, out []window) {
	lo, hi := 0, 0
	end := s.grid.Start - s.offset
	for i := range out {
		start := end - s.length
		for lo < len(times) && times[lo] <= start {
			lo++
		}
		hi = max(hi, lo)
		for hi < len(times) && times[hi] <= end {
			hi++
		}
		w := window{lo: int32(lo), hi: int32(hi)}
		if s.extra && hi-lo >= 2 {
			s.extrapolate(&w, times[lo], times[hi-1], start, end)
		}
		out[i] = w
		end += s.grid.Step
	}
}

// extrapolate prepares the part of the extrapolation that depends on times only; it is that of Prometheus: up to the
// ends of the range if they are no further than 1.1 times the mean distance of two samples, else by half of that.
func (s *span) extrapolate(w *window, first, last, start, end int64) {
	w.covered = float64(last-first) / 1000
	w.toStart, w.toEnd = float64(first-start)/1000, float64(end-last)/1000
	mean := w.covered / float64(w.hi-w.lo-1)
	threshold := mean * 1.1
	if w.toStart >= threshold {
		w.toStart = mean / 2
	}
	if w.toEnd >= threshold {
		w.toEnd = mean / 2
	}
	w.factor = s.scale(w, w.toStart)
}

func (s *span) scale(w *window, toStart float64) float64 {
	f := (w.covered + toStart + w.toEnd) / w.covered
	if s.rate {
		f /= s.secs
	}
	return f
}

// maxWindows bounds the windows that a cache keeps.
const maxWindows = 1 << 16

// windows keeps the windows of slices of times: series of one scrape share their times, so they share their windows.
type windows struct {
	span  span
	steps int
	last  *known
	known map[*int64]*known // the key keeps the slice alive, so that an address stands for one slice
	free  []*known
	own   []window // of times that are not shared
}

type known struct {
	first *int64
	n     int
	w     []window
	uses  int64 // series that were computed with it
}

// of returns the windows of times. uses counts what was computed with them.
func (c *windows) of(times []int64, retire func(*known)) *known {
	first := &times[0]
	if c.last != nil && c.last.first == first && c.last.n == len(times) {
		return c.last
	}
	if k := c.known[first]; k != nil && k.n == len(times) {
		c.last = k
		return k
	}
	if (len(c.known)+1)*c.steps > maxWindows && len(c.known) > 0 {
		c.drain(retire)
	}
	var k *known
	if n := len(c.free); n > 0 {
		k, c.free = c.free[n-1], c.free[:n-1]
	} else {
		k = &known{w: make([]window, c.steps)}
	}
	if old := c.known[first]; old != nil {
		retire(old)
	}
	k.first, k.n, k.uses = first, len(times), 0
	c.span.fill(times, k.w)
	if c.known == nil {
		c.known = make(map[*int64]*known)
	}
	c.known[first], c.last = k, k
	return k
}

// drain hands all known windows to retire and forgets them.
func (c *windows) drain(retire func(*known)) {
	for _, k := range c.known {
		retire(k)
		c.free = append(c.free, k)
	}
	clear(c.known)
	c.last = nil
}

// unshared returns the windows of times that no other series has. They are valid until the next call.
func (c *windows) unshared(times []int64) []window {
	if c.own == nil {
		c.own = make([]window, c.steps)
	}
	c.span.fill(times, c.own)
	return c.own
}
