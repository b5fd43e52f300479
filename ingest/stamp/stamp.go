// Package stamp reads timestamps as machines write them, at the speed at which lines of logs come.
package stamp

// minStamp is the shortest timestamp: 2006-01-02T15:04:05Z.
const minStamp = len("2006-01-02T15:04:05Z")

// Parser reads timestamps. It keeps the last date it has seen, so each stream needs its own for the best speed; the
// result does not depend on it. The zero value is ready.
type Parser struct {
	date   [10]byte
	day    int64 // Unix seconds at the start of date
	inTime bool  // nanoseconds of date fit an int64
}

// Read reads a time in the format of RFC 3339 at the start of b and returns how many bytes it has. Nanoseconds are 0
// outside the years 1678 to 2262.
func (p *Parser) Read(b []byte) (ns int64, n int, ok bool) {
	if len(b) < minStamp || b[10] != 'T' || b[13] != ':' || b[16] != ':' {
		return 0, 0, false
	}
	if string(b[:10]) != string(p.date[:]) && !p.setDate(b) {
		return 0, 0, false
	}
	h, ok1 := two(b[11], b[12])
	m, ok2 := two(b[14], b[15])
	s, ok3 := two(b[17], b[18])
	if !ok1 || !ok2 || !ok3 || h > 23 || m > 59 || s > 60 {
		return 0, 0, false
	}
	sec := p.day + int64(h*3600+m*60+s)
	n = 19
	var frac int64
	if b[n] == '.' {
		n++
		unit := int64(1e8)
		start := n
		for n < len(b) && b[n]-'0' <= 9 {
			frac += int64(b[n]-'0') * unit
			unit /= 10 // digits beyond the ninth count nothing
			n++
		}
		if n == start || n-start > 9 || n == len(b) {
			return 0, 0, false
		}
	}
	switch b[n] {
	case 'Z':
		n++
	case '+', '-':
		if len(b) < n+6 || b[n+3] != ':' {
			return 0, 0, false
		}
		oh, ok1 := two(b[n+1], b[n+2])
		om, ok2 := two(b[n+4], b[n+5])
		if !ok1 || !ok2 || oh > 23 || om > 59 {
			return 0, 0, false
		}
		off := int64(oh*3600 + om*60)
		if b[n] == '+' {
			off = -off
		}
		sec += off
		n += 6
	default:
		return 0, 0, false
	}
	if !p.inTime {
		return 0, n, true
	}
	return sec*1e9 + frac, n, true
}

// setDate takes the date at the start of b, which has at least ten bytes.
func (p *Parser) setDate(b []byte) bool {
	y1, ok1 := two(b[0], b[1])
	y2, ok2 := two(b[2], b[3])
	m, ok3 := two(b[5], b[6])
	d, ok4 := two(b[8], b[9])
	if !ok1 || !ok2 || !ok3 || !ok4 || b[4] != '-' || b[7] != '-' || m < 1 || m > 12 || d < 1 || d > 31 {
		return false
	}
	y := y1*100 + y2
	p.date = [10]byte(b)
	p.day = civilDay(int64(y), int64(m), int64(d)) * 86400
	p.inTime = y >= 1678 && y <= 2261
	return true
}

// civilDay returns the days from 1970-01-01 to a date of the Gregorian calendar. Years begin in March, so that the
// leap day is the last of one.
func civilDay(y, m, d int64) int64 {
	if m <= 2 {
		y--
		m += 12
	}
	era := y / 400
	if y < 0 {
		era = (y - 399) / 400
	}
	yearOfEra := y - era*400
	dayOfYear := (153*(m-3)+2)/5 + d - 1
	return era*146097 + yearOfEra*365 + yearOfEra/4 - yearOfEra/100 + dayOfYear - 719468
}

func two(a, b byte) (int, bool) {
	a, b = a-'0', b-'0'
	return int(a)*10 + int(b), a <= 9 && b <= 9
}
