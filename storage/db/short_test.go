//go:build !long

package db_test

const (
	// crashPoints is how many random crashes TestCrash makes; the long suite makes 10,000.
	crashPoints = 200
	// metamorphicSeeds is how many random lives TestMetamorphic compares; the long suite compares 3,000.
	metamorphicSeeds = 40
)
