package db_test

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/s2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/db"
	"github.com/braidobs/braid/storage/part"
)

func seed(f *testing.F, pattern string) {
	f.Helper()
	names, err := filepath.Glob(pattern)
	require.NoError(f, err)
	require.NotEmpty(f, names)
	for _, n := range names {
		b, err := os.ReadFile(n)
		require.NoError(f, err)
		f.Add(b)
	}
}

func crc(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

// FuzzPart opens any bytes as a part, once as they are and once with a right checksum of the footer, and reads all
// there is as each of the signals: no panic, and nothing but corruption is wrong.
func FuzzPart(f *testing.F) {
	seed(f, goldenParts+"/*.part")
	seed(f, currentParts+"/*.part")
	f.Fuzz(func(t *testing.T, in []byte) {
		for range 2 {
			if p, err := openBytes(in); err == nil {
				if err := p.Verify(); err != nil {
					require.ErrorIs(t, err, part.ErrCorrupt)
				}
				scanEverything(t, p)
				_ = p.Describe()
			} else {
				require.ErrorIs(t, err, part.ErrCorrupt)
			}
			if len(in) < 36 {
				return
			}
			in = append([]byte{}, in...)
			at := len(in) - 20
			if n := int(binary.LittleEndian.Uint32(in[at:])); n <= at-16 {
				binary.LittleEndian.PutUint32(in[at+4:], crc(in[at-n:at]))
			}
		}
	})
}

// FuzzRecord reads any bytes as a record of the log, packed and as the body of each kind: no panic, and what was read
// is read again the same.
func FuzzRecord(f *testing.F) {
	seed(f, goldenDir+"/*.rec")
	seed(f, thirdDir+"/*.rec")
	for _, name := range []string{goldenDir + "/request", goldenDir + "/delete", goldenDir + "/sourced", goldenDir + "/setting", thirdDir + "/series"} {
		b, err := os.ReadFile(name + ".rec")
		require.NoError(f, err)
		body, err := s2.Decode(nil, b[2:])
		require.NoError(f, err)
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		var tries [][]byte
		for kind := range byte(6) {
			tries = append(tries, append([]byte{1, kind}, s2.Encode(nil, in)...))
		}
		if len(in) > 2 {
			if n, err := s2.DecodedLen(in[2:]); err == nil && n < 1<<20 {
				tries = append(tries, in)
			}
		}
		for _, b := range tries {
			req, mask, err := db.DecodeRecord(b)
			if err != nil {
				require.ErrorIs(t, err, db.ErrRecord)
				continue
			}
			var enc []byte
			switch {
			case req != nil:
				enc = db.EncodeRequest(req)
			case mask != nil:
				enc = db.EncodeMask(mask)
			default:
				key, value, err := db.DecodeSetting(b)
				require.NoError(t, err)
				again, same, err := db.DecodeSetting(db.EncodeSetting(key, value))
				require.NoError(t, err)
				require.Equal(t, key+string(value), again+string(same))
				continue
			}
			req2, mask2, err := db.DecodeRecord(enc)
			require.NoError(t, err)
			if mask != nil {
				require.Equal(t, enc, db.EncodeMask(mask2))
				continue
			}
			require.Equal(t, enc, db.EncodeRequest(req2))
		}
	})
}

// FuzzManifest reads any bytes as each kind of manifest, as they are and with a right checksum.
func FuzzManifest(f *testing.F) {
	seed(f, goldenDir+"/data/blobs/commits/*/*/*")
	seed(f, goldenDir+"/data/blobs/changes/*/*/*/*")
	cp, err := db.EncodeManifest(&db.Checkpoint{Chain: "logs", Changes: map[string]uint64{"logs/default/20260301": 3}, Rewritten: map[uint64][]string{1: {"a"}}})
	require.NoError(f, err)
	f.Add(cp)
	f.Fuzz(func(t *testing.T, in []byte) {
		manifest[db.FlushManifest](t, in)
		manifest[db.ChangeManifest](t, in)
		manifest[db.Checkpoint](t, in)
		signed := append(fmt.Appendf(nil, "braid-manifest 1 %08x\n", crc(in)), in...)
		manifest[db.FlushManifest](t, signed)
		manifest[db.ChangeManifest](t, signed)
		manifest[db.Checkpoint](t, signed)
	})
}

func manifest[M db.Manifest](t *testing.T, b []byte) {
	t.Helper()
	m, err := db.DecodeManifest[M]("x", b)
	if err != nil {
		require.ErrorIs(t, err, db.ErrManifest)
		require.ErrorContains(t, err, "x at offset")
		return
	}
	enc, err := db.EncodeManifest(m)
	if err != nil {
		return // a time before the year 0
	}
	again, err := db.DecodeManifest[M]("x", enc)
	require.NoError(t, err)
	twice, err := db.EncodeManifest(again)
	require.NoError(t, err)
	require.Equal(t, enc, twice)
}

// FuzzState reads any bytes as a snapshot, as they are and with a right checksum.
func FuzzState(f *testing.F) {
	for _, name := range goldenSnapshots() {
		b, err := os.ReadFile(name)
		require.NoError(f, err)
		f.Add(b)
		f.Add(b[13:])
	}
	series := telemetry.AppendSeries(nil, &telemetry.Series{Labels: labelSet("__name__", "d"), Delta: true, Samples: []telemetry.Sample{{T: 2, ST: 1, V: 3}}})
	f.Add(append(append([]byte{0, 1, 1, 'a'}, series...), 0))
	f.Fuzz(func(t *testing.T, in []byte) {
		tries := [][]byte{in}
		for version := range byte(4) {
			signed := binary.LittleEndian.AppendUint32(append([]byte("BRDSTATE"), version), crc(in))
			tries = append(tries, append(signed, in...))
		}
		for _, b := range tries {
			s := db.NewState()
			if err := s.Load("x", b); err != nil {
				require.ErrorIs(t, err, db.ErrState)
				require.ErrorContains(t, err, "x at offset")
				continue
			}
			again := db.NewState()
			require.NoError(t, again.Load("x", s.Encode()))
			am, ad, at := again.Counts()
			bm, bd, bt := s.Counts()
			require.Equal(t, []int{bm, bd, bt}, []int{am, ad, at})
		}
	})
}

func BenchmarkEncodeRecord(b *testing.B) {
	lines := storage.Request{Batches: []telemetry.Batch{{Tenant: "t", Stream: telemetry.NewLabelSet(labels.FromStrings("app", "a"))}}}
	for i := range 2000 {
		lines.Batches[0].Logs = append(lines.Batches[0].Logs, telemetry.LogRecord{
			Time: int64(i) * 1e6, Body: telemetry.String(fmt.Sprintf("level=info msg=%q path=/cart/%d took=%dms status=200 user=u-%d", "request done", i*7919, i%900, i)),
		})
	}
	for name, req := range map[string]storage.Request{"mixed": numbered(1, start), "lines": lines} {
		b.Run(name, func(b *testing.B) {
			encode := db.Encode()
			b.ReportAllocs()
			for b.Loop() {
				encode(&req)
			}
		})
	}
}

func BenchmarkDecodeRecord(b *testing.B) {
	req := numbered(1, start)
	enc := db.EncodeRequest(&req)
	b.SetBytes(int64(len(enc)))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := db.DecodeRecord(enc); err != nil {
			b.Fatal(err)
		}
	}
}
