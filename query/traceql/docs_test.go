package traceql_test

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/internal/testkit"
	"github.com/braidobs/braid/query/traceql"
)

// The examples of the documentation are queries that are answered.
func TestDocumentation(t *testing.T) {
	page, err := os.ReadFile("../../docs/api/traceql.md")
	require.NoError(t, err)
	v, err := testkit.NewStore("").View(t.Context(), 0)
	require.NoError(t, err)
	defer func() { require.NoError(t, v.Close()) }()
	eng := traceql.Engine{Limits: traceql.DefaultLimits()}
	n := 0
	for i, part := range strings.Split(string(page), "```") {
		text, ok := strings.CutPrefix(part, "traceql\n")
		if i%2 == 0 || !ok {
			continue
		}
		for line := range strings.Lines(text) {
			n++
			q, err := traceql.Parse(line)
			require.NoError(t, err, line)
			if q.Metric() {
				_, err = eng.Metrics(t.Context(), v, traceql.MetricsQuery{Tenant: telemetry.DefaultTenant, Query: q, Start: 1, End: 2})
			} else {
				_, err = eng.Search(t.Context(), v, traceql.SearchQuery{Tenant: telemetry.DefaultTenant, Query: q, Start: 1, End: 2, Limit: 1})
			}
			require.NoError(t, err, line)
		}
	}
	require.Greater(t, n, 20)
}
