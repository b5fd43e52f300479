//go:build long

package traceql_test

import "testing"

// TestMoreColumnsAgreeWithSpans is TestColumnsAgreeWithSpans with more queries.
func TestMoreColumnsAgreeWithSpans(t *testing.T) { compareRandom(t, 150, 1000) }

// TestMoreMetricsAgreeWithSpans is TestMetricsAgreeWithSpans with more queries.
func TestMoreMetricsAgreeWithSpans(t *testing.T) { compareRandomMetrics(t, 150, 400) }
