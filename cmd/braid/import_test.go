package main

import (
	"flag"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestImportMistakes(t *testing.T) {
	for _, tt := range []struct {
		name string
		args []string
		want string
	}{
		{"nothing", []string{"import"}, "prometheus is known"},
		{"unknown", []string{"import", "graphite", "dir"}, `importing from "graphite" is not known`},
		{"no folder", []string{"import", "prometheus"}, "name one folder"},
		{"two folders", []string{"import", "prometheus", "a", "b"}, "name one folder"},
		{"not there", []string{"import", "prometheus", "-state", "", filepath.Join(t.TempDir(), "none")}, "look for blocks"},
		{"empty", []string{"import", "prometheus", "-state", "", t.TempDir()}, "there are no blocks"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := call(t, tt.args...)
			require.ErrorContains(t, err, tt.want)
		})
	}
}

func TestImportHelp(t *testing.T) {
	out, _, err := call(t, "import", "-help")
	require.ErrorIs(t, err, flag.ErrHelp)
	for _, want := range []string{"braid import prometheus", "-url", "-tenant", "-state", "snapshot"} {
		require.Contains(t, out, want)
	}
}
