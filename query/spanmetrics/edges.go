package spanmetrics

import (
	"slices"

	"github.com/braidobs/braid/storage"
)

// edge is a call between services: the rows of its two spans, -1 for one that is not there.
type edge struct {
	client, server int
	kind           uint32 // the connection type
	from, to       uint32 // the names
}

// edges counts the calls in a block.
func (c *collector) edges(b storage.TraceBlock) error {
	parents, err := b.Parents()
	if err != nil {
		return err
	}
	load := append([]*dim{c.service, c.kind, c.peer, c.database}, c.dims[3:]...)
	if c.metric.measure == failures {
		load = append(load, c.status)
	}
	for _, d := range load {
		if err := c.load(d, b); err != nil {
			return err
		}
	}
	kinds, services, ids := c.kind.rows, c.service.rows, c.ids
	c.paired = slices.Grow(c.paired[:0], len(kinds))[:len(kinds)]
	clear(c.paired)
	for row, k := range kinds {
		if p := parents[row]; k == ids.server && p >= 0 {
			c.paired[p] = true
		}
	}
	for row, k := range kinds {
		p := int(parents[row])
		e := edge{client: -1, server: -1}
		switch {
		case k == ids.server && p >= 0 && kinds[p] == ids.client:
			e = edge{client: p, server: row, from: services[p], to: services[row]}
		case k == ids.consumer && p >= 0 && kinds[p] == ids.producer:
			e = edge{client: p, server: row, kind: ids.messaging, from: services[p], to: services[row]}
		case k == ids.server && p == storage.NoParent:
			e = edge{client: -1, server: row, kind: ids.virtual, from: ids.user, to: services[row]}
		case k == ids.client && !c.paired[row]:
			e = edge{client: row, server: -1, kind: ids.virtual, from: services[row], to: c.peer.rows[row]}
			if name := c.database.rows[row]; name != 0 {
				e.kind = ids.database
				if e.to == 0 {
					e.to = name
				}
			}
		default:
			continue
		}
		if e.from == 0 || e.to == 0 {
			continue // a service without a name is no node
		}
		if err := c.edge(e); err != nil {
			return err
		}
	}
	return nil
}

// edge counts one call, at the time when the last of its spans ended.
func (c *collector) edge(e edge) error {
	// What is known of some calls is one span.
	client, server := e.client, e.server
	if client < 0 {
		client = server
	}
	if server < 0 {
		server = client
	}
	step := c.step(client)
	if server != client && !c.inside {
		step = c.grid.bucket(max(c.end(client), c.end(server)))
	}
	if step < 0 {
		return nil
	}
	n := int64(1)
	switch c.metric.measure {
	case failures:
		if c.status.rows[client] != c.ids.failed && c.status.rows[server] != c.ids.failed {
			return nil
		}
	case clientLatency:
		n = max(c.durations[client], 0)
	case latency:
		n = max(c.durations[server], 0)
	case queueLatency:
		if e.kind != c.ids.messaging {
			return nil
		}
		n = max(c.starts[server]-c.end(client), 0)
	case calls, sizes:
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
	g, err := c.group(&k)
	if err != nil || !g.keep {
		return err
	}
	c.count(g, step, server, n)
	return nil
}
