package lines

import (
	"encoding/binary"
	"strconv"

	"github.com/braidobs/braid/storage"
)

// Encodings of a column of variables. The numbers are on disk.
const (
	encConst   = 0 // one text
	encDict    = 1 // distinct texts, and a number for each row
	encInts    = 2 // integers as strconv.FormatInt writes them
	encDecimal = 3 // decimals with the same number of digits behind the point
	encMixed   = 4 // decimals with different numbers of digits behind the point
	encHex     = 5 // texts of one length that differ in hexadecimal digits only
	encStamp   = 6 // timestamps, as differences from the times of the rows
	encNumbers = 7 // texts that fall apart into few skeletons and integers
	encTexts   = 8 // texts
)

// Limits of encNumbers.
const (
	maxSkeletons = 128
	maxRuns      = 12
	maxRunDigits = 18
)

// packer chooses and writes the encoding of one column after the other. Its buffers are reused.
type packer struct {
	class [256]byte
	body  []byte // of the last column

	table    []uint32 // hash table of distinct: position in entries plus one
	entries  []string
	codes    []uint32
	distinct int // of the last column, or more than it has rows
	nums     []int64
	scales   []byte
	pattern  []byte
	skeleton []byte
	families map[string]*family
	order    []*family
}

// family is the values of a column that have one skeleton.
type family struct {
	skeleton string
	number   uint32
	runs     []run
}

// run is the digits at one place of a skeleton.
type run struct {
	nums   []int64
	lo, hi int // length
	zeros  bool
}

func newPacker() *packer {
	return &packer{class: classTable(), families: make(map[string]*family)}
}

// pack writes the column to body and returns its encoding. Row i of it has time times[rows[i]].
func (p *packer) pack(gap storage.Gap, vals []string, rows []uint32, times []int64) byte {
	p.body = p.body[:0]
	if same(vals) {
		p.body = append(append(p.body, encConst), vals[0]...)
		return encConst
	}
	if gap == storage.GapTime || len(vals[0]) >= 10 && vals[0][0] == '1' {
		if p.stamps(vals, rows, times) {
			return encStamp
		}
	}
	n := len(vals)
	if gap != storage.GapLine {
		p.number(vals, min(256, n/4))
		if p.distinct <= 256 && 4*p.distinct <= n {
			p.dict()
			return encDict
		}
		if enc := p.integers(vals); enc != encTexts {
			return enc
		}
	}
	p.number(vals, n/2)
	if 2*p.distinct <= n {
		p.dict()
		return encDict
	}
	if gap != storage.GapLine && n >= 4 {
		if p.hex(vals) {
			return encHex
		}
		if p.numbers(vals) {
			return encNumbers
		}
	}
	p.body = p.texts(append(p.body[:0], encTexts), vals)
	return encTexts
}

func same(vals []string) bool {
	for _, v := range vals[1:] {
		if v != vals[0] {
			return false
		}
	}
	return true
}

// number gives the distinct values numbers; it stops when there are more than limit.
func (p *packer) number(vals []string, limit int) {
	size := 16
	for size < 4*(min(limit, len(vals))+1) {
		size *= 2
	}
	if cap(p.table) < size {
		p.table = make([]uint32, size)
	}
	table := p.table[:size]
	clear(table)
	clear(p.entries)
	p.entries, p.codes = p.entries[:0], p.codes[:0]
	last := uint32(0)
	for i, v := range vals {
		if i > 0 && v == p.entries[last] {
			p.codes = append(p.codes, last)
			continue
		}
		h := int(hashString(v)) & (size - 1)
		for {
			at := table[h]
			if at == 0 {
				if len(p.entries) == limit {
					p.distinct = len(vals) + 1
					return
				}
				p.entries = append(p.entries, v)
				at = uint32(len(p.entries))
				table[h] = at
			}
			if p.entries[at-1] == v {
				last = at - 1
				break
			}
			h = (h + 1) & (size - 1)
		}
		p.codes = append(p.codes, last)
	}
	p.distinct = len(p.entries)
}

func (p *packer) dict() {
	b := binary.AppendUvarint(append(p.body[:0], encDict), uint64(len(p.entries)))
	b = p.texts(b, p.entries)
	p.body = appendCodes(b, p.codes, len(p.entries))
}

// texts appends lengths and bytes.
func (p *packer) texts(b []byte, vals []string) []byte {
	p.nums = p.nums[:0]
	for _, v := range vals {
		p.nums = append(p.nums, int64(len(v)))
	}
	b = appendInts(b, p.nums)
	for _, v := range vals {
		b = append(b, v...)
	}
	return b
}

// decimal parses a number that storage.AppendDecimal gives back.
func decimal(v string) (n int64, scale int, ok bool) {
	neg := false
	t := v
	if t != "" && t[0] == '-' {
		neg, t = true, t[1:]
	}
	if t == "" || len(t) > 19 || t[0] == '.' || t[0] == '0' && len(t) > 1 && t[1] != '.' {
		return 0, 0, false
	}
	point := -1
	for i := range len(t) {
		c := t[i]
		if c == '.' && point < 0 && i+1 < len(t) {
			point = i
			continue
		}
		if c < '0' || c > '9' {
			return 0, 0, false
		}
		if n > 99_999_999_999_999_999 {
			return 0, 0, false
		}
		n = n*10 + int64(c-'0')
	}
	if neg {
		if n == 0 {
			return 0, 0, false // -0
		}
		n = -n
	}
	if point >= 0 {
		scale = len(t) - 1 - point
	}
	return n, scale, true
}

// integers writes integers and decimals; encTexts says that the column is something else.
func (p *packer) integers(vals []string) byte {
	p.nums, p.scales = p.nums[:0], p.scales[:0]
	lo, hi := 20, 0
	for _, v := range vals {
		n, scale, ok := decimal(v)
		if !ok {
			return encTexts
		}
		lo, hi = min(lo, scale), max(hi, scale)
		p.nums, p.scales = append(p.nums, n), append(p.scales, byte(scale))
	}
	switch {
	case hi == 0:
		p.body = appendInts(append(p.body[:0], encInts), p.nums)
		return encInts
	case lo == hi:
		p.body = appendInts(append(p.body[:0], encDecimal, byte(hi)), p.nums)
		return encDecimal
	}
	for i, scale := range p.scales {
		for range hi - int(scale) {
			if n := p.nums[i]; n > 99_999_999_999_999_999 || n < -99_999_999_999_999_999 {
				return encTexts
			}
			p.nums[i] *= 10
		}
	}
	p.body = append(append(p.body[:0], encMixed, byte(hi)), p.scales...)
	p.body = appendInts(p.body, p.nums)
	return encMixed
}

// stamps writes timestamps.
func (p *packer) stamps(vals []string, rows []uint32, times []int64) bool {
	l, ok := layoutOf(vals[0])
	if !ok {
		return false
	}
	if !p.stampsAs(&l, vals, rows, times) {
		// Go leaves zeros at the end of the fraction out: the longest one tells the digits.
		if l.point == 0 || l.pattern == "U" {
			return false
		}
		for _, v := range vals {
			if m, ok := layoutOf(v); ok && m.digits > l.digits {
				l.digits, l.point = m.digits, m.point
			}
		}
		l.trimmed = true
		if l.check() != nil || !p.stampsAs(&l, vals, rows, times) {
			return false
		}
	}
	trimmed := byte(0)
	if l.trimmed {
		trimmed = 1
	}
	b := append(p.body[:0], encStamp, byte(len(l.pattern)))
	b = append(append(b, l.pattern...), l.point, byte(l.digits), trimmed, byte(len(l.suffix)))
	p.body = appendInts(append(b, l.suffix...), p.nums)
	return true
}

func (p *packer) stampsAs(l *layout, vals []string, rows []uint32, times []int64) bool {
	p.nums = p.nums[:0]
	for i, v := range vals {
		at := times[rows[i]]
		n, ok := l.parse(v, at)
		if !ok {
			return false
		}
		p.nums = append(p.nums, floorDiv(at, l.unit)-n)
	}
	return true
}

// hex writes texts of one length that differ in hexadecimal digits only: a pattern with zero bytes for these, then the
// digits, two a byte.
func (p *packer) hex(vals []string) bool {
	width := len(vals[0])
	if width < 6 || width > 255 {
		return false
	}
	p.pattern = append(p.pattern[:0], vals[0]...)
	letters := byte(0)
	pattern := p.pattern
	for _, v := range vals {
		if len(v) != width {
			return false
		}
		for j, c := range pattern {
			if v[j] == c {
				continue
			}
			if c != 0 && !p.nibble(c, &letters) || !p.nibble(v[j], &letters) {
				return false
			}
			pattern[j] = 0
		}
	}
	digits := 0
	for _, c := range pattern {
		if c == 0 {
			digits++
		}
	}
	if letters == 0 || digits < 4 {
		return false
	}
	b := append(append(p.body[:0], encHex, letters, byte(width)), pattern...)
	half, have := byte(0), false
	for _, v := range vals {
		for j, c := range pattern {
			if c != 0 {
				continue
			}
			x := v[j] - '0'
			if x > 9 {
				x = v[j]&7 + 9
			}
			if have {
				b = append(b, half|x)
			} else {
				half = x << 4
			}
			have = !have
		}
	}
	if have {
		b = append(b, half)
	}
	p.body = b
	return true
}

// nibble says whether c is a hexadecimal digit, and with letters of one case only. Letters becomes 'a' or 'A'.
func (p *packer) nibble(c byte, letters *byte) bool {
	switch cl := p.class[c]; {
	case cl == isDigit:
		return true
	case cl != isHex:
		return false
	case *letters == 0:
		*letters = 'A' | c&0x20
		return true
	default:
		return *letters&0x20 == c&0x20
	}
}

// numbers writes texts that fall apart into few skeletons (with a zero byte for each run of digits) and integers.
func (p *packer) numbers(vals []string) bool {
	clear(p.families)
	p.order, p.codes = p.order[:0], p.codes[:0]
	limit := min(maxSkeletons, len(vals)/8+1)
	for _, v := range vals {
		if len(v) > 512 {
			return false
		}
		sk := p.skeleton[:0]
		for i := 0; i < len(v); {
			c := v[i]
			switch {
			case c == 0:
				return false
			case c >= '0' && c <= '9':
				sk = append(sk, 0)
				i += digits(v[i:])
			default:
				sk = append(sk, c)
				i++
			}
		}
		p.skeleton = sk
		f := p.families[string(sk)]
		if f == nil {
			if len(p.order) == limit {
				return false
			}
			f = &family{skeleton: string(sk), number: uint32(len(p.order))}
			for _, c := range sk {
				if c == 0 {
					f.runs = append(f.runs, run{lo: maxRunDigits})
				}
			}
			if len(f.runs) > maxRuns {
				return false
			}
			p.families[f.skeleton] = f
			p.order = append(p.order, f)
		}
		p.codes = append(p.codes, f.number)
		k := 0
		for i := 0; i < len(v); {
			if c := v[i]; c < '0' || c > '9' {
				i++
				continue
			}
			n := digits(v[i:])
			if n > maxRunDigits {
				return false
			}
			r := &f.runs[k]
			k++
			num := int64(0)
			for _, c := range []byte(v[i : i+n]) {
				num = num*10 + int64(c-'0')
			}
			r.nums = append(r.nums, num)
			r.lo, r.hi = min(r.lo, n), max(r.hi, n)
			r.zeros = r.zeros || v[i] == '0' && n > 1
			if r.zeros && r.lo != r.hi {
				return false
			}
			i += n
		}
	}
	b := append(p.body[:0], encNumbers, byte(len(p.order)))
	for _, f := range p.order {
		b = append(binary.AppendUvarint(b, uint64(len(f.skeleton))), f.skeleton...)
	}
	if len(p.order) > 1 {
		b = appendCodes(b, p.codes, len(p.order))
	}
	for _, f := range p.order {
		for _, r := range f.runs {
			width := 0
			if r.zeros {
				width = r.hi
			}
			b = appendInts(append(b, byte(width)), r.nums)
		}
	}
	p.body = b
	return true
}

// values is a column, decoded.
type values struct {
	storage.Variables
	n    int
	text string // what Texts are cut from, one after the other
}

// maxDecoded bounds what one column takes when it is decoded.
const maxDecoded = 128 << 20

// columnIn is what is needed to decode a column.
type columnIn struct {
	n     int
	rows  func() []uint32         // the rows of the block that the column's rows are
	times func() ([]int64, error) // of all rows of the block
	codes func() []uint32         // n numbers, for codes
	zeros func() []uint32         // n zeros, shared
}

// unpack decodes a column.
func unpack(body []byte, in *columnIn) (*values, error) {
	r := &reader{b: body}
	v := &values{n: in.n}
	switch r.byte() {
	case encConst:
		v.Dict, v.Code = []string{string(r.take(len(r.b)))}, in.zeros()
	case encDict:
		n := r.uvarint(in.n)
		v.Dict, v.text = r.texts(n)
		v.Code = in.codes()
		r.codes(v.Code, n)
	case encInts:
		v.Ints = r.ints(in.n)
	case encDecimal:
		if v.Scale = int(r.byte()); v.Scale == 0 || v.Scale > maxRunDigits {
			r.fail()
		}
		v.Ints = r.ints(in.n)
	case encMixed:
		r.mixed(v)
	case encHex:
		r.hex(v)
	case encStamp:
		if err := r.stamps(v, in); err != nil {
			return nil, err
		}
	case encNumbers:
		r.numbers(v)
	case encTexts:
		v.Texts, v.text = r.texts(in.n)
	default:
		r.fail()
	}
	if r.err == nil && len(r.b) > 0 {
		r.fail()
	}
	return v, r.err
}

// texts reads n texts; they are cut from one.
func (r *reader) texts(n int) ([]string, string) {
	lens := r.ints(n)
	total := 0
	for _, l := range lens {
		if l < 0 || l > int64(len(r.b)) {
			r.fail()
			return nil, ""
		}
		if total += int(l); total > len(r.b) {
			r.fail()
			return nil, ""
		}
	}
	if r.err != nil {
		return nil, ""
	}
	text := string(r.take(total))
	out := make([]string, n)
	at := 0
	for i, l := range lens {
		out[i] = text[at : at+int(l)]
		at += int(l)
	}
	return out, text
}

// cut makes texts of one text and where each begins.
func (v *values) cut(text []byte, ends []uint32) {
	v.text = string(text)
	v.Texts = make([]string, len(ends))
	at := uint32(0)
	for i, end := range ends {
		v.Texts[i] = v.text[at:end]
		at = end
	}
}

func (r *reader) mixed(v *values) {
	top := int(r.byte())
	if top > maxRunDigits {
		r.fail()
	}
	scales := r.take(v.n)
	nums := r.ints(v.n)
	if r.err != nil {
		return
	}
	var text []byte
	ends := make([]uint32, v.n)
	for i, n := range nums {
		if int(scales[i]) > top {
			r.fail()
			return
		}
		for range top - int(scales[i]) {
			n /= 10
		}
		text = storage.AppendDecimal(text, n, int(scales[i]))
		ends[i] = uint32(len(text))
	}
	v.cut(text, ends)
}

func (r *reader) hex(v *values) {
	letters, width := r.byte(), int(r.byte())
	pattern := r.take(width)
	places := make([]int, 0, width) // of digits that vary
	for i, c := range pattern {
		if c == 0 {
			places = append(places, i)
		}
	}
	b := r.take((len(places)*v.n + 1) / 2)
	digits := "0123456789abcdef"
	switch letters {
	case 'a':
	case 'A':
		digits = "0123456789ABCDEF"
	default:
		r.fail()
	}
	if r.err != nil {
		return
	}
	text := make([]byte, width*v.n)
	ends := make([]uint32, v.n)
	k := 0
	for i := range ends {
		t := text[i*width : (i+1)*width]
		copy(t, pattern)
		for _, at := range places {
			t[at] = digits[b[k>>1]>>(4*(1-k&1))&15]
			k++
		}
		ends[i] = uint32((i + 1) * width)
	}
	v.cut(text, ends)
}

func (r *reader) layout() layout {
	l := layout{pattern: string(r.take(int(r.byte())))}
	l.point, l.digits = r.byte(), int(r.byte())
	l.trimmed = r.byte() == 1
	l.suffix = string(r.take(int(r.byte())))
	if l.check() != nil {
		r.fail()
	}
	return l
}

func (r *reader) stamps(v *values, in *columnIn) error {
	l := r.layout()
	diffs := r.ints(v.n)
	if r.err != nil {
		return r.err
	}
	times, err := in.times()
	if err != nil {
		return err
	}
	rows := in.rows()
	text := make([]byte, 0, v.n*(len(l.pattern)+l.digits+1+len(l.suffix)))
	ends := make([]uint32, v.n)
	for i, row := range rows {
		if int(row) >= len(times) {
			return ErrCorrupt
		}
		text = l.format(text, floorDiv(times[row], l.unit)-diffs[i])
		ends[i] = uint32(len(text))
	}
	v.cut(text, ends)
	return nil
}

func (r *reader) numbers(v *values) {
	n := int(r.byte())
	if n == 0 || n > maxSkeletons {
		r.fail()
		return
	}
	type part struct {
		nums  []int64
		width int
	}
	skeletons := make([]string, n)
	for i := range skeletons {
		skeletons[i] = string(r.take(r.uvarint(512)))
	}
	codes := make([]uint32, v.n)
	if n > 1 {
		r.codes(codes, n)
	}
	if r.err != nil {
		return
	}
	counts := make([]int, n)
	for _, c := range codes {
		counts[c]++
	}
	parts := make([][]part, n)
	total := 0
	for i, sk := range skeletons {
		total += counts[i] * len(sk)
		for j := range len(sk) {
			if sk[j] != 0 {
				continue
			}
			width := int(r.byte())
			if width > maxRunDigits || len(parts[i]) == maxRuns {
				r.fail()
			}
			parts[i] = append(parts[i], part{nums: r.ints(counts[i]), width: width})
			if r.err != nil {
				return
			}
			total += counts[i] * 20
		}
	}
	if total > maxDecoded {
		r.fail()
		return
	}
	var text []byte
	ends := make([]uint32, v.n)
	at := make([]int, n)
	for i, c := range codes {
		k, row := 0, at[c]
		at[c]++
		sk := skeletons[c]
		for j := range len(sk) {
			if sk[j] != 0 {
				text = append(text, sk[j])
				continue
			}
			p := &parts[c][k]
			k++
			if p.width > 0 {
				text = appendPadded(text, uint64(p.nums[row]), p.width)
			} else {
				text = strconv.AppendInt(text, p.nums[row], 10)
			}
		}
		ends[i] = uint32(len(text))
	}
	v.cut(text, ends)
}
