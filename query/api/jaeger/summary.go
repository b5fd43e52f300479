package jaeger

import (
	"cmp"
	"context"
	"math"
	"slices"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

// summary is what a list of traces shows of one.
type summary struct {
	id                     telemetry.TraceID
	rootService, rootName  string
	start, end             int64
	spans, errors, orphans int
	services               []serviceSummary // sorted by name
}

// serviceSummary counts the spans of a service in a trace.
type serviceSummary struct {
	name          string
	spans, errors int
}

// summaries returns those of the traces, in the order of ids.
func summaries(ctx context.Context, v storage.View, tenant telemetry.Tenant, traces []found) ([]summary, error) {
	if len(traces) == 0 {
		return nil, nil
	}
	name, status, owner := storage.Field(storage.SpanName), storage.Field(storage.SpanStatus), serviceKey()
	lo, hi := int64(math.MaxInt64), int64(math.MinInt64)
	order := make(map[telemetry.TraceID]int, len(traces))
	ids := make(storage.TraceIn, 0, len(traces))
	for i, t := range traces {
		order[t.id] = i
		ids = append(ids, t.id)
		lo, hi = min(lo, t.at), max(hi, t.at)
	}
	q := storage.TraceQuery{
		Tenant: tenant, Start: lo, End: hi, Need: []storage.Predicate{ids}, Keys: []storage.SpanKey{owner, name, status},
	}
	var out []summary
	for b, err := range v.Traces(ctx, q) {
		if err != nil {
			return nil, err
		}
		if err := summarize(b, order, &out); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(out, func(a, b summary) int { return cmp.Compare(order[a.id], order[b.id]) })
	return out, nil
}

// summarize appends those traces of the block that are wanted.
func summarize(b storage.TraceBlock, wanted map[telemetry.TraceID]int, out *[]summary) error {
	ids, err := b.Traces()
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(ids, func(id telemetry.TraceID) bool { _, ok := wanted[id]; return ok }) {
		return nil
	}
	first, err := b.First()
	if err != nil {
		return err
	}
	starts, err := b.Starts()
	if err != nil {
		return err
	}
	durations, err := b.Durations()
	if err != nil {
		return err
	}
	parents, err := b.Parents()
	if err != nil {
		return err
	}
	var cols [3]storage.ColumnReader
	for i, k := range []storage.SpanKey{serviceKey(), storage.Field(storage.SpanName), storage.Field(storage.SpanStatus)} {
		c, err := b.Column(k)
		if err != nil {
			return err
		}
		cols[i] = c.Reader()
	}
	for t, id := range ids {
		if _, ok := wanted[id]; !ok {
			continue
		}
		s := summary{id: id, start: math.MaxInt64, end: math.MinInt64}
		byName := make(map[string]*serviceSummary)
		root := false
		for row := first[t]; row < first[t+1]; row++ {
			service, failed := cols[0].At(row).Text(), cols[2].At(row).Int() == int64(telemetry.StatusError)
			c := byName[service]
			if c == nil {
				c = &serviceSummary{name: service}
				byName[service] = c
			}
			s.spans++
			c.spans++
			if failed {
				s.errors++
				c.errors++
			}
			s.start, s.end = min(s.start, starts[row]), max(s.end, starts[row]+max(durations[row], 0))
			operation := cols[1].At(row).Str()
			switch {
			case parents[row] == storage.LostParent:
				s.orphans++
			case parents[row] == storage.NoParent && !root: // the first by start
				root = true
				s.rootService, s.rootName = service, operation
			}
		}
		for _, c := range byName {
			s.services = append(s.services, *c)
		}
		slices.SortFunc(s.services, func(a, b serviceSummary) int { return cmp.Compare(a.name, b.name) })
		*out = append(*out, s)
	}
	return nil
}

// dependency is how often spans of one service are right below spans of another.
type dependency struct {
	parent, child string
	calls         uint64
}

// dependencies counts over all traces in the time range, sorted by names.
func dependencies(ctx context.Context, v storage.View, tenant telemetry.Tenant, start, end int64) ([]dependency, error) {
	owner := serviceKey()
	names := []string{""}
	numbers := map[string]uint32{"": 0}
	counts := make(map[[2]uint32]uint64)
	var dict []telemetry.Value // the one that numbered was made for
	var numbered, rows []uint32
	for b, err := range v.Traces(ctx, storage.TraceQuery{Tenant: tenant, Start: start, End: end, Keys: []storage.SpanKey{owner}}) {
		if err != nil {
			return nil, err
		}
		parents, err := b.Parents()
		if err != nil {
			return nil, err
		}
		c, err := b.Column(owner)
		if err != nil {
			return nil, err
		}
		if c.Ints != nil {
			continue // names that are numbers are none
		}
		if len(c.Dict) > 0 && (len(dict) != len(c.Dict) || &dict[0] != &c.Dict[0]) {
			dict, numbered = c.Dict, numbered[:0]
			for _, x := range dict {
				name := x.Text()
				n, ok := numbers[name]
				if !ok {
					n = uint32(len(names))
					numbers[name] = n
					names = append(names, name)
				}
				numbered = append(numbered, n)
			}
		}
		rows = append(rows[:0], make([]uint32, b.Len())...)
		for i, code := range c.Code {
			row := i
			if c.Rows != nil {
				row = int(c.Rows[i])
			}
			rows[row] = numbered[code]
		}
		for row, p := range parents {
			if p >= 0 && rows[p] != rows[row] && rows[p] != 0 && rows[row] != 0 {
				counts[[2]uint32{rows[p], rows[row]}]++
			}
		}
	}
	out := make([]dependency, 0, len(counts))
	for k, n := range counts {
		out = append(out, dependency{names[k[0]], names[k[1]], n})
	}
	slices.SortFunc(out, func(a, b dependency) int {
		return cmp.Or(cmp.Compare(a.parent, b.parent), cmp.Compare(a.child, b.child))
	})
	return out, nil
}
