//go:build !long

package db_test

// crashPoints is how many random crashes TestCrash makes; the long suite makes 10,000.
const crashPoints = 300
