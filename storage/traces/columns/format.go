package columns

// The format is described in docs/format/part.md, section "Traces".

// version is the version of the format of segments.
const version = 1

// MaxBlocks is how many blocks, and pages, a segment has at most: one for each bit of the answers about them.
const MaxBlocks = 64

// place is where a key belongs to. The numbers are on disk.
type place uint8

const (
	spanField  place = 1
	spanAttr   place = 2
	eventField place = 3
	eventAttr  place = 4
	linkField  place = 5
	linkAttr   place = 6
)

// family is what has tuples: spans, their events, their links.
type family int

const (
	spans family = iota
	events
	links
	families
)

func (p place) family() family { return family(p-1) / 2 }

func (p place) attr() bool { return p%2 == 0 }

// Names of fields, one letter each. Name, kind, status and scope are always there, the others if they are not zero.
const (
	fieldName    = "n"
	fieldKind    = "k"
	fieldStatus  = "s"
	fieldScope   = "c" // its number
	fieldMessage = "m"
	fieldState   = "t" // of spans and links
	fieldFlags   = "f" // of spans and links
	fieldDropped = "d" // attributes of any family
	fieldEvents  = "e" // dropped events
	fieldLinks   = "l" // dropped links
)

// own is the code in a tuple of a key whose values stand in a column of their own.
const own = 1<<32 - 1

// The forms of a column of its own in a page. The numbers are on disk.
const (
	formInts    = 1 // integers
	formCodes   = 2 // codes of the key's values in the segment
	formStrings = 3 // strings of the page, each once, and their codes
	formValues  = 4 // values of the page in their binary form, each once, and their codes
)
