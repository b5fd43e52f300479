//go:build long

package syntax_test

import (
	"errors"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/braidobs/braid/query/traceql/syntax"
)

// TestExamples classifies the queries of a file that Tempo's repository has as pkg/traceql/test_examples.yaml:
//
//	TRACEQL_EXAMPLES=.../test_examples.yaml go test -tags long ./query/traceql/syntax -run TestExamples -v
//
// What Tempo understands without answering may be answered here.
func TestExamples(t *testing.T) {
	path := os.Getenv("TRACEQL_EXAMPLES")
	if path == "" {
		t.Skip("TRACEQL_EXAMPLES does not name the file")
	}
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	var examples map[string][]string
	require.NoError(t, yaml.Unmarshal(b, &examples))
	require.NotEmpty(t, examples["valid"])
	classify := func(s string) (string, error) {
		q, err := syntax.Parse(s)
		if err != nil {
			return "parse_fails", err
		}
		again, err := syntax.Parse(q.String())
		require.NoError(t, err, "%s printed as %s", s, q)
		require.Equal(t, q.String(), again.String(), s)
		if err := syntax.Check(q); err != nil {
			if e, ok := errors.AsType[*syntax.Error](err); ok && e.Fault == syntax.Unsupported {
				return "unsupported", err
			}
			return "validate_fails", err
		}
		return "valid", nil
	}
	agree, total := 0, 0
	for want, queries := range examples {
		if want == "dump" {
			continue
		}
		for _, s := range queries {
			total++
			got, err := classify(s)
			switch {
			case got == want:
				agree++
			case want == "unsupported" && got != "parse_fails":
				t.Logf("answered or refused otherwise: %s: %s (%v)", s, got, err)
				agree++
			default:
				t.Errorf("%s: want %s, got %s (%v)", s, want, got, err)
			}
		}
	}
	t.Logf("%d of %d agree", agree, total)
}
