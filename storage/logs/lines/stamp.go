package lines

import (
	"errors"
	"strings"
)

// maxStamp bounds the bytes of a timestamp.
const maxStamp = 40

// shapes of timestamps, in the letters of a layout: Y M D h m s are digits of year, month, day, hour, minute and second, w
// and b are the letters of a weekday and a month, U is the Unix time. "_" is a day's first digit, or a blank. Everything else
// stands for itself. A fraction and a zone may follow where the table says so.
type stampShape struct {
	pattern  string
	fraction bool
	zone     bool
}

// shapeAt returns the shape that a timestamp with the bytes of t would have, which are 13 at least.
func shapeAt(t string) stampShape {
	switch {
	case t[0] >= 'A' && t[3] == ' ' && t[7] == ' ' && t[4] >= 'A':
		return stampShape{"www bbb DD hh:mm:ss YYYY", false, false}
	case t[0] >= 'A' && t[3] == ' ':
		return stampShape{"bbb _D hh:mm:ss", false, false}
	case t[4] == '-' && t[10] == 'T':
		return stampShape{"YYYY-MM-DDThh:mm:ss", true, true}
	case t[4] == '-':
		return stampShape{"YYYY-MM-DD hh:mm:ss", true, true}
	case t[4] == '/':
		return stampShape{"YYYY/MM/DD hh:mm:ss", true, false}
	case t[4] == ' ':
		return stampShape{"MMDD hh:mm:ss", true, false}
	case t[2] == '-' && t[5] == ' ':
		return stampShape{"MM-DD hh:mm:ss", true, false}
	case t[2] == '-':
		return stampShape{"DD-bbb-YYYY hh:mm:ss", true, false}
	case t[2] == '/' && t[5] == '/':
		return stampShape{"YY/MM/DD hh:mm:ss", false, false}
	case t[2] == '/':
		return stampShape{"DD/bbb/YYYY:hh:mm:ss", false, true}
	case t[6] == ' ':
		return stampShape{"YYMMDD hhmmss", false, false}
	default:
		return stampShape{}
	}
}

// matchStamp returns how many bytes at the start of t look like a timestamp, 0 when they do not.
func matchStamp(t string) int {
	n, _ := findStamp(t)
	return n
}

// findStamp is matchStamp, and tells the shape.
func findStamp(t string) (int, stampShape) {
	if len(t) < 13 {
		return 0, stampShape{}
	}
	sh := shapeAt(t)
	n := len(sh.pattern)
	if n == 0 || len(t) < n || !fits(t, sh.pattern) {
		return 0, stampShape{}
	}
	if sh.fraction && n+1 < len(t) && (t[n] == '.' || t[n] == ',') {
		if d := digits(t[n+1 : min(len(t), n+11)]); d >= 1 && d <= 9 {
			n += 1 + d
		}
	}
	if sh.zone {
		n += zone(t[n:])
	}
	if n < len(t) && alnum(t[n]) {
		return 0, stampShape{}
	}
	return n, sh
}

func alnum(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

func fits(t, pattern string) bool {
	for i := range len(pattern) {
		c := t[i]
		switch p := pattern[i]; p {
		case 'Y', 'M', 'D', 'h', 'm', 's':
			if c < '0' || c > '9' {
				return false
			}
		case '_':
			if c != ' ' && (c < '1' || c > '3') {
				return false
			}
		case 'b', 'w':
			if c < 'A' || c > 'z' {
				return false
			}
		default:
			if c != p {
				return false
			}
		}
	}
	if i := strings.IndexByte(pattern, 'b'); i >= 0 && monthOf(t[i:i+3]) < 0 {
		return false
	}
	return pattern[0] != 'w' || weekdayOf(t[:3]) >= 0
}

// zone returns how many bytes at the start of t are a zone: Z, +01:00, +0100, with or without a blank before.
func zone(t string) int {
	if len(t) >= 1 && t[0] == 'Z' {
		return 1
	}
	n := 0
	if len(t) >= 6 && t[0] == ' ' {
		n, t = 1, t[1:]
	}
	switch {
	case len(t) < 5 || t[0] != '+' && t[0] != '-' || digits(t[1:3]) != 2:
		return 0
	case digits(t[3:5]) == 2:
		return n + 5
	case t[3] == ':' && len(t) >= 6 && digits(t[4:6]) == 2:
		return n + 6
	default:
		return 0
	}
}

const (
	monthNames   = "JanFebMarAprMayJunJulAugSepOctNovDec"
	weekdayNames = "SunMonTueWedThuFriSat"
)

func monthOf(t string) int   { return nameOf(monthNames, t) }
func weekdayOf(t string) int { return nameOf(weekdayNames, t) }

func nameOf(names, t string) int {
	for i := 0; i < len(names); i += 3 {
		if names[i:i+3] == t {
			return i / 3
		}
	}
	return -1
}

// layout is how the timestamps of a column are written: a pattern, a fraction of so many digits, and what follows.
type layout struct {
	pattern string
	point   byte // before the fraction
	digits  int  // of the fraction
	trimmed bool // zeros at the end of the fraction are left out, and with all of them the point
	suffix  string
	unit    int64 // nanoseconds
}

// layoutOf returns the layout of a timestamp.
func layoutOf(t string) (layout, bool) {
	if t != "" && t[0] == '1' {
		if n := digits(t); n == 10 || n == len(t) && (n == 13 || n == 16 || n == 19) {
			l := layout{pattern: "U", digits: n - 10}
			if n == 10 && len(t) > 11 && len(t) <= 20 && t[10] == '.' && digits(t[11:]) == len(t)-11 {
				l.point, l.digits = '.', len(t)-11
			} else if n != len(t) {
				return layout{}, false
			}
			return l, l.check() == nil
		}
	}
	if len(t) > maxStamp {
		return layout{}, false
	}
	n, sh := findStamp(t)
	if n != len(t) || n == 0 {
		return layout{}, false
	}
	l := layout{pattern: sh.pattern}
	rest := t[len(sh.pattern):]
	if rest != "" && (rest[0] == '.' || rest[0] == ',') {
		l.point, l.digits = rest[0], digits(rest[1:])
		rest = rest[1+l.digits:]
	}
	l.suffix = rest
	return l, l.check() == nil
}

// check looks at a layout that was read, and sets its unit.
func (l *layout) check() error {
	if len(l.pattern) == 0 || len(l.pattern) > maxStamp || len(l.suffix) > maxStamp || l.digits < 0 || l.digits > 9 ||
		l.trimmed && l.point == 0 || l.point == 0 && l.digits > 0 && l.pattern != "U" {
		return errors.New("a layout of timestamps is wrong")
	}
	l.unit = 1
	for range 9 - l.digits {
		l.unit *= 10
	}
	return nil
}

// longest returns the length of the longest number in timestamps of the layout, at least.
func (l *layout) longest() int {
	if l.pattern == "U" && l.point == 0 {
		return 10 + l.digits
	}
	n, run := l.digits, 0
	for _, c := range []byte(l.pattern + " " + l.suffix) {
		if c >= '0' && c <= '9' || strings.IndexByte("YMDhms", c) >= 0 {
			run++
		} else {
			run = 0
		}
		n = max(n, run)
	}
	if l.pattern == "U" {
		n = max(n, 10)
	}
	return n
}

// parse returns the Unix time of t in units; entry is the time of the row, which gives the year where t has none. It says
// no unless format gives t back.
func (l *layout) parse(t string, entry int64) (int64, bool) {
	if l.pattern == "U" {
		n, frac := int64(0), 0
		if l.point != 0 {
			if len(t) != 11+l.digits || t[10] != l.point {
				return 0, false
			}
			frac = 1
		} else if len(t) != 10+l.digits {
			return 0, false
		}
		if t[0] != '1' {
			return 0, false
		}
		for i := range len(t) {
			if frac == 1 && i == 10 {
				continue
			}
			if t[i] < '0' || t[i] > '9' {
				return 0, false
			}
			n = n*10 + int64(t[i]-'0')
		}
		return n, true
	}
	p := len(l.pattern)
	if len(t) < p+len(l.suffix) || t[len(t)-len(l.suffix):] != l.suffix {
		return 0, false
	}
	var year, month, day, hour, minute, sec, weekday, years int
	month, day, weekday = 1, 1, -1
	for i := 0; i < p; i++ {
		c := t[i]
		d := int(c) - '0'
		isDigit := d >= 0 && d <= 9
		switch l.pattern[i] {
		case 'Y':
			year, years = year*10+d, years+1
		case 'M':
			if i == 0 || l.pattern[i-1] != 'M' {
				month = 0
			}
			month = month*10 + d
		case '_':
			if c == ' ' {
				d, isDigit = 0, true
			} else if d == 0 {
				return 0, false
			}
			day = d
		case 'D':
			if i == 0 || l.pattern[i-1] != 'D' && l.pattern[i-1] != '_' {
				day = 0
			}
			day = day*10 + d
		case 'h':
			hour = hour*10 + d
		case 'm':
			minute = minute*10 + d
		case 's':
			sec = sec*10 + d
		case 'b':
			if month = monthOf(t[i:i+3]) + 1; month == 0 {
				return 0, false
			}
			i += 2
			continue
		case 'w':
			if weekday = weekdayOf(t[i : i+3]); weekday < 0 {
				return 0, false
			}
			i += 2
			continue
		default:
			if c != l.pattern[i] {
				return 0, false
			}
			continue
		}
		if !isDigit {
			return 0, false
		}
	}
	switch years {
	case 0:
		year, _, _ = civil(floorDiv(entry, 86400e9))
	case 2:
		year += 2000
	}
	if month < 1 || month > 12 || day < 1 || day > 31 || hour > 23 || minute > 59 || sec > 59 {
		return 0, false
	}
	days := daysOf(year, month, day)
	if y, m, d := civil(days); y != year || m != month || d != day || weekday >= 0 && weekday != weekdayAt(days) {
		return 0, false
	}
	n := days*86400 + int64(hour*3600+minute*60+sec)
	frac := t[p : len(t)-len(l.suffix)]
	switch {
	case frac == "":
		if l.digits > 0 && !l.trimmed {
			return 0, false
		}
	case l.digits == 0 || frac[0] != l.point || len(frac)-1 > l.digits || !l.trimmed && len(frac)-1 != l.digits ||
		l.trimmed && (frac[len(frac)-1] == '0' || len(frac) == 1):
		return 0, false
	default:
		frac = frac[1:]
	}
	if l.digits > 0 && (n > 9e9 || n < -9e9) { // nanoseconds of such years do not fit
		return 0, false
	}
	for i := range l.digits {
		n *= 10
		if i < len(frac) {
			if frac[i] < '0' || frac[i] > '9' {
				return 0, false
			}
			n += int64(frac[i] - '0')
		}
	}
	return n, true
}

// format appends the timestamp of n units.
func (l *layout) format(dst []byte, n int64) []byte {
	scale := 1_000_000_000 / l.unit
	if l.pattern == "U" {
		if n < 0 {
			n = 0
		}
		dst = appendPadded(dst, uint64(n/scale), 1)
		if l.digits > 0 {
			if l.point != 0 {
				dst = append(dst, l.point)
			}
			dst = appendPadded(dst, uint64(n%scale), l.digits)
		}
		return dst
	}
	secs := floorDiv(n, scale)
	frac := n - secs*scale
	days := floorDiv(secs, 86400)
	sec := secs - days*86400
	year, month, day := civil(days)
	year = max(0, year)
	for i := 0; i < len(l.pattern); i++ {
		switch c := l.pattern[i]; c {
		case 'Y':
			if i+3 < len(l.pattern) && l.pattern[i+3] == 'Y' {
				dst = appendPadded(dst, uint64(year%10000), 4)
				i += 3
			} else {
				dst = append2(dst, year%100)
				i++
			}
		case 'M':
			dst = append2(dst, month)
			i++
		case '_':
			if day < 10 {
				dst = append(dst, ' ', byte('0'+day))
			} else {
				dst = append2(dst, day)
			}
			i++
		case 'D':
			dst = append2(dst, day)
			i++
		case 'h':
			dst = append2(dst, int(sec/3600))
			i++
		case 'm':
			dst = append2(dst, int(sec/60%60))
			i++
		case 's':
			dst = append2(dst, int(sec%60))
			i++
		case 'b':
			dst = append(dst, monthNames[3*month-3:3*month]...)
			i += 2
		case 'w':
			w := weekdayAt(days)
			dst = append(dst, weekdayNames[3*w:3*w+3]...)
			i += 2
		default:
			dst = append(dst, c)
		}
	}
	if l.digits > 0 && (frac != 0 || !l.trimmed) {
		dst = appendPadded(append(dst, l.point), uint64(frac), l.digits)
		for l.trimmed && dst[len(dst)-1] == '0' {
			dst = dst[:len(dst)-1]
		}
	}
	return append(dst, l.suffix...)
}

func append2(dst []byte, n int) []byte { return append(dst, byte('0'+n/10), byte('0'+n%10)) }

// appendPadded appends n with at least so many digits.
func appendPadded(dst []byte, n uint64, width int) []byte {
	var b [20]byte
	i := len(b)
	for n > 0 || width > 0 {
		i--
		b[i] = byte('0' + n%10)
		n /= 10
		width--
	}
	return append(dst, b[i:]...)
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// daysOf returns the days from 1970 to a date of the Gregorian calendar.
func daysOf(year, month, day int) int64 {
	y := int64(year)
	if month <= 2 {
		y--
	}
	era := floorDiv(y, 400)
	yoe := y - era*400
	mp := int64((month + 9) % 12)
	doy := (153*mp+2)/5 + int64(day) - 1
	return era*146097 + yoe*365 + yoe/4 - yoe/100 + doy - 719468
}

// civil returns the date of a number of days from 1970.
func civil(days int64) (year, month, day int) {
	z := days + 719468
	era := floorDiv(z, 146097)
	doe := z - era*146097
	yoe := (doe - doe/1460 + doe/36524 - doe/146096) / 365
	doy := doe - (365*yoe + yoe/4 - yoe/100)
	mp := (5*doy + 2) / 153
	day = int(doy - (153*mp+2)/5 + 1)
	month = int(mp + 3)
	if month > 12 {
		month -= 12
	}
	y := yoe + era*400
	if month <= 2 {
		y++
	}
	return int(y), month, day
}

func weekdayAt(days int64) int { return int((days%7 + 11) % 7) }
