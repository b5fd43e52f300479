package storage

// DurationsOf returns the durations of the rows of a set, a bit each; what it returns for others is not defined. Blocks that can read
// some quicker than all have it as a method.
func DurationsOf(b TraceBlock, set []uint64) ([]int64, error) {
	if b, ok := b.(interface {
		DurationsOf(set []uint64) ([]int64, error)
	}); ok {
		return b.DurationsOf(set)
	}
	return b.Durations()
}
