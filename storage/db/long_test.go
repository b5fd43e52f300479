//go:build long

package db_test

// crashPoints is how many random crashes TestCrash makes.
const crashPoints = 10_000
