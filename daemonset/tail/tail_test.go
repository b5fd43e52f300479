package tail_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/braidobs/braid/daemonset/tail"
	"github.com/braidobs/braid/storage/vfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// backend applies the rule of the backend: of each stream and file it stores what lies above the highest position it
// has acknowledged, as of before the request.
type backend struct {
	mu      sync.Mutex
	marks   map[string]uint64
	records map[string][]tail.Record // stored, by stream
	sending map[string]bool
	resent  int                             // records that were cut
	fault   func() (stored bool, err error) // nil: none
	gate    chan struct{}                   // closed: open
	wrong   []string
}

func newBackend() *backend {
	b := &backend{marks: map[string]uint64{}, records: map[string][]tail.Record{}, sending: map[string]bool{}, gate: make(chan struct{})}
	close(b.gate)
	return b
}

func (b *backend) block() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.gate = make(chan struct{})
}

func (b *backend) unblock() {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.gate)
}

func (b *backend) Send(ctx context.Context, c tail.Chunk) error {
	id := c.Stream.String()
	b.mu.Lock()
	if b.sending[id] {
		b.wrong = append(b.wrong, id+": sent while it was being sent")
	}
	b.sending[id] = true
	gate, fault := b.gate, b.fault
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.sending[id] = false
	}()
	select {
	case <-gate:
	case <-ctx.Done():
		return ctx.Err()
	}
	for fault != nil {
		stored, err := fault()
		if stored || err == nil {
			b.store(id, c)
		}
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	b.store(id, c)
	return nil
}

func (b *backend) store(id string, c tail.Chunk) {
	b.mu.Lock()
	defer b.mu.Unlock()
	key := id + " " + c.File
	mark, last := b.marks[key], c.From
	for _, r := range c.Records {
		if r.End < last || r.End > c.To {
			b.wrong = append(b.wrong, fmt.Sprintf("%s: end %d after %d, the chunk is (%d, %d]", key, r.End, last, c.From, c.To))
		}
		last = r.End
		if r.End <= mark {
			b.resent++
			continue
		}
		r.Body = bytes.Clone(r.Body)
		b.records[id] = append(b.records[id], r)
	}
	b.marks[key] = max(mark, c.To)
}

// lines returns the bodies of what is stored, of the streams whose ID contains part.
func (b *backend) lines(part string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []string
	for id, rs := range b.records {
		if strings.Contains(id, part) {
			for _, r := range rs {
				out = append(out, string(r.Body))
			}
		}
	}
	return out
}

func (b *backend) all(part string) []tail.Record {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []tail.Record
	for id, rs := range b.records {
		if strings.Contains(id, part) {
			out = append(out, rs...)
		}
	}
	return out
}

func (b *backend) ok(t *testing.T) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	require.Empty(t, b.wrong)
}

// node is a machine with the logs of pods, and an agent.
type node struct {
	t     *testing.T
	pods  string
	state string
	b     *backend
	reg   *prometheus.Registry
	cfg   tail.Config
	deps  tail.Deps
}

func newNode(t *testing.T) *node {
	t.Helper()
	n := &node{t: t, pods: filepath.Join(t.TempDir(), "pods"), state: filepath.Join(t.TempDir(), "state"), b: newBackend(), reg: prometheus.NewRegistry()}
	require.NoError(t, os.MkdirAll(n.pods, 0o750))
	n.cfg = tail.DefaultConfig()
	n.cfg.PodsDir = n.pods
	n.deps = tail.Deps{Sink: n.b, Now: time.Now, FS: vfs.OS{}, Metrics: n.reg, Grace: 100 * time.Millisecond}
	if testing.Verbose() {
		n.deps.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	return n
}

// start runs an agent until stop is called.
func (n *node) start() (agent *tail.Tailer, stop func()) {
	n.t.Helper()
	require.NoError(n.t, n.cfg.Validate())
	n.deps.StateDir = n.state
	agent, err := tail.New(n.cfg, n.deps)
	require.NoError(n.t, err)
	agent.Hasten()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- agent.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			require.NoError(n.t, <-done)
		})
	}
	n.t.Cleanup(stop)
	require.Eventually(n.t, func() bool { return agent.Ready() == nil }, 10*time.Second, time.Millisecond)
	return agent, stop
}

// crash makes the next agent start from the checkpoint as it is now.
func (n *node) snapshot() (use func()) {
	b, err := os.ReadFile(filepath.Join(n.state, "tail.checkpoint"))
	none := errors.Is(err, os.ErrNotExist)
	if !none {
		require.NoError(n.t, err)
	}
	return func() {
		n.state = n.t.TempDir()
		if !none {
			require.NoError(n.t, os.WriteFile(filepath.Join(n.state, "tail.checkpoint"), b, 0o600))
		}
	}
}

// eventually waits until the streams whose ID contains part have exactly want, in order.
func (n *node) eventually(part string, want []string) {
	n.t.Helper()
	deadline := 20 * time.Second
	if !waitFor(deadline, func() bool { return len(n.b.lines(part)) >= len(want) }) {
		n.t.Logf("got %d of %d lines", len(n.b.lines(part)), len(want))
	}
	got := n.b.lines(part)
	require.Empty(n.t, difference(want, got))
	n.b.ok(n.t)
}

func waitFor(limit time.Duration, ok func() bool) bool {
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		if ok() {
			return true
		}
		select {
		case <-deadline.C:
			return false
		case <-tick.C:
		}
	}
}

func difference(want, got []string) string {
	for i := range max(len(want), len(got)) {
		w, g := "nothing", "nothing"
		if i < len(want) {
			w = fmt.Sprintf("%.60q", want[i])
		}
		if i < len(got) {
			g = fmt.Sprintf("%.60q", got[i])
		}
		if w != g || i < len(want) && i < len(got) && want[i] != got[i] {
			return fmt.Sprintf("line %d is %s, not %s", i, g, w)
		}
	}
	return ""
}

// container writes a log as containerd does, and rotates it as the kubelet does.
type container struct {
	t    *testing.T
	dir  string
	name string // of the live file
	f    *os.File
	now  time.Time
	rots int
	want []string // bodies, in order
}

func (n *node) container(pod string) *container {
	n.t.Helper()
	dir := filepath.Join(n.pods, "default_"+pod+"_uid-"+pod, "app")
	require.NoError(n.t, os.MkdirAll(dir, 0o750))
	c := &container{t: n.t, dir: dir, name: "0.log", now: time.Date(2026, 1, 31, 14, 0, 0, rand.IntN(1e9), time.UTC)}
	c.open()
	n.t.Cleanup(func() { _ = c.f.Close() })
	return c
}

func (c *container) path() string { return filepath.Join(c.dir, c.name) }

func (c *container) open() {
	f, err := os.OpenFile(c.path(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	require.NoError(c.t, err)
	c.f = f
}

func (c *container) raw(s string) {
	_, err := c.f.WriteString(s)
	require.NoError(c.t, err)
}

// entry is a line of the log; it does not count as a record.
func (c *container) entry(stream, tag, body string) {
	c.now = c.now.Add(time.Microsecond)
	c.raw(c.now.Format(time.RFC3339Nano) + " " + stream + " " + tag + " " + body + "\n")
}

func (c *container) line(body string) {
	c.entry("stdout", "F", body)
	c.want = append(c.want, body)
}

func (c *container) lines(n int) {
	for range n {
		c.line(fmt.Sprintf("%s line %06d", filepath.Base(filepath.Dir(c.dir)), len(c.want)))
	}
}

// rotate moves the live file away and begins a new one; compress and keep say what becomes of the older ones.
func (c *container) rotate(compress bool, keep int) {
	c.rename(compress, keep)
	c.reopen()
}

func (c *container) rename(compress bool, keep int) {
	olds, err := filepath.Glob(c.path() + ".*")
	require.NoError(c.t, err)
	for len(olds) > keep {
		require.NoError(c.t, os.Remove(olds[0]))
		olds = olds[1:]
	}
	if compress {
		for _, old := range olds {
			if !strings.HasSuffix(old, ".gz") {
				compressFile(c.t, old)
			}
		}
	}
	c.rots++
	when := time.Date(2026, 1, 31, 14, 0, 0, 0, time.UTC).Add(time.Duration(c.rots) * time.Second)
	require.NoError(c.t, os.Rename(c.path(), c.path()+"."+when.Format("20060102-150405")))
}

func (c *container) reopen() {
	old := c.f
	c.open()
	require.NoError(c.t, old.Close())
}

func compressFile(t *testing.T, name string) {
	t.Helper()
	in, err := os.Open(name)
	require.NoError(t, err)
	defer in.Close()
	out, err := os.Create(name + ".gz.tmp")
	require.NoError(t, err)
	w := gzip.NewWriter(out)
	_, err = io.Copy(w, in)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	require.NoError(t, out.Close())
	require.NoError(t, os.Rename(name+".gz.tmp", name+".gz"))
	require.NoError(t, os.Remove(name))
}

func TestReadsWhatIsThereAndWhatComes(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	a := n.container("a")
	a.lines(1000)
	_, stop := n.start()
	n.eventually("pod/default/a/uid-a/app/0", a.want)
	b := n.container("b")
	a.lines(10)
	b.lines(10)
	n.eventually("/a/", a.want)
	n.eventually("/b/", b.want)
	stop()
	a.lines(5)
	_, _ = n.start()
	n.eventually("/a/", a.want)
	n.eventually("/b/", b.want)
	require.Zero(t, n.b.resent)
}

func TestRotation(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	c := n.container("a")
	_, _ = n.start()
	for range 10 {
		c.lines(500)
		c.rotate(true, 3)
		require.True(t, waitFor(10*time.Second, func() bool { return len(n.b.all("/a/")) > len(c.want)-1500 }))
	}
	c.lines(3)
	n.eventually("/a/", c.want)
}

// Nothing is lost that the kubelet has not deleted while the agent was down.
func TestRotationWhileDown(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	c := n.container("a")
	c.lines(500)
	_, stop := n.start()
	n.eventually("/a/", c.want)
	c.lines(100)
	stop()
	for range 4 {
		c.lines(500)
		c.rotate(true, 4)
	}
	c.lines(3)
	_, stop = n.start()
	n.eventually("/a/", c.want)
	stop()
	c.lines(3)
	_, _ = n.start()
	n.eventually("/a/", c.want)
	require.Zero(t, n.b.resent)
}

// TestExactlyOnce has streams that write and rotate while the sink fails, blocks and stores without saying so, and the
// agent is killed again and again with checkpoints that are older than what was acknowledged.
func TestExactlyOnce(t *testing.T) {
	t.Parallel()
	const streams, rounds = 20, 12
	n := newNode(t)
	rng := rand.New(rand.NewPCG(1, 2))
	n.b.fault = func() (bool, error) {
		switch rand.IntN(20) {
		case 0:
			return true, errors.New("stored, and the answer is lost")
		case 1, 2:
			return false, errors.New("not stored")
		default:
			return false, nil
		}
	}
	cs := make([]*container, streams)
	for i := range cs {
		cs[i] = n.container(fmt.Sprintf("pod-%02d", i))
	}
	for range rounds {
		_, stop := n.start()
		use := func() {}
		snapshot := rng.IntN(6)
		for step := range 6 {
			for _, c := range cs {
				c.lines(rng.IntN(60))
				switch rng.IntN(8) {
				case 0:
					c.rotate(rng.IntN(2) == 0, 40)
				case 1: // pieces on both outputs
					body := strings.Repeat("x", rng.IntN(9000))
					c.entry("stdout", "P", body)
					c.line("")
					c.want[len(c.want)-1] = body
				}
			}
			before := len(n.b.all(""))
			waitFor(time.Duration(rng.IntN(30))*time.Millisecond, func() bool { return len(n.b.all("")) > before+rng.IntN(500) })
			if step == snapshot {
				use = n.snapshot()
			}
		}
		stop()
		use()
	}
	n.b.mu.Lock()
	n.b.fault = nil
	n.b.mu.Unlock()
	_, _ = n.start()
	for i, c := range cs {
		n.eventually(fmt.Sprintf("/pod-%02d/", i), c.want)
	}
	require.Positive(t, n.b.resent, "the crashes made nothing be sent again")
}

// TestSchedules has one stream and any order of writing, rotating in all the kubelet's ways, waiting, and killing the
// agent with a checkpoint of any age. Files are deleted only when they were sent.
func TestSchedules(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := newNode(t)
		n.cfg.MaxInflight = 1 << 20
		c := n.container("a")
		_, stop := n.start()
		use := func() {}
		has := func() bool { return len(n.b.lines("/a/")) >= len(c.want) }
		piece := false
		for range rapid.IntRange(5, 25).Draw(rt, "steps") {
			switch rapid.IntRange(0, 9).Draw(rt, "step") {
			case 0, 1, 2:
				for range rapid.IntRange(1, 300).Draw(rt, "lines") {
					line := strconv.Itoa(len(c.want))
					c.entry("stderr", "F", line)
					c.want = append(c.want, line)
				}
			case 3:
				if body := rapid.StringN(0, 3000, 3000).Draw(rt, "piece"); !piece {
					piece = true
					c.entry("stdout", "P", strings.ReplaceAll(body, "\n", " "))
					c.entry("stderr", "P", "x")
					c.entry("stderr", "F", "y")
					c.want = append(c.want, "xy")
				}
			case 4:
				if piece {
					piece = false
					c.entry("stdout", "F", "end")
					c.want = append(c.want, "(pieces)")
				}
			case 5:
				c.rotate(false, 100)
			case 6:
				c.rotate(true, 100)
			case 7:
				waitFor(time.Duration(rapid.IntRange(0, 20).Draw(rt, "ms"))*time.Millisecond, has)
			case 8:
				use = n.snapshot()
			case 9:
				stop()
				use()
				if rapid.Bool().Draw(rt, "rotated while down") {
					c.rotate(true, 100)
				}
				_, stop = n.start()
				use = func() {}
			}
		}
		require.True(rt, waitFor(10*time.Second, has), "%d of %d", len(n.b.lines("/a/")), len(c.want))
		stop()
		got := n.b.lines("/a/")
		for i := range got {
			if strings.HasSuffix(got[i], "end") {
				got[i] = "(pieces)"
			}
		}
		if d := difference(c.want, got); d != "" {
			rt.Fatalf("%d lines, %d wanted, %s", len(got), len(c.want), d)
		}
		n.b.ok(t)
	})
}
