package db

// ActiveSeries returns how many series are known in memory.
func (d *DB) ActiveSeries() int { return d.active.Len() }
