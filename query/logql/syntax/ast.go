package syntax

import (
	"time"

	"github.com/prometheus/prometheus/model/labels"
)

// Kind is what a query evaluates to.
type Kind uint8

// The kinds of queries.
const (
	Lines  Kind = iota // rows of logs
	Vector             // a vector for each instant
	Scalar             // a number
)

// Expr is a query. The set is closed: *Log, *Range, *Aggregation, *Binary, *Negation, *Number, *Constant and
// *LabelReplace. Trees must not be changed.
type Expr interface {
	Kind() Kind
	// String returns the query in one line.
	String() string
	expr()
}

// Log selects streams and runs stages over their lines.
type Log struct {
	Matchers []*labels.Matcher
	Stages   []Stage
}

// RangeOp is what a Range computes.
type RangeOp string

// The operations over ranges.
const (
	CountOverTime    RangeOp = "count_over_time"
	Rate             RangeOp = "rate"
	RateCounter      RangeOp = "rate_counter"
	BytesOverTime    RangeOp = "bytes_over_time"
	BytesRate        RangeOp = "bytes_rate"
	AbsentOverTime   RangeOp = "absent_over_time"
	SumOverTime      RangeOp = "sum_over_time"
	AvgOverTime      RangeOp = "avg_over_time"
	MinOverTime      RangeOp = "min_over_time"
	MaxOverTime      RangeOp = "max_over_time"
	StddevOverTime   RangeOp = "stddev_over_time"
	StdvarOverTime   RangeOp = "stdvar_over_time"
	QuantileOverTime RangeOp = "quantile_over_time"
	FirstOverTime    RangeOp = "first_over_time"
	LastOverTime     RangeOp = "last_over_time"
)

// Range computes a number from the lines of a window, for each series.
type Range struct {
	Op       RangeOp
	Param    float64 // of quantile_over_time
	Log      *Log
	Unwrap   *Unwrap // nil when lines are counted
	After    []Stage // label filters behind unwrap
	Window   time.Duration
	Offset   time.Duration
	At       *At       // nil for none
	Grouping *Grouping // nil for none
	Pos      Position
}

// Unwrap makes a label the value of a row.
type Unwrap struct {
	Label      string
	Conversion Conversion
}

// Conversion is how unwrap reads a label.
type Conversion string

// The conversions.
const (
	PlainNumber     Conversion = ""
	Duration        Conversion = "duration"
	DurationSeconds Conversion = "duration_seconds"
	Bytes           Conversion = "bytes"
)

// At fixes the time of evaluation: a time in milliseconds, or the start or end of the query.
type At struct {
	Millis     int64
	Start, End bool
}

// Grouping is the labels that results keep, or lose.
type Grouping struct {
	Without bool
	Labels  []string
}

// Operation is what an Aggregation does to vectors.
type Operation string

// The aggregations.
const (
	Sum        Operation = "sum"
	Avg        Operation = "avg"
	Min        Operation = "min"
	Max        Operation = "max"
	Count      Operation = "count"
	Stddev     Operation = "stddev"
	Stdvar     Operation = "stdvar"
	TopK       Operation = "topk"
	BottomK    Operation = "bottomk"
	ApproxTopK Operation = "approx_topk"
	Sort       Operation = "sort"
	SortDesc   Operation = "sort_desc"
)

// Aggregation merges the elements of a vector.
type Aggregation struct {
	Op       Operation
	K        int // of topk, bottomk and approx_topk
	Expr     Expr
	Grouping *Grouping // nil for none
	Pos      Position
}

// Binary is an operation on two vectors or scalars.
type Binary struct {
	Op   string // + - * / % ^ == != > >= < <= and or unless
	L, R Expr
	// Bool makes a comparison return 0 or 1 instead of filtering.
	Bool     bool
	Matching *Matching // nil for none
}

// Matching tells which elements of two vectors belong together.
type Matching struct {
	On     bool // by Labels alone; false: by all but Labels
	Labels []string
	// Group is "", "left" or "right": the side with many elements for one of the other.
	Group   string
	Include []string // labels taken from the side with one
}

// Negation is the value of Expr with its sign changed.
type Negation struct{ Expr Expr }

// Number is a scalar.
type Number struct{ Value float64 }

// Constant is vector(number): a vector of one element without labels.
type Constant struct{ Value float64 }

// LabelReplace sets a label from another by a regular expression, which must match all of it.
type LabelReplace struct {
	Expr                                     Expr
	Destination, Replacement, Source, Regexp string
}

// Kind implements Expr.
func (*Log) Kind() Kind { return Lines }

// Kind implements Expr.
func (*Range) Kind() Kind { return Vector }

// Kind implements Expr.
func (*Aggregation) Kind() Kind { return Vector }

// Kind implements Expr.
func (b *Binary) Kind() Kind {
	if b.L.Kind() == Scalar && b.R.Kind() == Scalar {
		return Scalar
	}
	return Vector
}

// Kind implements Expr.
func (n *Negation) Kind() Kind { return n.Expr.Kind() }

// Kind implements Expr.
func (*Number) Kind() Kind { return Scalar }

// Kind implements Expr.
func (*Constant) Kind() Kind { return Vector }

// Kind implements Expr.
func (*LabelReplace) Kind() Kind { return Vector }

func (*Log) expr()          {}
func (*Range) expr()        {}
func (*Aggregation) expr()  {}
func (*Binary) expr()       {}
func (*Negation) expr()     {}
func (*Number) expr()       {}
func (*Constant) expr()     {}
func (*LabelReplace) expr() {}

// Stage is a step of a pipeline: a closed set.
type Stage interface{ stage() }

// LineOp is how a LineFilter compares.
type LineOp string

// The operators of line filters.
const (
	Contains      LineOp = "|="
	ContainsNot   LineOp = "!="
	MatchesRegexp LineOp = "|~"
	NotRegexp     LineOp = "!~"
	Like          LineOp = "|>"
	NotLike       LineOp = "!>"
)

// Negative says whether lines are kept that do not match.
func (o LineOp) Negative() bool { return o[0] == '!' }

// Alternative is what a line filter looks for.
type Alternative struct {
	IP   bool // Text is an address, a range of them or a network
	Text string
}

type (
	// LineFilter keeps lines that match any alternative, or, with a negative operator, none.
	LineFilter struct {
		Op           LineOp
		Alternatives []Alternative
	}
	// JSON extracts all fields of a line that is a JSON object, or those named.
	JSON struct{ Fields []Extraction }
	// Logfmt extracts all fields of a line in logfmt, or those named.
	Logfmt struct {
		Strict, KeepEmpty bool
		Fields            []Extraction
	}
	// Regexp extracts the named groups of an expression.
	Regexp struct{ Text string }
	// Pattern extracts the named captures of a pattern.
	Pattern struct{ Text string }
	// Unpack takes the fields of a JSON object as labels, and its _entry as the line.
	Unpack struct{}
	// Decolorize removes sequences that colour terminals.
	Decolorize struct{}
	// LineFormat makes the line what a template gives.
	LineFormat struct {
		Text string
		Pos  Position
	}
	// LabelFormat sets labels, in this order.
	LabelFormat struct{ Assignments []Assignment }
	// Drop removes labels.
	Drop struct{ Labels []NameOrMatch }
	// Keep removes all labels but these.
	Keep struct{ Labels []NameOrMatch }
	// LabelFilter keeps rows by their labels.
	LabelFilter struct{ Test Test }
)

// Extraction is a label and where its value comes from.
type Extraction struct{ Label, Path string }

// Assignment sets a label to another one, which then goes, or to what a template gives.
type Assignment struct {
	Label  string
	Rename string // the other label, "" for a template
	Text   string
	Pos    Position
}

// NameOrMatch names a label, and with Match demands a value of it.
type NameOrMatch struct {
	Name  string
	Match *labels.Matcher // nil for any value
}

func (*LineFilter) stage()  {}
func (*JSON) stage()        {}
func (*Logfmt) stage()      {}
func (*Regexp) stage()      {}
func (*Pattern) stage()     {}
func (*Unpack) stage()      {}
func (*Decolorize) stage()  {}
func (*LineFormat) stage()  {}
func (*LabelFormat) stage() {}
func (*Drop) stage()        {}
func (*Keep) stage()        {}
func (*LabelFilter) stage() {}

// Test is a condition on labels: a closed set.
type Test interface{ test() }

// ValueType is what the value of a label is read as before it is compared.
type ValueType uint8

// The types of values.
const (
	NumberValue   ValueType = iota
	DurationValue           // in seconds
	BytesValue
)

type (
	// And holds when both hold.
	And struct{ L, R Test }
	// Or holds when one holds.
	Or struct{ L, R Test }
	// Match compares the text of a label.
	Match struct{ M *labels.Matcher }
	// Compare compares the value of a label. Value is in nanoseconds for durations.
	Compare struct {
		Name  string
		Op    string // == != > >= < <=
		Type  ValueType
		Value float64
		Text  string // as written
	}
	// IP tests whether a label is one of some addresses.
	IP struct {
		Name string
		Not  bool
		Text string
	}
)

func (*And) test()     {}
func (*Or) test()      {}
func (*Match) test()   {}
func (*Compare) test() {}
func (*IP) test()      {}
