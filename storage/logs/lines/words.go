package lines

import (
	"github.com/braidobs/braid/storage"
)

// Limits of words.
const (
	maxWords   = 1 << 16 // of one block; with more, the index knows nothing about the block
	minDecimal = 5       // shorter numbers are everywhere
	longWord   = 12      // with digits: from here on only every fourth gram is kept
	longHex    = 32      // longer ones can be found by parts
)

// What a block holds that its words do not tell.
const (
	hasStamps    byte = 1 << iota // timestamps
	hasUUIDs                      // as one word each
	hasLongWords                  // of which not every gram is kept
	hasLongHex                    // of more than longHex digits
	hasTooMany                    // more than maxWords
)

// Seeds keep the kinds of words apart.
const (
	seedTemplate = 0x8f3c1e5a7d2b4960
	seedGram     = 0x51ed270b9d4f8a37
	seedPiece    = 0xb7e151628aed2a6b
	seedHex      = 0x3243f6a8885a308d
	seedOwn      = 0x9216d5d98979fb1b
)

// Words is what the word index keeps of a block: hashes of the words of its variables and of the numbers of its templates, and
// a summary of what the hashes leave out. A word is a run of letters, digits and bytes beyond ASCII. Of words that are neither
// numbers nor hexadecimal the runs of four bytes are kept, too, so that parts of them are found.
type Words struct {
	class  [256]byte
	recent []uint64 // hashes that came not long ago
	hashes []uint64
	summary
}

// summary is what is known of a block beside its hashes.
type summary struct {
	flags        byte
	hex          byte // length of the longest hexadecimal word, up to longHex
	decimal      byte // of the longest number
	skipped      byte // of the longest number that has no hash
	stampDecimal byte // of the longest number in a timestamp
}

const summarySize = 5

func (w *Words) reset() {
	if w.recent == nil {
		w.class = classTable()
		w.recent = make([]uint64, 1<<13)
	}
	clear(w.recent)
	w.hashes, w.summary = w.hashes[:0], summary{}
}

func (w *Words) template(n uint32) { w.hashes = append(w.hashes, templateHash(n)) }

// Hash adds something of the caller's own that Index.Hashed finds; h must be well mixed.
func (w *Words) Hash(h uint64) { w.add(mix(seedOwn ^ h)) }

func templateHash(n uint32) uint64 { return mix(seedTemplate ^ uint64(n)) }

// add keeps a hash and says whether it is new, as far as is remembered.
func (w *Words) add(h uint64) bool {
	at := &w.recent[h>>13&(1<<13-1)]
	if *at == h {
		return false
	}
	*at = h
	if len(w.hashes) >= maxWords {
		w.flags |= hasTooMany
		return false
	}
	w.hashes = append(w.hashes, h)
	return true
}

// column keeps the words of an encoded column: vals are its texts, as far as they are distinct, top is the length of the
// longest.
func (w *Words) column(body []byte, vals []string, top int) {
	switch body[0] {
	case encStamp, encDecimal, encMixed:
		w.numbers(body, top)
	default:
		for _, v := range vals {
			w.text(v)
		}
	}
}

// numbers is column for timestamps and decimals, whose words are not kept.
func (w *Words) numbers(body []byte, top int) bool {
	r := &reader{b: body}
	switch r.byte() {
	case encStamp:
		l := r.layout()
		if r.err != nil {
			return false
		}
		w.flags |= hasStamps
		w.stampDecimal = max(w.stampDecimal, byte(l.longest()))
	case encDecimal:
		scale := int(r.byte())
		w.skip(max(scale, top-scale-1))
	default: // with a point, or shorter than the longest
		w.skip(max(int(r.byte()), top-2))
	}
	return r.err == nil
}

// skip says that there are numbers of up to n digits whose hashes are not kept.
func (w *Words) skip(n int) {
	w.skipped = max(w.skipped, byte(min(n, 255)))
	w.decimal = max(w.decimal, byte(min(n, 255)))
}

const isWord = isAlnum | isHigh

// text keeps the words of a text.
func (w *Words) text(v string) {
	for i := 0; i < len(v); {
		c := w.class[v[i]]
		if c&isWord == 0 {
			i++
			continue
		}
		a, mask := i, byte(0)
		for {
			mask |= c
			i++
			if i == len(v) {
				break
			}
			if c = w.class[v[i]]; c&isWord == 0 {
				break
			}
		}
		if i-a == 8 && isUUID(v[a:], &w.class) {
			w.flags |= hasUUIDs
			w.add(hashString(v[a : a+36]))
			i = a + 36
			continue
		}
		w.word(v[a:i], mask)
	}
}

// isUUID says whether v begins with a UUID that is not part of something longer.
func isUUID(v string, class *[256]byte) bool {
	if len(v) < 36 || len(v) > 36 && class[v[36]]&isWord != 0 {
		return false
	}
	for i := range 36 {
		if i == 8 || i == 13 || i == 18 || i == 23 {
			if v[i] != '-' {
				return false
			}
		} else if class[v[i]]&(isDigit|isHex) == 0 {
			return false
		}
	}
	return true
}

// word keeps a word whose bytes have the classes of mask.
func (w *Words) word(t string, mask byte) {
	switch kindOf(mask) {
	case decimalWord:
		if len(t) < minDecimal {
			w.skip(len(t))
			return
		}
		w.decimal = max(w.decimal, byte(min(len(t), 255)))
		w.add(hashString(t))
	case hexWord:
		if !w.add(hashString(t)) {
			return
		}
		if len(t) <= longHex {
			w.hex = max(w.hex, byte(len(t)))
			return
		}
		w.flags |= hasLongHex
		for i := 0; i+8 <= len(t); i += 8 {
			w.add(hexHash(t[i:]))
		}
	default:
		if !w.add(hashString(t)) {
			return
		}
		if len(t) >= longWord && (mask&isDigit != 0 || len(t) >= 4*longWord) {
			w.flags |= hasLongWords
			for i := 0; i+4 <= len(t); i += 4 {
				w.add(gramHash(seedPiece, t[i:]))
			}
			return
		}
		for i := 0; i+4 <= len(t); i++ {
			w.add(gramHash(seedGram, t[i:]))
		}
	}
}

// wordKind is how a word is kept.
type wordKind uint8

const (
	otherWord wordKind = iota
	decimalWord
	hexWord // with at least one digit
)

func kindOf(mask byte) wordKind {
	switch mask {
	case isDigit:
		return decimalWord
	case isDigit | isHex:
		return hexWord
	default:
		return otherWord
	}
}

// gramHash is the hash of the first four bytes of t.
func gramHash(seed uint64, t string) uint64 {
	return mix(seed ^ (uint64(t[0]) | uint64(t[1])<<8 | uint64(t[2])<<16 | uint64(t[3])<<24))
}

// hexHash is the hash of the first eight bytes of t.
func hexHash(t string) uint64 {
	return mix(seedHex ^ (uint64(t[0]) | uint64(t[1])<<8 | uint64(t[2])<<16 | uint64(t[3])<<24 |
		uint64(t[4])<<32 | uint64(t[5])<<40 | uint64(t[6])<<48 | uint64(t[7])<<56))
}

// Words collects into w what the word index keeps of the block, for a block that was copied. It decodes most columns.
func (b *Block) Words(w *Words) error {
	w.reset()
	for _, s := range b.shapes {
		w.template(s.number)
		for gap := range s.cols {
			c := &s.cols[gap]
			body, err := b.body(c)
			if err != nil {
				return err
			}
			if len(body) == 0 {
				return ErrCorrupt
			}
			if enc := body[0]; enc == encDecimal || enc == encMixed || enc == encStamp {
				if !w.numbers(body, c.top) {
					return ErrCorrupt
				}
				continue
			}
			v, err := b.values(s, gap)
			if err != nil {
				return err
			}
			switch {
			case v.Dict != nil:
				for _, t := range v.Dict {
					w.text(t)
				}
			case v.Ints != nil:
				var buf [24]byte
				for _, n := range v.Ints {
					w.text(string(storage.AppendDecimal(buf[:0], n, 0)))
				}
			default:
				for _, t := range v.Texts {
					w.text(t)
				}
			}
		}
	}
	return nil
}
