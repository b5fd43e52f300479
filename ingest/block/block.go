// Package block sends the blocks that a Prometheus has on disk to a Braid, oldest first. Every piece of a block has a
// number, so that an import that was cut off goes on where it was, and one that runs again stores nothing twice.
package block

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

const (
	// samplesOfRequest is how many samples a request has at most, and bytesOfRequest about how large it becomes.
	samplesOfRequest = 20_000
	bytesOfRequest   = 4 << 20
	// stream is the name of all imports for the server; the file is the block.
	stream = "import/prometheus"
)

// Options say what is imported and where to.
type Options struct {
	Dir    string // the data folder of a Prometheus, a snapshot of it, or a single block
	URL    string // of the server, with its scheme
	Tenant string // "" for the default one
	// State is a file that remembers how far the import came; it is made when it is not there. Without it everything is
	// read and sent again, and the server ignores what it has.
	State  string
	Client *http.Client
	Out    io.Writer // gets a line about each block, and one every few seconds
	Now    func() time.Time
}

// Totals are what an import came to.
type Totals struct {
	Blocks  int
	Samples uint64 // read, those of earlier attempts included
	Refused uint64 // of those sent now
	Reason  string // why, of the last request with something refused
}

// Import sends all blocks. It returns what was sent also with an error.
func Import(ctx context.Context, o Options) (Totals, error) {
	im := &importer{o: o, state: map[string]progress{}, began: o.Now(), told: o.Now()}
	err := im.run(ctx)
	return im.totals, err
}

// progress is how far a block is acknowledged.
type progress struct {
	Samples uint64 `json:"samples"`
	Done    bool   `json:"done"`
}

type importer struct {
	o      Options
	state  map[string]progress // by block
	saved  time.Time
	began  time.Time
	told   time.Time
	totals Totals

	// The request being filled.
	req     *writev2.Request
	symbols writev2.SymbolsTable
	samples int
	bytes   int
	from    uint64 // the position before it
	packed  []byte
}

func (im *importer) run(ctx context.Context) error {
	if err := im.load(); err != nil {
		return err
	}
	metas, err := blocks(im.o.Dir)
	if err != nil {
		return err
	}
	for i, m := range metas {
		fmt.Fprintf(im.o.Out, "block %d of %d, %s: %s to %s, %d series, %d samples\n", i+1, len(metas), m.id,
			time.UnixMilli(m.meta.MinTime).UTC().Format(time.DateTime), time.UnixMilli(m.meta.MaxTime).UTC().Format(time.DateTime), m.meta.Stats.NumSeries, m.meta.Stats.NumSamples)
		if im.state[m.id].Done {
			fmt.Fprintln(im.o.Out, "  was imported before")
			im.totals.Samples += m.meta.Stats.NumSamples
			im.totals.Blocks++
			continue
		}
		if err := im.block(ctx, m); err != nil {
			return errors.Join(fmt.Errorf("import block %s: %w", m.id, err), im.save())
		}
		im.totals.Blocks++
	}
	return im.save()
}

// found is a block on disk.
type found struct {
	id, dir string
	meta    tsdb.BlockMeta
}

// blocks returns the blocks below dir, or dir itself, in the order of their times.
func blocks(dir string) ([]found, error) {
	if _, err := os.Stat(filepath.Join(dir, "meta.json")); err == nil {
		m, err := readMeta(dir)
		return []found{m}, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("look for blocks: %w", err)
	}
	var out []found
	for _, e := range entries {
		sub := filepath.Join(dir, e.Name())
		if _, err := os.Stat(filepath.Join(sub, "meta.json")); errors.Is(err, fs.ErrNotExist) || !e.IsDir() {
			continue
		}
		m, err := readMeta(sub)
		if err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("there are no blocks in %s: name the data folder of a Prometheus, or a snapshot, which has the newest samples too", dir)
	}
	slices.SortFunc(out, func(a, b found) int {
		return cmp.Or(cmp.Compare(a.meta.MinTime, b.meta.MinTime), cmp.Compare(a.id, b.id))
	})
	return out, nil
}

func readMeta(dir string) (found, error) {
	b, err := os.ReadFile(filepath.Join(dir, "meta.json"))
	if err != nil {
		return found{}, err
	}
	f := found{dir: dir}
	if err := json.Unmarshal(b, &f.meta); err != nil {
		return found{}, fmt.Errorf("read %s: %w", filepath.Join(dir, "meta.json"), err)
	}
	f.id = f.meta.ULID.String()
	return f, nil
}

// block sends what of a block was not acknowledged yet. Series come in the order of their labels and samples in that of
// time, always the same, so that counting them gives positions.
func (im *importer) block(ctx context.Context, f found) (err error) {
	b, err := tsdb.OpenBlock(slog.New(slog.DiscardHandler), f.dir, nil, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	q, err := tsdb.NewBlockQuerier(b, math.MinInt64, math.MaxInt64)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, q.Close()) }()
	skip := im.state[f.id].Samples
	im.begin(skip)
	at := uint64(0)
	set := q.Select(ctx, true, nil, labels.MustNewMatcher(labels.MatchEqual, "", ""))
	var it chunkenc.Iterator
	for set.Next() {
		s := set.At()
		it = s.Iterator(it)
		var ts *writev2.TimeSeries // nil until the series has a sample in the request
		for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
			if at++; at <= skip {
				continue
			}
			if ts == nil {
				ts = im.series(s.Labels())
			}
			im.add(ts, it, kind)
			if im.samples >= samplesOfRequest || im.bytes >= bytesOfRequest {
				if err := im.send(ctx, f, at); err != nil {
					return err
				}
				ts = nil
			}
		}
		if err := it.Err(); err != nil {
			return fmt.Errorf("read series %s: %w", s.Labels(), err)
		}
	}
	if err := set.Err(); err != nil {
		return fmt.Errorf("read: %w", err)
	}
	if err := im.send(ctx, f, at); err != nil {
		return err
	}
	im.totals.Samples += at
	im.state[f.id] = progress{Samples: at, Done: true}
	return im.save()
}

// begin begins a request after a position.
func (im *importer) begin(from uint64) {
	im.req, im.symbols, im.samples, im.bytes, im.from = &writev2.Request{}, writev2.NewSymbolTable(), 0, 0, from
}

// series adds a series without samples to the request. It is valid until the next.
func (im *importer) series(ls labels.Labels) *writev2.TimeSeries {
	im.req.Timeseries = append(im.req.Timeseries, writev2.TimeSeries{LabelsRefs: im.symbols.SymbolizeLabels(ls, nil)})
	im.bytes += 4*ls.Len() + int(ls.ByteSize()) + 16
	return &im.req.Timeseries[len(im.req.Timeseries)-1]
}

// add adds the sample that the iterator stands at.
func (im *importer) add(ts *writev2.TimeSeries, it chunkenc.Iterator, kind chunkenc.ValueType) {
	im.samples++
	switch kind {
	case chunkenc.ValHistogram:
		t, h := it.AtHistogram(nil)
		ts.Histograms = append(ts.Histograms, writev2.FromIntHistogram(it.AtST(), t, h))
		im.bytes += 64 + 4*(len(h.PositiveBuckets)+len(h.NegativeBuckets)) + 8*len(h.CustomValues)
	case chunkenc.ValFloatHistogram:
		t, h := it.AtFloatHistogram(nil)
		ts.Histograms = append(ts.Histograms, writev2.FromFloatHistogram(it.AtST(), t, h))
		im.bytes += 64 + 8*(len(h.PositiveBuckets)+len(h.NegativeBuckets)+len(h.CustomValues))
	default:
		t, v := it.At()
		ts.Samples = append(ts.Samples, writev2.Sample{Value: v, Timestamp: t, StartTimestamp: it.AtST()})
		im.bytes += 20
	}
}

// load reads the state.
func (im *importer) load() error {
	if im.o.State == "" {
		return nil
	}
	b, err := os.ReadFile(im.o.State)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(b, &im.state)
	}
	if err != nil {
		return fmt.Errorf("read the state of an earlier import: %w; without the file everything is sent again, which does no harm", err)
	}
	return nil
}

// save writes the state.
func (im *importer) save() error {
	if im.o.State == "" {
		return nil
	}
	b, err := json.MarshalIndent(im.state, "", "  ")
	if err != nil {
		return err
	}
	next := im.o.State + ".new"
	if err := os.WriteFile(next, b, 0o600); err != nil {
		return fmt.Errorf("write the state: %w", err)
	}
	im.saved = im.o.Now()
	return os.Rename(next, im.o.State)
}
