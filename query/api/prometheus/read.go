package prometheus

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"slices"

	"github.com/klauspost/compress/s2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	promstorage "github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"

	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/query"
)

const (
	// maxReadRequest bounds a request of remote read, compressed and decompressed.
	maxReadRequest = 4 << 20
	// maxFrame is the size from which a frame of chunks is sent, that of Prometheus.
	maxFrame = 1 << 20
)

// remoteRead answers the remote read protocol of Prometheus: samples in one message, or chunks in frames.
func (a *API) remoteRead(w http.ResponseWriter, r *http.Request) {
	fail := func(err error) { a.errors.Text(w, r, httpapi.Query, err) }
	req, err := readRequest(r)
	if err != nil {
		fail(err)
		return
	}
	as, err := answerAs(req.AcceptedResponseTypes)
	if err != nil {
		fail(err)
		return
	}
	done := a.Observer.Start(r.Context(), query.RemoteRead, httpapi.TenantFrom(r.Context()), r.URL.Path)
	if as == prompb.ReadRequest_STREAMED_XOR_CHUNKS {
		err = a.readChunks(r.Context(), w, req)
	} else {
		err = a.readSamples(r.Context(), w, req)
	}
	done(err)
	switch {
	case err == nil:
	case w.Header().Get("Content-Type") == "":
		fail(err)
	default:
		panic(http.ErrAbortHandler) // the answer has begun: it must not look whole
	}
}

// readRequest reads the body of a request.
func readRequest(r *http.Request) (*prompb.ReadRequest, error) {
	packed, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, maxReadRequest))
	if err != nil {
		return nil, fmt.Errorf("read the request: %w", err)
	}
	n, err := s2.DecodedLen(packed)
	if err != nil {
		return nil, httpapi.BadDataf("the body is not valid snappy: %w", err)
	}
	if n > maxReadRequest {
		return nil, httpapi.Errorf(httpapi.TooLarge, "the body is larger than %d bytes", maxReadRequest)
	}
	plain, err := s2.Decode(nil, packed)
	if err != nil {
		return nil, httpapi.BadDataf("the body is not valid snappy: %w", err)
	}
	var req prompb.ReadRequest
	if err := req.Unmarshal(plain); err != nil {
		return nil, httpapi.BadDataf("the body is no request of remote read: %w", err)
	}
	return &req, nil
}

// answerAs picks the first kind of answer that is known.
func answerAs(accepted []prompb.ReadRequest_ResponseType) (prompb.ReadRequest_ResponseType, error) {
	if len(accepted) == 0 {
		return prompb.ReadRequest_SAMPLES, nil
	}
	for _, t := range accepted {
		if t == prompb.ReadRequest_SAMPLES || t == prompb.ReadRequest_STREAMED_XOR_CHUNKS {
			return t, nil
		}
	}
	return 0, httpapi.BadDataf("server does not support any of the requested response types: %v; supported: SAMPLES, STREAMED_XOR_CHUNKS", accepted)
}

// each calls f with the series of each query, sorted.
func (a *API) each(ctx context.Context, req *prompb.ReadRequest, f func(i int, set promstorage.SeriesSet) error) error {
	for i, q := range req.Queries {
		if q == nil {
			return httpapi.BadDataf("query %d is empty", i)
		}
		ms, err := matchers(q.Matchers)
		if err != nil {
			return err
		}
		hints := &promstorage.SelectHints{Start: q.StartTimestampMs, End: q.EndTimestampMs}
		if h := q.Hints; h != nil {
			hints.Step, hints.Func, hints.Grouping, hints.Range, hints.By = h.StepMs, h.Func, h.Grouping, h.RangeMs, h.By
		}
		querier, err := a.Engine.Queryable(httpapi.TenantFrom(ctx)).Querier(q.StartTimestampMs, q.EndTimestampMs)
		if err != nil {
			return err
		}
		set := querier.Select(ctx, true, hints, ms...)
		err = f(i, set)
		if err == nil {
			err = set.Err()
		}
		if err = errors.Join(err, querier.Close()); err != nil {
			return err
		}
	}
	return nil
}

func matchers(in []*prompb.LabelMatcher) ([]*labels.Matcher, error) {
	var out []*labels.Matcher
	for _, m := range in {
		if m == nil {
			return nil, httpapi.BadDataf("a matcher is empty")
		}
		kinds := map[prompb.LabelMatcher_Type]labels.MatchType{
			prompb.LabelMatcher_EQ: labels.MatchEqual, prompb.LabelMatcher_NEQ: labels.MatchNotEqual,
			prompb.LabelMatcher_RE: labels.MatchRegexp, prompb.LabelMatcher_NRE: labels.MatchNotRegexp,
		}
		kind, ok := kinds[m.Type]
		if !ok {
			return nil, httpapi.BadDataf("invalid matcher type %d", m.Type)
		}
		lm, err := labels.NewMatcher(kind, m.Name, m.Value)
		if err != nil {
			return nil, httpapi.BadDataf("invalid matcher of label %q: %w", m.Name, err)
		}
		out = append(out, lm)
	}
	return out, nil
}

// readSamples answers with all samples in one message.
func (a *API) readSamples(ctx context.Context, w http.ResponseWriter, req *prompb.ReadRequest) error {
	limit := a.Engine.Config().MaxSamples
	resp := prompb.ReadResponse{Results: make([]*prompb.QueryResult, len(req.Queries))}
	n := 0
	err := a.each(ctx, req, func(i int, set promstorage.SeriesSet) error {
		res := &prompb.QueryResult{}
		resp.Results[i] = res
		var it chunkenc.Iterator
		for set.Next() {
			ts := &prompb.TimeSeries{Labels: prompb.FromLabels(set.At().Labels(), nil)}
			it = set.At().Iterator(it)
			for k := it.Next(); k != chunkenc.ValNone; k = it.Next() {
				if n++; n > limit {
					return httpapi.Errorf(httpapi.QueryLimit,
						"the request reads more samples than promql.max_samples (%d) allows: select fewer series, shorten the time range, or accept STREAMED_XOR_CHUNKS", limit)
				}
				switch k {
				case chunkenc.ValHistogram:
					t, h := it.AtHistogram(nil)
					ts.Histograms = append(ts.Histograms, prompb.FromIntHistogram(t, h))
				case chunkenc.ValFloatHistogram:
					t, h := it.AtFloatHistogram(nil)
					ts.Histograms = append(ts.Histograms, prompb.FromFloatHistogram(t, h))
				default:
					t, v := it.At()
					ts.Samples = append(ts.Samples, prompb.Sample{Timestamp: t, Value: v})
				}
			}
			if err := it.Err(); err != nil {
				return err
			}
			res.Timeseries = append(res.Timeseries, ts)
		}
		return nil
	})
	if err != nil {
		return err
	}
	b, err := resp.Marshal()
	if err != nil {
		return fmt.Errorf("encode the samples: %w", err)
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
	w.Header().Set("Content-Encoding", "snappy")
	_, _ = w.Write(s2.EncodeSnappy(nil, b)) // the client may be gone
	return nil
}

// readChunks answers with frames of one series each, as they are read.
func (a *API) readChunks(ctx context.Context, w http.ResponseWriter, req *prompb.ReadRequest) error {
	err := a.each(ctx, req, func(i int, set promstorage.SeriesSet) error {
		var it chunks.Iterator
		for set.Next() {
			s := &prompb.ChunkedSeries{Labels: prompb.FromLabels(set.At().Labels(), nil)}
			room := maxFrame
			send := func() error {
				if len(s.Chunks) == 0 {
					return nil
				}
				resp := prompb.ChunkedReadResponse{ChunkedSeries: []*prompb.ChunkedSeries{s}, QueryIndex: int64(i)}
				b, err := resp.Marshal()
				if err != nil {
					return fmt.Errorf("encode chunks: %w", err)
				}
				s.Chunks, room = s.Chunks[:0], maxFrame
				return writeFrame(w, b)
			}
			it = promstorage.NewSeriesToChunkEncoder(withoutStarts{set.At()}).Iterator(it)
			for it.Next() {
				c := it.At()
				s.Chunks = append(s.Chunks, prompb.Chunk{
					MinTimeMs: c.MinTime, MaxTimeMs: c.MaxTime, Type: prompb.Chunk_Encoding(c.Chunk.Encoding()), Data: slices.Clone(c.Chunk.Bytes()),
				})
				if room -= len(c.Chunk.Bytes()); room <= 0 {
					if err := send(); err != nil {
						return err
					}
				}
			}
			if err := errors.Join(it.Err(), send()); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		setFrames(w)
	}
	return err
}

func setFrames(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse")
}

// writeFrame writes a message with its length and its CRC32C before it.
func writeFrame(w http.ResponseWriter, b []byte) error {
	setFrames(w)
	head := binary.AppendUvarint(nil, uint64(len(b)))
	head = binary.BigEndian.AppendUint32(head, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	if _, err := w.Write(head); err != nil {
		return err
	}
	_, err := w.Write(b)
	return err
}

// withoutStarts leaves out start timestamps: chunks with them are of kinds that readers before Prometheus 3.14 do not know.
type withoutStarts struct{ promstorage.Series }

// Iterator implements promstorage.SampleIterable.
func (s withoutStarts) Iterator(chunkenc.Iterator) chunkenc.Iterator {
	return noStarts{s.Series.Iterator(nil)}
}

type noStarts struct{ chunkenc.Iterator }

// AtST implements chunkenc.Iterator.
func (noStarts) AtST() int64 { return 0 }
