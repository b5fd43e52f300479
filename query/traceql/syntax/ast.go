package syntax

// Query is a parsed query: for spans, or for numbers computed from them.
type Query struct {
	// Node is a Filter, Combine, Pipeline, ScalarFilter, Group, Coalesce or Select, or what Metric says.
	Node  Node
	Hints []Hint

	src string
}

// Metric says whether the query is for numbers: Node is a MetricPipe, MetricBinary, MetricFilter or TopK.
func (q *Query) Metric() bool { return sortOf(q.Node) == metrics }

// Hint is what stands in with(...).
type Hint struct {
	Name  string
	Value *Static
}

// Hint returns the value of a hint, nil when there is none.
func (q *Query) Hint(name string) *Static {
	for _, h := range q.Hints {
		if h.Name == name {
			return h.Value
		}
	}
	return nil
}

// Node is a part of a query above the fields of spans: a closed set.
type Node interface {
	// String returns the node as it is written.
	String() string
	// Offset is where it stands in the query.
	Offset() int
}

// at is where something stands in the query.
type at int

// Offset returns it.
func (a at) Offset() int { return int(a) }

type (
	// Filter keeps the spans for which Cond holds; nil holds for all.
	Filter struct {
		at
		Cond Field
	}
	// Combine makes a set of spans from two.
	Combine struct {
		at
		Op   Op
		L, R Node
	}
	// Pipeline runs stages one after the other.
	Pipeline struct {
		at
		Stages []Node
	}
	// ScalarFilter keeps the sets of spans for which a comparison of numbers holds.
	ScalarFilter struct {
		at
		Op   Op
		L, R Node // Aggregate, ScalarOp, ScalarPipe or Number
	}
	// Group splits sets of spans by the value of By.
	Group struct {
		at
		By Field
	}
	// Coalesce makes one set of all sets of a trace.
	Coalesce struct{ at }
	// Select adds fields to what is shown of spans.
	Select struct {
		at
		Fields []Field
	}

	// Aggregate is a number computed from a set of spans.
	Aggregate struct {
		at
		Op AggregateOp
		Of Field // nil for Count
	}
	// ScalarOp is arithmetic of numbers.
	ScalarOp struct {
		at
		Op   Op
		L, R Node
	}
	// ScalarPipe is the number that a pipeline of its own comes to.
	ScalarPipe struct {
		at
		Stages []Node
		Of     Node
	}
	// Number is a constant.
	Number struct {
		at
		*Static
		computed bool
	}

	// MetricPipe counts or measures the spans that stages leave.
	MetricPipe struct {
		at
		Stages []Node
		Func   *MetricFunc
	}
	// MetricBinary is arithmetic of series; one side may be a Number.
	MetricBinary struct {
		at
		Op   Op
		L, R Node
	}
	// MetricFilter keeps the points that compare with Value.
	MetricFilter struct {
		at
		Op    Op
		Of    Node
		Value *Static
	}
	// TopK keeps the K largest points of each time, or the smallest ones.
	TopK struct {
		at
		Of     Node
		K      int
		Bottom bool
	}
)

// MetricOp is a function that makes series of spans.
type MetricOp string

// The functions.
const (
	Rate              MetricOp = "rate"
	CountOverTime     MetricOp = "count_over_time"
	MinOverTime       MetricOp = "min_over_time"
	MaxOverTime       MetricOp = "max_over_time"
	AvgOverTime       MetricOp = "avg_over_time"
	SumOverTime       MetricOp = "sum_over_time"
	QuantileOverTime  MetricOp = "quantile_over_time"
	HistogramOverTime MetricOp = "histogram_over_time"
	Compare           MetricOp = "compare"
)

// MetricFunc is a call of such a function.
type MetricFunc struct {
	at
	Op        MetricOp
	Of        Field     // what is measured, nil for Rate, CountOverTime and Compare
	Quantiles []float64 // of QuantileOverTime
	By        []Field

	// Of Compare: what is selected, how many values of an attribute are told, and the time of the selection in
	// nanoseconds, both 0 for any.
	Selection  *Filter
	Top        int
	Start, End int64
}

// AggregateOp is a way to compute one number from spans.
type AggregateOp string

// The aggregates.
const (
	Count AggregateOp = "count"
	Avg   AggregateOp = "avg"
	Min   AggregateOp = "min"
	Max   AggregateOp = "max"
	Sum   AggregateOp = "sum"
)

// Op is an operator.
type Op string

// The operators.
const (
	And          Op = "&&"
	Or           Op = "||"
	Not          Op = "!"
	Equal        Op = "="
	NotEqual     Op = "!="
	Matches      Op = "=~"
	NotMatches   Op = "!~" // of spansets: not a sibling
	Greater      Op = ">"  // of spansets: child
	GreaterEqual Op = ">="
	Less         Op = "<" // of spansets: parent
	LessEqual    Op = "<="
	Add          Op = "+"
	Subtract     Op = "-"
	Multiply     Op = "*"
	Divide       Op = "/"
	Modulo       Op = "%"
	Power        Op = "^"

	Child           Op = ">"
	ChildUnion      Op = "&>"
	ChildNot        Op = "!>"
	Descendant      Op = ">>"
	DescendantUnion Op = "&>>"
	DescendantNot   Op = "!>>"
	Parent          Op = "<"
	ParentUnion     Op = "&<"
	ParentNot       Op = "!<"
	Ancestor        Op = "<<"
	AncestorUnion   Op = "&<<"
	AncestorNot     Op = "!<<"
	Sibling         Op = "~"
	SiblingUnion    Op = "&~"
	SiblingNot      Op = "!~"
)

// Comparison says whether the operator compares two values.
func (o Op) Comparison() bool {
	switch o {
	case Equal, NotEqual, Matches, NotMatches, Greater, GreaterEqual, Less, LessEqual:
		return true
	default:
		return false
	}
}

// Arithmetic says whether the operator computes a number from two.
func (o Op) Arithmetic() bool {
	switch o {
	case Add, Subtract, Multiply, Divide, Modulo, Power:
		return true
	default:
		return false
	}
}

// spanset says whether the operator makes a set of spans from two.
func (o Op) spanset() bool {
	switch o {
	case And, Or, Child, ChildUnion, ChildNot, Descendant, DescendantUnion, DescendantNot, Parent, ParentUnion, ParentNot,
		Ancestor, AncestorUnion, AncestorNot, Sibling, SiblingUnion, SiblingNot:
		return true
	default:
		return false
	}
}

// Field is an expression about one span: a closed set.
type Field interface {
	Node
	field()
}

type (
	// Attribute is what a sender gave a name.
	Attribute struct {
		at
		Scope  Scope
		Parent bool // of the parent of the span
		Name   string
	}
	// Intrinsic is what each span has.
	Intrinsic struct {
		at
		ID     ID
		Parent bool   // of the parent of the span
		Name   string // as it is written
	}
	// Unary is - or ! of X.
	Unary struct {
		at
		Op Op
		X  Field
	}
	// Binary is an operation with two operands.
	Binary struct {
		at
		Op   Op
		L, R Field
	}
	// Static is a constant.
	Static struct {
		at
		Type  Type
		Int   int64   // of TypeInt, TypeDuration (nanoseconds), TypeStatus and TypeKind (as in OTLP); 1 for true
		Float float64 // of TypeFloat
		Text  string  // of TypeString
	}
)

func (*Attribute) field() {}
func (*Intrinsic) field() {}
func (*Unary) field()     {}
func (*Binary) field()    {}
func (*Static) field()    {}

// Scope says whose attribute it is.
type Scope uint8

// The scopes. Unscoped is the span if it has the attribute, else its resource.
const (
	Unscoped Scope = iota
	SpanScope
	ResourceScope
	EventScope
	LinkScope
	InstrumentationScope
)

// String returns the scope as it is written.
func (s Scope) String() string {
	return [...]string{"", "span", "resource", "event", "link", "instrumentation"}[s]
}

// Type is the type of a field or constant.
type Type uint8

// The types. The type of an attribute is TypeAny: it is known when the value is.
const (
	TypeAny Type = iota
	TypeNil
	TypeBool
	TypeInt
	TypeFloat
	TypeString
	TypeDuration
	TypeStatus
	TypeKind
)

// String returns the name of the type, for messages.
func (t Type) String() string {
	return [...]string{"attribute", "nil", "boolean", "integer", "float", "string", "duration", "status", "kind"}[t]
}

// Numeric says whether values of the type can be computed with.
func (t Type) Numeric() bool { return t == TypeInt || t == TypeFloat || t == TypeDuration }

// ID is an intrinsic.
type ID uint8

// The intrinsics.
const (
	Duration ID = iota
	Name
	Status
	StatusMessage
	Kind
	SpanID
	ParentID
	ChildCount
	ParentSpan // parent, which is nil or not
	NestedSetLeft
	NestedSetRight
	NestedSetParent
	TraceDuration
	RootName
	RootService
	TraceID
	EventName
	EventTime
	LinkTraceID
	LinkSpanID
	InstrumentationName
	InstrumentationVersion
)

// intrinsic is how an intrinsic is written, and what it is.
type intrinsic struct {
	name   string
	id     ID
	typ    Type
	absent bool // a span may be without it
}

// intrinsics returns all ways to write intrinsics.
func intrinsics() [37]intrinsic {
	return [...]intrinsic{
		{"duration", Duration, TypeDuration, false},
		{"name", Name, TypeString, false},
		{"status", Status, TypeStatus, false},
		{"statusMessage", StatusMessage, TypeString, false},
		{"kind", Kind, TypeKind, false},
		{"childCount", ChildCount, TypeInt, false},
		{"traceDuration", TraceDuration, TypeDuration, false},
		{"rootName", RootName, TypeString, false},
		{"rootServiceName", RootService, TypeString, false},
		{"parent", ParentSpan, TypeNil, true},
		{"nestedSetLeft", NestedSetLeft, TypeInt, false},
		{"nestedSetRight", NestedSetRight, TypeInt, false},
		{"nestedSetParent", NestedSetParent, TypeInt, false},
		{"span:duration", Duration, TypeDuration, false},
		{"span:name", Name, TypeString, false},
		{"span:status", Status, TypeStatus, false},
		{"span:statusMessage", StatusMessage, TypeString, false},
		{"span:kind", Kind, TypeKind, false},
		{"span:id", SpanID, TypeString, false},
		{"span:parentID", ParentID, TypeString, true},
		{"parent:id", ParentID, TypeString, true},
		{"span:childCount", ChildCount, TypeInt, false},
		{"trace:duration", TraceDuration, TypeDuration, false},
		{"trace:rootName", RootName, TypeString, false},
		{"trace:rootService", RootService, TypeString, false},
		{"trace:id", TraceID, TypeString, false},
		{"event:name", EventName, TypeString, true},
		{"event:timeSinceStart", EventTime, TypeDuration, true},
		{"link:traceID", LinkTraceID, TypeString, true},
		{"link:spanID", LinkSpanID, TypeString, true},
		{"instrumentation:name", InstrumentationName, TypeString, true},
		{"instrumentation:version", InstrumentationVersion, TypeString, true},
		// What parent. may stand before.
		{"parent.duration", Duration, TypeDuration, true},
		{"parent.name", Name, TypeString, true},
		{"parent.status", Status, TypeStatus, true},
		{"parent.statusMessage", StatusMessage, TypeString, true},
		{"parent.kind", Kind, TypeKind, true},
	}
}

func lookup(name string) (intrinsic, bool) {
	for _, i := range intrinsics() {
		if i.name == name {
			return i, true
		}
	}
	return intrinsic{}, false
}

// Label returns the name of a field in results: attributes with their scope, intrinsics without one where they have such a name.
func Label(f Field) string {
	if i, ok := f.(*Intrinsic); ok && !i.Parent {
		if i.ID == ChildCount {
			return "span:childCount"
		}
		for _, other := range intrinsics() {
			if other.id == i.ID {
				return other.name
			}
		}
	}
	return f.String()
}

// TypeOf returns the type of the values that f has.
func TypeOf(f Field) Type {
	switch f := f.(type) {
	case *Static:
		return f.Type
	case *Intrinsic:
		i, _ := lookup(f.Name)
		return i.typ
	case *Unary:
		if f.Op == Not {
			return TypeBool
		}
		return TypeOf(f.X)
	case *Binary:
		if !f.Op.Arithmetic() {
			return TypeBool
		}
		l, r := TypeOf(f.L), TypeOf(f.R)
		switch {
		case l == TypeDuration || r == TypeDuration:
			return TypeDuration
		case l == TypeFloat || r == TypeFloat:
			return TypeFloat
		case l == TypeInt && r == TypeInt:
			return TypeInt
		default:
			return TypeAny
		}
	default:
		return TypeAny
	}
}

// sort is what a node comes to.
type sort uint8

const (
	spans sort = iota
	scalar
	constant
	metrics
)

// String returns what the node comes to, for messages.
func (s sort) String() string {
	return [...]string{"a set of spans", "a number for each set of spans", "a constant", "series"}[s]
}

func sortOf(n Node) sort {
	switch n.(type) {
	case *Aggregate, *ScalarOp, *ScalarPipe:
		return scalar
	case *Number:
		return constant
	case *MetricPipe, *MetricBinary, *MetricFilter, *TopK:
		return metrics
	default:
		return spans
	}
}
