package storage

import "strconv"

// LogLines asks for the bodies of rows as Lines instead of values, where the engine keeps them so. It is not part of
// LogAll, and LogBody wins over it. A block then has either Body or Lines.
const LogLines LogColumns = LogAll + 1

// Lines is the bodies of the rows of a block, split into what repeats and what varies: row i has the shape
// Shapes[Shape[i]], and its variables are those of row Row[i] of that shape. All bodies in it are strings. It is valid as
// long as its block and for one goroutine at a time.
type Lines struct {
	Shapes []*Shape
	Shape  []uint32
	Row    []uint32
}

// Shape is the lines of a block that have one template.
type Shape struct {
	// Template is shared by the blocks of a part: what is worked out about it can be kept under its pointer.
	Template *Template
	// Rows is how many lines the shape has in the block as it is stored; not all of them need be rows of the LogBlock.
	Rows int
	// Load returns the variables of a gap, decoding them at the first call. An error says that they are corrupt.
	Load func(gap int) (*Variables, error)
}

// Template is a text with gaps: Text[0], gap 0, Text[1], gap 1 ... Text[len(Gaps)].
type Template struct {
	Text []string
	Gaps []Gap
}

// Gap says what the variables of a gap consist of: whoever parses a template relies on it.
type Gap uint8

// The kinds of gaps. No variable is empty unless said.
const (
	GapLine   Gap = iota // any bytes at all, also none: the whole line
	GapDigits            // 0-9
	GapWord              // 0-9, a-z, A-Z
	GapNumber            // a number as JSON writes it
	GapPlain             // no byte below 0x21, no ", \, = or 0x7f: an unquoted value of logfmt
	GapQuoted            // no byte below 0x20, no " and no \: what stands in a string of JSON as it is; may be empty
	GapTime              // a timestamp: letters, digits, blanks and + - : . , /
)

// Variables is the texts of a gap, one for each row of its shape, in one of three forms: Ints, Dict with Code, or Texts.
// They must not be changed, and the texts not be kept longer than the block.
type Variables struct {
	// Ints, when not nil, are texts that strconv.FormatInt gives of these numbers, or with Scale > 0 decimal numbers with
	// just so many digits behind the point: 1250 with Scale 2 is 12.50, -5 with Scale 2 is -0.05.
	Ints  []int64
	Scale int
	// Dict, when not nil, has the distinct texts, and Code the index of each row's text.
	Dict []string
	Code []uint32
	// Texts are the texts one by one.
	Texts []string
}

// Append appends the text of a row to dst.
func (v *Variables) Append(dst []byte, row int) []byte {
	switch {
	case v.Ints != nil:
		return AppendDecimal(dst, v.Ints[row], v.Scale)
	case v.Dict != nil:
		return append(dst, v.Dict[v.Code[row]]...)
	default:
		return append(dst, v.Texts[row]...)
	}
}

// AppendDecimal appends n with the decimal point scale digits from the right: the text that Variables mean by it.
func AppendDecimal(dst []byte, n int64, scale int) []byte {
	if scale <= 0 {
		return strconv.AppendInt(dst, n, 10)
	}
	u := uint64(n)
	if n < 0 {
		dst = append(dst, '-')
		u = -u
	}
	var digits [20]byte
	d := strconv.AppendUint(digits[:0], u, 10)
	if len(d) <= scale {
		dst = append(dst, '0', '.')
		for range scale - len(d) {
			dst = append(dst, '0')
		}
		return append(dst, d...)
	}
	dst = append(append(dst, d[:len(d)-scale]...), '.')
	return append(dst, d[len(d)-scale:]...)
}

// AppendLine appends the line of row i of the block to dst.
func (l *Lines) AppendLine(dst []byte, i int) ([]byte, error) {
	s, row := l.Shapes[l.Shape[i]], int(l.Row[i])
	for gap, text := range s.Template.Text {
		dst = append(dst, text...)
		if gap < len(s.Template.Gaps) {
			v, err := s.Load(gap)
			if err != nil {
				return dst, err
			}
			dst = v.Append(dst, row)
		}
	}
	return dst, nil
}
