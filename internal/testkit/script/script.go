// Package script runs files of commands with their expected output, as golden tests of query languages have them.
//
// A script is commands, each a line of its own, followed by lines of input, a line ---- and the output up to an empty line:
//
//	# a comment
//	query limit=10
//	{app="a"}
//	----
//	what the query gives
package script

import (
	"bufio"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Command returns the output of a command: its name, the rest of its line, and the lines of input.
type Command func(name, args string, body []string) string

// Run runs the scripts that match a pattern of files, each as a test of its own. Start is called for every run of a script, and
// has to return a Command with nothing left over from others; all that it returns are run, and must give the same. With rewrite
// the files get the output.
func Run(t *testing.T, pattern string, rewrite bool, start func(t *testing.T) []Command) {
	t.Helper()
	files, err := filepath.Glob(pattern)
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			in, err := os.ReadFile(file)
			require.NoError(t, err)
			want := string(in)
			for i, run := range start(t) {
				out := play(want, run)
				if i == 0 && rewrite {
					require.NoError(t, os.WriteFile(file, []byte(out), 0o600))
					want = out
				}
				require.Equal(t, want, out, "command %d of start", i)
			}
		})
	}
}

// play returns a script with the output that run gives.
func play(in string, run Command) string {
	var out strings.Builder
	sc := bufio.NewScanner(strings.NewReader(in))
	for sc.Scan() {
		head := sc.Text()
		out.WriteString(head + "\n")
		if head == "" || strings.HasPrefix(head, "#") {
			continue
		}
		var body []string
		for sc.Scan() && sc.Text() != "----" {
			body = append(body, sc.Text())
			out.WriteString(sc.Text() + "\n")
		}
		for sc.Scan() && sc.Text() != "" { // the output so far
		}
		name, args, _ := strings.Cut(head, " ")
		out.WriteString("----\n" + run(name, args, body) + "\n")
	}
	return strings.TrimRight(out.String(), "\n") + "\n"
}
