package tail_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/daemonset/tail"
)

// Pieces of both outputs interleave and the file is rotated in the middle of both.
func TestPiecesAcrossRotation(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	c := n.container("a")
	long := strings.Repeat("0123456789abcdef", 1024)
	write := func(pause bool) {
		c.entry("stdout", "P", long)
		c.entry("stderr", "P", long)
		c.line("between")
		c.want[len(c.want)-1] = long + "between"
		c.entry("stderr", "P:x", "second")
		c.entry("stdout", "P", long)
		if pause {
			require.True(t, waitFor(10*time.Second, func() bool { return len(n.b.all("/a/")) >= len(c.want) }))
		}
		c.rotate(true, 5)
		c.entry("stderr", "F", "end")
		c.want = append(c.want, long+"secondend")
		c.entry("stdout", "F", "")
		c.want = append(c.want, long)
	}
	write(false) // before the start
	_, stop := n.start()
	write(true)
	n.eventually("/a/", c.want)
	rs := n.b.all("/a/")
	require.True(t, rs[1].Stderr)
	require.Equal(t, len(long+"secondend"), rs[1].Size)

	// Stopped in the middle: what was acknowledged after the open pieces is not stored again.
	c.entry("stdout", "P", long)
	for range 5 {
		c.entry("stderr", "F", "while stdout is open")
		c.want = append(c.want, "while stdout is open")
	}
	n.eventually("/a/", c.want)
	stop()
	c.rotate(false, 5)
	c.line("x")
	c.want[len(c.want)-1] = long + "x"
	_, _ = n.start()
	n.eventually("/a/", c.want)
}

// A container that ends without a newline leaves a piece, and its directory goes.
func TestLastWords(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	c := n.container("a")
	_, _ = n.start()
	c.lines(3)
	c.entry("stderr", "P", "last words")
	c.entry("stdout", "P", "of both")
	require.True(t, waitFor(10*time.Second, func() bool { return len(n.b.lines("/a/")) == 3 }))
	require.NoError(t, os.RemoveAll(filepath.Dir(c.dir)))
	c.want = append(c.want, "of both", "last words")
	n.eventually("/a/", c.want)
	rs := n.b.all("/a/")
	require.True(t, rs[3].Partial)
	require.Equal(t, rs[3].End, rs[4].End)
	require.Greater(t, rs[3].End, rs[2].End)
}

// Pods that live for a moment are read, and forgotten once they are acknowledged.
func TestShortLives(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	agent, _ := n.start()
	n.b.block()
	var cs []*container
	for i := range 60 {
		c := n.container(fmt.Sprintf("short-%02d", i))
		cs = append(cs, c)
		c.lines(20)
		require.True(t, waitFor(5*time.Second, func() bool { // open: the runtime keeps it for 300 ms at least
			for _, s := range agent.Streams() {
				if s.Key.Pod == fmt.Sprintf("short-%02d", i) && len(s.Files) > 0 {
					return true
				}
			}
			return false
		}))
		require.NoError(t, os.RemoveAll(filepath.Dir(c.dir)))
	}
	n.b.unblock()
	for i, c := range cs {
		n.eventually(fmt.Sprintf("/short-%02d/", i), c.want)
	}
	require.True(t, waitFor(10*time.Second, func() bool { return len(agent.Streams()) == 0 }))
}

// While the backend is away files are rotated, compressed and deleted; all of it is there when it comes back.
func TestBackPressure(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.cfg.MaxInflight = 1 << 20
	c := n.container("a")
	agent, _ := n.start()
	c.lines(10)
	n.eventually("/a/", c.want)
	n.b.block()
	for i := range 8 {
		c.lines(3000)
		c.rotate(true, 2)
		require.True(t, waitFor(5*time.Second, func() bool { s := agent.Streams(); return len(s) == 1 && len(s[0].Files) >= i+2 }), "%v", agent.Streams())
	}
	require.Positive(t, agent.Streams()[0].Held)
	n.b.unblock()
	n.eventually("/a/", c.want)
}

// Over max_held the oldest files are given up, with a record that says so.
func TestHeldFull(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.cfg.MaxHeld = 300 << 10
	c := n.container("a")
	agent, _ := n.start()
	c.lines(10)
	n.eventually("/a/", c.want)
	n.b.block()
	for i := range 8 {
		c.lines(2000) // 140 KB
		c.rotate(false, 1)
		require.True(t, waitFor(5*time.Second, func() bool { s := agent.Streams(); return len(s) == 1 && len(s[0].Files) >= i+2 }))
	}
	require.True(t, waitFor(5*time.Second, func() bool { return agent.Streams()[0].Lost > 0 && agent.Streams()[0].Held <= 300<<10 }))
	n.b.unblock()
	last := c.want[len(c.want)-1]
	require.True(t, waitFor(10*time.Second, func() bool { l := n.b.lines("/a/"); return l[len(l)-1] == last }))
	var lost int64
	kept := map[string]bool{}
	for _, r := range n.b.all("/a/") {
		if r.Lost != nil {
			require.Equal(t, tail.HeldFull, r.Lost.Reason)
			require.Contains(t, string(r.Body), fmt.Sprintf("%d bytes were lost here (held_full)", r.Lost.Bytes))
			lost += r.Lost.Bytes
			continue
		}
		require.False(t, kept[string(r.Body)])
		kept[string(r.Body)] = true
	}
	require.Equal(t, agent.Streams()[0].Lost, lost)
	gone := 0
	for _, l := range c.want {
		if !kept[l] {
			gone++
		}
	}
	require.InDelta(t, lost, gone*72, float64(gone)*6)
	require.InDelta(t, lost, metric(t, n, "braid_tail_lost_bytes_total"), 0)
	n.b.ok(t)
}

func metric(t *testing.T, n *node, name string) (sum float64) {
	t.Helper()
	fams, err := n.reg.Gather()
	require.NoError(t, err)
	for _, f := range fams {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

// What went while the process was down is told.
func TestRotatedAway(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	c := n.container("a")
	d := n.container("whole")
	c.lines(10)
	d.lines(10)
	_, stop := n.start()
	n.eventually("/a/", c.want)
	n.eventually("/whole/", d.want)
	n.b.block()
	c.lines(100)
	d.lines(100)
	require.True(t, waitFor(5*time.Second, func() bool { return metric(t, n, "braid_tail_lag_bytes") >= 200*60 }))
	stop()
	n.b.unblock()
	c.want, d.want = c.want[:10], d.want[:10]
	c.rotate(false, 5)
	c.lines(5)
	c.rotate(false, 0)
	olds, err := filepath.Glob(c.path() + ".*")
	require.NoError(t, err)
	require.NoError(t, os.Remove(olds[0]))
	require.NoError(t, os.RemoveAll(filepath.Dir(d.dir)))
	c.lines(5)
	agent, _ := n.start()
	require.True(t, waitFor(10*time.Second, func() bool { return len(n.b.all("/a/")) >= 16 && len(n.b.all("/whole/")) == 11 }))
	var losses []tail.Loss
	for _, r := range append(n.b.all("/a/"), n.b.all("/whole/")...) {
		if r.Lost != nil {
			losses = append(losses, *r.Lost)
		}
	}
	require.Len(t, losses, 2)
	for _, l := range losses {
		require.Equal(t, tail.RotatedAway, l.Reason)
		require.InDelta(t, 100*70, l.Bytes, 1000)
	}
	require.True(t, waitFor(10*time.Second, func() bool { return len(agent.Streams()) == 1 }), "a stream without files stays")
}

func TestTruncation(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	c := n.container("a")
	_, stop := n.start()
	c.lines(100)
	n.eventually("/a/", c.want)
	require.NoError(t, os.Truncate(c.path(), 0))
	c.lines(10)
	n.eventually("/a/", c.want)
	stop()
	require.NoError(t, os.Truncate(c.path(), 0))
	c.lines(5)
	_, _ = n.start()
	n.eventually("/a/", c.want)
	require.InDelta(t, 1, metric(t, n, "braid_tail_truncations_total"), 0)
}

// A file that got the inode of an older one is read from its beginning, and nothing of the old one again.
func TestInodeReuse(t *testing.T) {
	t.Parallel()
	for _, size := range []int{5, 100, 200} {
		n := newNode(t)
		c := n.container("a")
		c.lines(100)
		_, stop := n.start()
		n.eventually("/a/", c.want)
		stop()
		// The same inode with other content is what the reuse looks like from outside.
		require.NoError(t, os.Truncate(c.path(), 0))
		c.lines(size)
		_, stop = n.start()
		n.eventually("/a/", c.want)
		stop()
	}
}

func TestRenamedBackAndGap(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	c := n.container("a")
	agent, _ := n.start()
	for range 3 {
		c.lines(50)
		c.rename(false, 9)
		c.lines(50) // the runtime still writes to the renamed file
		n.eventually("/a/", c.want)
		olds, err := filepath.Glob(c.path() + ".*")
		require.NoError(t, err)
		require.NoError(t, os.Rename(olds[len(olds)-1], c.path()))
		c.lines(50)
		n.eventually("/a/", c.want)
		c.rename(false, 9)
		c.lines(50)
		c.reopen()
		c.lines(50)
		n.eventually("/a/", c.want)
	}
	require.Len(t, agent.Streams(), 1)
}

func TestJunk(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	c := n.container("a")
	_, _ = n.start()
	c.lines(2)
	ts := "2026-01-31T14:05:05.123456789Z"
	for _, x := range []struct {
		raw, want string
		torn      bool
	}{
		{ts + " stdout " + ts + " stdout F text", "text", true},
		{"\x00\x00" + ts + " stdout F after NUL", "after NUL", true},
		{"", "", true},
		{"junk \xff\x00", "junk \xff\x00", true},
		{ts[:10], ts[:10], true},
		{"0001-01-01T00:00:00Z stdout F year one", "year one", false},
		{"9999-12-31T23:59:59.999999999+02:00 stdout F year 9999", "year 9999", false},
		{ts + " stdout F \x00\xff\r\x1b[31m", "\x00\xff\r\x1b[31m", false},
		{ts + " stdout F", "", false},
	} {
		c.raw(x.raw + "\n")
		c.want = append(c.want, x.want)
		c.line("a line after it")
		n.eventually("/a/", c.want)
		rs := n.b.all("/a/")
		require.Equal(t, x.torn, rs[len(rs)-2].Torn, "%q", x.raw)
		require.False(t, rs[len(rs)-1].Torn)
	}
}

// Records far over max_record take no memory, and the next one is whole.
func TestHugeRecords(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.cfg.MaxRecord = 64 << 10
	n.cfg.MaxInflight = 1 << 20
	c := n.container("a")
	_, _ = n.start()
	part := strings.Repeat("x", 16<<10)
	for range 640 { // 10 MiB in pieces
		c.entry("stdout", "P", part)
	}
	c.entry("stdout", "F", "end")
	c.line("next")
	c.now = c.now.Add(time.Microsecond)
	c.raw(c.now.Format(time.RFC3339Nano) + " stderr F ")
	for range 640 { // 10 MiB in one line
		c.raw(part)
	}
	c.raw("\n")
	c.line("last")
	require.True(t, waitFor(20*time.Second, func() bool { return len(n.b.all("/a/")) == 4 }))
	rs := n.b.all("/a/")
	for _, i := range []int{0, 2} {
		require.True(t, rs[i].Truncated)
		require.Len(t, rs[i].Body, 64<<10)
		require.InDelta(t, 640*16<<10, rs[i].Size, 3)
	}
	require.True(t, rs[2].Stderr)
	require.Equal(t, "next", string(rs[1].Body))
	require.Equal(t, "last", string(rs[3].Body))
	require.InDelta(t, 0, metric(t, n, "braid_tail_partial_bytes"), 0)
	require.True(t, waitFor(time.Second, func() bool { return metric(t, n, "braid_tail_inflight_bytes") == 0 }))
}

func TestSkipIsAskedAgain(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	skip := make(chan bool, 1)
	skip <- true
	n.deps.Skip = func(k tail.StreamKey) bool {
		s := <-skip
		skip <- s
		return s && k.Pod == "a"
	}
	n.cfg.RescanInterval = 1e9
	c, d := n.container("a"), n.container("b")
	c.lines(5)
	d.lines(5)
	agent, _ := n.start()
	n.eventually("/b/", d.want)
	require.Empty(t, n.b.lines("/a/"))
	<-skip
	skip <- false
	n.eventually("/a/", c.want)
	<-skip
	skip <- true
	require.True(t, waitFor(5*time.Second, func() bool { return len(agent.Streams()) == 1 }))
	c.lines(5)
	<-skip
	skip <- false
	n.eventually("/a/", c.want)
}

// docker's files lie elsewhere, behind a link, and docker rotates them.
func TestDocker(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	home := t.TempDir()
	live := filepath.Join(home, "0123-json.log")
	dir := filepath.Join(n.pods, "default_a_uid-a", "app")
	require.NoError(t, os.MkdirAll(dir, 0o750))
	require.NoError(t, os.WriteFile(live, nil, 0o600))
	require.NoError(t, os.Symlink(live, filepath.Join(dir, "0.log")))
	_, _ = n.start()
	var want []string
	write := func(k int) {
		f, err := os.OpenFile(live, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		require.NoError(t, err)
		defer f.Close()
		for range k {
			body := fmt.Sprintf("line %d \"quoted\"", len(want))
			want = append(want, body)
			_, err = fmt.Fprintf(f, `{"log":%q,"stream":"stdout","time":"2026-01-31T14:05:05.%09dZ"}`+"\n"+`{"log":%q,"stream":"stdout","time":"2026-01-31T14:05:06Z"}`+"\n",
				body[:3], len(want), body[3:]+"\n")
			require.NoError(t, err)
		}
	}
	for range 4 {
		write(50)
		n.eventually("/a/", want)
		if _, err := os.Stat(live + ".1"); err == nil {
			require.NoError(t, os.Rename(live+".1", live+".2"))
			compressFile(t, live+".2")
		}
		require.NoError(t, os.Rename(live, live+".1"))
		write(50)
	}
	n.eventually("/a/", want)
}

// Files of the host are plain text whose first lines repeat.
func TestPlainFiles(t *testing.T) {
	t.Parallel()
	for _, copytruncate := range []bool{false, true} {
		t.Run(fmt.Sprintf("copytruncate=%v", copytruncate), func(t *testing.T) {
			n := newNode(t)
			dir := t.TempDir()
			n.cfg.PodsDir = ""
			n.cfg.Sources = []tail.Source{{Name: "host", Include: []string{filepath.Join(dir, "*.log*")}, Exclude: []string{filepath.Join(dir, "no*")}, Format: "auto"}}
			live := filepath.Join(dir, "app.log")
			require.NoError(t, os.WriteFile(filepath.Join(dir, "no.log"), []byte("not this\n"), 0o600))
			f, err := os.OpenFile(live, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
			require.NoError(t, err)
			defer func() { f.Close() }()
			var want []string
			cuts := 0.0
			write := func(s string) {
				_, err := f.WriteString(s + "\n")
				require.NoError(t, err)
				want = append(want, s)
			}
			_, stop := n.start()
			for round := range 5 {
				write("service started")
				for i := range 20 {
					write(fmt.Sprintf("round %d line %d", round, i))
				}
				n.eventually("", want)
				if round == 2 {
					stop()
				}
				for i := 3; i > 0; i-- {
					_ = os.Rename(fmt.Sprintf("%s.%d.gz", live, i), fmt.Sprintf("%s.%d.gz", live, i+1))
				}
				if _, err := os.Stat(live + ".1"); err == nil {
					require.NoError(t, os.Rename(live+".1", live+".2"))
					compressFile(t, live+".2")
				}
				if copytruncate {
					b, err := os.ReadFile(live)
					require.NoError(t, err)
					require.NoError(t, os.WriteFile(live+".1", b, 0o600))
					require.NoError(t, f.Truncate(0))
					cuts++
					require.True(t, round == 2 || waitFor(10*time.Second, func() bool { return metric(t, n, "braid_tail_truncations_total") == cuts }))
				} else {
					require.NoError(t, os.Rename(live, live+".1"))
					require.NoError(t, f.Close())
					f, err = os.OpenFile(live, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
					require.NoError(t, err)
				}
				if round == 2 {
					cuts = metric(t, n, "braid_tail_truncations_total")
					_, stop = n.start()
				}
			}
			write("service started")
			n.eventually("", want)
			require.Equal(t, want, n.b.lines("file/host/"))
		})
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	require.NoError(t, tail.DefaultConfig().Validate())
	c := tail.Config{PodsDir: "pods", MaxHeld: -1, Sources: []tail.Source{{Name: "a"}, {Name: "a"}}}
	err := c.Validate()
	for _, field := range []string{"pods_dir", "max_held", "max_record", "max_inflight", "rescan_interval", "sources[1].name"} {
		require.ErrorContains(t, err, field+":")
	}
	err = tail.Source{Include: []string{"/a/[", "b"}, Format: "x"}.Validate()
	for _, field := range []string{"name", "include[0]", "include[1]", "format"} {
		require.ErrorContains(t, err, field+":")
	}
	_, err = tail.New(tail.DefaultConfig(), tail.Deps{})
	require.ErrorContains(t, err, "Sink")
}

func TestKey(t *testing.T) {
	t.Parallel()
	k := tail.StreamKey{Namespace: "ns", Pod: "p-0", PodUID: "u", Container: "c", Restart: 3}
	require.Equal(t, "pod/ns/p-0/u/c/3", k.String())
	long := tail.StreamKey{Source: "s", Path: "/" + strings.Repeat("x", 4000)}
	other := long
	other.Path += "y"
	require.Len(t, long.String(), 512)
	require.NotEqual(t, long.String(), other.String())
	require.Equal(t, "file/s/var/log/a", tail.StreamKey{Source: "s", Path: "/var/log/a"}.String())
}

func TestMetricsPassTheLinter(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	_, _ = n.start()
	problems, err := testutil.GatherAndLint(n.reg)
	require.NoError(t, err)
	require.Empty(t, problems)
	require.False(t, bytes.Contains([]byte(n.state), []byte{0}))
}
