//go:build long

package db_test

const (
	// crashPoints is how many random crashes TestCrash makes.
	crashPoints = 10_000
	// metamorphicSeeds is how many random lives TestMetamorphic compares.
	metamorphicSeeds = 3_000
)
