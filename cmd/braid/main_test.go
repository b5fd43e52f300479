package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// call is run with captured outputs.
func call(t *testing.T, args ...string) (out, errOut string, err error) {
	t.Helper()
	var o, e bytes.Buffer
	err = run(t.Context(), args, &o, &e)
	return o.String(), e.String(), err
}

func write(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "braid.yaml")
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	return file
}

func TestVersion(t *testing.T) {
	for _, args := range [][]string{{"version"}, {"-version"}, {"serve", "-version"}, {"--version"}} {
		out, errOut, err := call(t, args...)
		require.NoError(t, err)
		require.Regexp(t, `^braid dev \S+/\S+ go\S+\n$`, out)
		require.Empty(t, errOut)
	}
}

func TestHelp(t *testing.T) {
	for _, args := range [][]string{{"-help"}, {"-h"}, {"check", "--help"}} {
		_, errOut, err := call(t, args...)
		require.ErrorIs(t, err, flag.ErrHelp)
		for _, want := range []string{"braid check", "braid version", "-config", "-data", "-log.level"} {
			require.Contains(t, errOut, want)
		}
	}
}

func TestMistakes(t *testing.T) {
	for _, tt := range []struct {
		name string
		args []string
		want string
	}{
		{"command", []string{"nonsense"}, `unknown command "nonsense"; see braid -help`},
		{"flag", []string{"-nonsense"}, "flag provided but not defined: -nonsense"},
		{"argument", []string{"check", "nonsense"}, `unexpected argument "nonsense"; see braid -help`},
		{"argument after flags", []string{"-log.level", "info", "nonsense"}, `unexpected argument "nonsense"; see braid -help`},
		{"level", []string{"check", "-log.level", "loud"}, "flag -log.level: "},
		{"no file", []string{"check", "-config", filepath.Join(t.TempDir(), "none.yaml")}, "none.yaml: no such file or directory"},
		{"value of a flag", []string{"check", "-config"}, "flag needs an argument: -config"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out, _, err := call(t, tt.args...)
			require.ErrorContains(t, err, tt.want)
			require.Empty(t, out)
		})
	}
}

// TestCheckMistakes requires that all mistakes of a file are told at once, each with its line.
func TestCheckMistakes(t *testing.T) {
	file := write(t, `data: ""
server:
  http: nowhere
  writes: 0
  colour: blue
storage:
  retention: 1s
  head_bytes: much
otlp:
  metric_names: Fancy
self:
  traces: 2
  level: loud
`)
	for _, command := range []string{"check", "serve"} {
		out, _, err := call(t, command, "-config", file)
		require.Empty(t, out)
		require.Error(t, err)
		got := strings.Split(err.Error(), "\n")
		for line, want := range map[string]string{
			"1: data: ": "must name a folder", "3: server.http: ": "not an address", "4: server.writes: ": "must be positive",
			"5: server.colour: ": "", "7: storage.retention: ": "must be at least 1h", "8: storage.head_bytes: ": "not a size",
			"10: otlp.metric_names: ": "Fancy", "12: self.traces: ": "between 0 and 1", "13: self.level: ": "loud",
		} {
			found := false
			for _, g := range got {
				found = found || strings.HasPrefix(g, file+":"+line) && strings.Contains(g, want)
			}
			require.True(t, found, "%s...%s is not in\n%s", line, want, err)
		}
		require.Len(t, got, 9, "%s", err)
	}
}

func TestCheckFlagMistake(t *testing.T) {
	_, _, err := call(t, "check", "-config", write(t, "server:\n  queries: -1\n"), "-data", "/x")
	require.ErrorContains(t, err, ":2: server.queries: must be positive")
}

// TestCheckLoads requires that what check prints is a file with the same meaning.
func TestCheckLoads(t *testing.T) {
	for _, text := range []string{"", "data: /there\nmemory: 1GiB\nself: {level: debug, traces: 0.5}\notlp: {stream_labels: [a.b]}\n"} {
		first, _, err := call(t, "check", "-config", write(t, text))
		require.NoError(t, err)
		second, _, err := call(t, "check", "-config", write(t, first))
		require.NoError(t, err)
		require.Equal(t, first, second)
		if text != "" {
			require.Contains(t, first, "data: /there")
			require.Contains(t, first, "memory: 1GiB")
		}
	}
	out, _, err := call(t, "check", "-data", "/elsewhere", "-log.level", "warn")
	require.NoError(t, err)
	require.Contains(t, out, "data: /elsewhere")
	require.Contains(t, out, "level: WARN")
}
