package spanmetrics

import (
	"slices"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

// edge is a call between services: the rows of its two spans, -1 for one that is not there.
type edge struct {
	client, server int
	kind           uint32 // the connection type
	from, to       uint32 // the names
}

// edges counts the calls in a block.
func (c *collector) edges(b storage.TraceBlock, starts, durations []int64) error {
	parents, err := b.Parents()
	if err != nil {
		return err
	}
	load := []*dim{c.service, c.kind, c.peer, c.database}
	if c.metric.measure == failures {
		load = append(load, c.status)
	}
	for _, d := range append(load, c.dims[3:]...) {
		if err := c.load(d, b); err != nil {
			return err
		}
	}
	id := func(k telemetry.SpanKind) uint32 { return c.names.id(c.kind.text(telemetry.Int(int64(k)))) }
	client, server, producer, consumer := id(telemetry.SpanKindClient), id(telemetry.SpanKindServer), id(telemetry.SpanKindProducer), id(telemetry.SpanKindConsumer)
	messaging, database, virtual, user := c.names.id(connectionMessaging), c.names.id(connectionDatabase), c.names.id(connectionVirtual), c.names.id(userNode)
	kinds, services := c.kind.rows, c.service.rows
	c.paired = slices.Grow(c.paired[:0], len(kinds))[:len(kinds)]
	clear(c.paired)
	for row, k := range kinds {
		p := parents[row]
		if k == server && p >= 0 && kinds[p] == client {
			c.paired[p] = true
		}
	}
	for row, k := range kinds {
		p := int(parents[row])
		e := edge{client: -1, server: -1}
		switch {
		case k == server && p >= 0 && kinds[p] == client:
			e = edge{client: p, server: row, from: services[p], to: services[row]}
		case k == consumer && p >= 0 && kinds[p] == producer:
			e = edge{client: p, server: row, kind: messaging, from: services[p], to: services[row]}
		case k == server && p == storage.NoParent:
			e = edge{client: -1, server: row, kind: virtual, from: user, to: services[row]}
		case k == client && !c.paired[row] && c.peer.rows[row] != 0:
			e = edge{client: row, server: -1, kind: virtual, from: services[row], to: c.peer.rows[row]}
			if c.database.rows[row] != 0 {
				e.kind = database
			}
		default:
			continue
		}
		if e.from == 0 || e.to == 0 {
			continue // a service without a name is no node
		}
		if err := c.edge(e, starts, durations); err != nil {
			return err
		}
	}
	return nil
}

// edge counts one call, at the time when the last of its spans ended.
func (c *collector) edge(e edge, starts, durations []int64) error {
	ends, lengths := [2]int64{}, [2]int64{}
	rows := [2]int{e.client, e.server}
	for i, row := range rows {
		if row < 0 { // what is known of the call is one span
			row = rows[1-i]
		}
		lengths[i] = max(durations[row], 0)
		ends[i] = starts[row] + lengths[i]
	}
	step := c.grid.bucket(max(ends[0], ends[1]))
	if step < 0 {
		return nil
	}
	n := int64(1)
	switch c.metric.measure {
	case failures:
		bad := c.names.id(c.status.text(telemetry.Int(int64(telemetry.StatusError))))
		if !slices.ContainsFunc(rows[:], func(row int) bool { return row >= 0 && c.status.rows[row] == bad }) {
			return nil
		}
	case clientLatency:
		n = lengths[0]
	case latency:
		n = lengths[1]
	case queueLatency:
		if e.client < 0 || e.server < 0 || c.names.list[e.kind] != connectionMessaging {
			return nil
		}
		n = max(starts[e.server]-ends[0], 0)
	default:
	}
	k := key{e.from, e.to, e.kind}
	for i, d := range c.dims[3:] {
		row := e.client
		if d.side == onServer {
			row = e.server
		}
		if row >= 0 {
			k[3+i] = d.rows[row]
		}
	}
	g, err := c.group(k)
	if err != nil || !g.keep {
		return err
	}
	c.count(g, step, n)
	return nil
}
