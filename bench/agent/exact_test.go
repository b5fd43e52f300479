//go:build long

// Package agent runs the real node agent against the real server, ends both again and again, and counts what arrived.
package agent

import (
	"bufio"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/bench/harness"
)

const (
	streams  = 20
	lines    = 50_000
	kills    = 10
	away     = 60 * time.Second // how long the server is gone
	rotateAt = 400 << 10        // bytes: some ten rotations a stream
)

// container writes the log of one container as the kubelet and the runtime do: lines of the CRI, long ones in pieces,
// rotation by rename, older files compressed under another name, at most keep of them.
type container struct {
	dir  string
	f    *os.File
	w    *bufio.Writer
	size int
	last time.Time
	rng  *rand.Rand
	n    int // rotations
}

func newContainer(pods string, i int) (*container, error) {
	dir := filepath.Join(pods, fmt.Sprintf("load_writer-%d_00000000-0000-0000-0000-%012d", i, i), "main")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	c := &container{dir: dir, rng: rand.New(rand.NewPCG(uint64(i), 1))}
	return c, c.open()
}

func (c *container) open() (err error) {
	c.f, err = os.OpenFile(filepath.Join(c.dir, "0.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	c.w, c.size = bufio.NewWriterSize(c.f, 32<<10), 0
	return err
}

// write writes line n; some are so long that the runtime cuts them.
func (c *container) write(n int) error {
	text := fmt.Sprintf("line %06d %s", n, strings.Repeat("x", c.rng.IntN(60)))
	if n%5000 == 77 {
		text += strings.Repeat("y", 40_000)
	}
	long := len(text) > 16<<10
	for {
		now := time.Now()
		if !now.After(c.last) {
			now = c.last.Add(time.Microsecond)
		}
		c.last = now
		tag, piece := "F", text
		if len(piece) > 16<<10 {
			tag, piece = "P", piece[:16<<10]
		}
		k, err := fmt.Fprintf(c.w, "%s stdout %s %s\n", now.UTC().Format(time.RFC3339Nano), tag, piece)
		if err != nil {
			return err
		}
		c.size += k
		if text = text[len(piece):]; text == "" {
			break
		}
		if c.rng.IntN(2) == 0 { // rotation in the middle of a line
			if err := c.rotate(); err != nil {
				return err
			}
		}
	}
	if c.size > rotateAt {
		return c.rotate()
	}
	if long { // the runtime writes the end of a line as soon as it has it
		return c.w.Flush()
	}
	return nil
}

// rotate renames the file and compresses the one that was renamed before it.
func (c *container) rotate() error {
	if err := c.w.Flush(); err != nil {
		return err
	}
	if err := c.f.Close(); err != nil {
		return err
	}
	old, err := filepath.Glob(filepath.Join(c.dir, "0.log.*"))
	if err != nil {
		return err
	}
	for _, name := range old {
		if !strings.HasSuffix(name, ".gz") {
			if err := compress(name); err != nil {
				return err
			}
		}
	}
	c.n++
	stamp := time.Date(2026, 1, 1, 0, 0, c.n, 0, time.UTC).Format("20060102-150405")
	if err := os.Rename(filepath.Join(c.dir, "0.log"), filepath.Join(c.dir, "0.log."+stamp)); err != nil {
		return err
	}
	return c.open()
}

func compress(name string) error {
	in, err := os.Open(name)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(name + ".tmp")
	if err != nil {
		return err
	}
	z := gzip.NewWriter(out)
	if _, err := io.Copy(z, in); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	if err := out.Close(); err != nil {
		return err
	}
	if err := os.Rename(name+".tmp", name+".gz"); err != nil {
		return err
	}
	return os.Remove(name)
}

// read returns the numbers of the lines of a stream in the order of time, as the server has them.
func read(ctx context.Context, s *harness.Server, i int) (out []int, torn []string, err error) {
	start := int64(0)
	for {
		var answer struct {
			Data struct {
				Result []struct {
					Values [][]string `json:"values"`
				} `json:"result"`
			} `json:"data"`
		}
		q := url.Values{
			"query": {fmt.Sprintf(`{pod="writer-%d"}`, i)}, "limit": {"5000"}, "direction": {"forward"},
			"start": {strconv.FormatInt(start, 10)}, "end": {strconv.FormatInt(time.Now().Add(time.Hour).UnixNano(), 10)},
		}
		if start == 0 {
			q.Set("start", strconv.FormatInt(time.Now().Add(-2*time.Hour).UnixNano(), 10))
		}
		if _, err := s.JSON(ctx, "/loki/api/v1/query_range", q, &answer); err != nil {
			return nil, nil, err
		}
		type line struct {
			at   int64
			text string
		}
		var page []line
		for _, r := range answer.Data.Result {
			for _, v := range r.Values {
				at, err := strconv.ParseInt(v[0], 10, 64)
				if err != nil {
					return nil, nil, err
				}
				page = append(page, line{at, v[1]})
			}
		}
		slices.SortStableFunc(page, func(a, b line) int { return int(a.at - b.at) })
		for _, l := range page {
			f := strings.Fields(l.text)
			if len(f) < 2 || f[0] != "line" {
				return nil, nil, fmt.Errorf("stream %d: %.100q is no line of ours", i, l.text)
			}
			n, err := strconv.Atoi(f[1])
			if err != nil {
				return nil, nil, err
			}
			if n%5000 == 77 && len(l.text) < 40_000 {
				torn = append(torn, fmt.Sprintf("stream %d: line %d has %d bytes: a piece is missing", i, n, len(l.text)))
			}
			out = append(out, n)
		}
		if len(page) < 5000 {
			return out, torn, nil
		}
		start = page[len(page)-1].at + 1
	}
}

// TestExact has 20 containers write 50,000 numbered lines each through rotations, while the agent is killed ten times
// and the server is away for a minute: each line arrives once, in order.
func TestExact(t *testing.T) {
	ctx := t.Context()
	bin := t.TempDir()
	braid, err := harness.Build(ctx, bin)
	require.NoError(t, err)
	agentBin, err := harness.BuildPackage(ctx, bin, "cmd/braid-agent")
	require.NoError(t, err)
	pods, agentDir, data := t.TempDir(), t.TempDir(), t.TempDir()
	server, err := harness.Start(ctx, harness.Options{Binary: braid, Data: data})
	require.NoError(t, err)
	defer func() { server.Kill() }()
	startAgent := func() *harness.Server {
		a, err := harness.StartAgent(ctx, harness.AgentOptions{
			Binary: agentBin, Dir: agentDir, Backend: "http://" + server.OTLPHTTP,
			Config: fmt.Sprintf("logs:\n  pods_dir: %s\nscrape: {pods: false}\n", pods),
		})
		require.NoError(t, err)
		return a
	}
	agent := startAgent()
	defer func() { agent.Kill() }()

	var wg sync.WaitGroup
	failed := make(chan error, streams)
	began := time.Now()
	const writing = 100 * time.Second
	for i := range streams {
		wg.Go(func() {
			failed <- func() error {
				c, err := newContainer(pods, i)
				if err != nil {
					return err
				}
				for n := range lines {
					if err := c.write(n); err != nil {
						return err
					}
					if n%500 == 499 { // spread over the time
						if err := c.w.Flush(); err != nil {
							return err
						}
						if ahead := time.Duration(n)*writing/lines - time.Since(began); ahead > 0 {
							time.Sleep(ahead)
						}
					}
				}
				return c.w.Flush()
			}()
		})
	}
	rng := rand.New(rand.NewPCG(7, 7))
	for k := range kills {
		time.Sleep(2*time.Second + time.Duration(rng.Int64N(int64(3*time.Second))))
		agent.Kill()
		if k == kills/2 {
			server.Kill()
			agent = startAgent() // it reads on, and finds nobody
			time.Sleep(away)
			like := server
			server, err = harness.Start(ctx, harness.Options{Binary: braid, Data: data, Like: like})
			require.NoError(t, err)
			continue
		}
		time.Sleep(time.Duration(rng.Int64N(int64(time.Second))))
		agent = startAgent()
	}
	wg.Wait()
	for range streams {
		require.NoError(t, <-failed)
	}
	wrote := time.Since(began)
	require.Eventually(t, func() bool {
		var st struct {
			Data struct {
				Streams []struct {
					Lag int64 `json:"lagBytes"`
				} `json:"streams"`
			} `json:"data"`
		}
		if _, err := agent.JSON(ctx, "/api/v1/status", nil, &st); err != nil || len(st.Data.Streams) < streams {
			return false
		}
		for _, s := range st.Data.Streams {
			if s.Lag > 0 {
				return false
			}
		}
		return true
	}, 3*time.Minute, 200*time.Millisecond, "everything is acknowledged")
	t.Logf("written in %s, acknowledged %s later", wrote.Round(time.Second), (time.Since(began) - wrote).Round(100*time.Millisecond))
	usage, err := agent.Usage()
	require.NoError(t, err)
	t.Logf("the last agent used %+v", usage)
	total, lost, twice, disorder := 0, 0, 0, 0
	var torn []string
	for i := range streams {
		got, cut, err := read(ctx, server, i)
		require.NoError(t, err)
		torn = append(torn, cut...)
		seen := make([]int, lines)
		for k, n := range got {
			seen[n]++
			if k > 0 && n <= got[k-1] {
				disorder++
			}
		}
		for _, n := range seen {
			if n == 0 {
				lost++
			} else if n > 1 {
				twice += n - 1
			}
		}
		total += len(got)
	}
	t.Logf("%d lines stored: lost %d, stored twice %d, out of order %d", total, lost, twice, disorder)
	require.Empty(t, torn)
	require.Equal(t, []int{streams * lines, 0, 0, 0}, []int{total, lost, twice, disorder})
	v, err := server.Metric(ctx, "braid_storage_records_sent_again_total")
	require.NoError(t, err)
	t.Logf("lines that the agent sent again and the server did not store again: %.0f, since its last start", v)
}
