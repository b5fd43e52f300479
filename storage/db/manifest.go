package db

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"
	"time"

	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/storage"
)

// chain is a sequence of flushes: one per signal, and one for the state that is folded from all records.
type chain uint8

const (
	chainMeta    chain = 0
	chainMetrics       = chain(storage.Metrics)
	chainLogs          = chain(storage.Logs)
	chainTraces        = chain(storage.Traces)
)

func chains() []chain { return []chain{chainMeta, chainMetrics, chainLogs, chainTraces} }

func signals() []storage.Signal {
	return []storage.Signal{storage.Metrics, storage.Logs, storage.Traces}
}

func (c chain) String() string {
	if c == chainMeta {
		return "meta"
	}
	return storage.Signal(c).String()
}

// partMeta describes a part in the manifests.
type partMeta struct {
	Name   string           `json:"name"` // of the blob
	Signal storage.Signal   `json:"signal"`
	Tenant telemetry.Tenant `json:"tenant"`
	Day    int64            `json:"day"`  // days since 1970-01-01 UTC
	From   storage.Position `json:"from"` // its records lie in [from, to) of the log
	To     storage.Position `json:"to"`
	Lo     int64            `json:"lo"` // smallest and largest time, in the unit of the signal
	Hi     int64            `json:"hi"`
	Rows   int64            `json:"rows"`
	Bytes  int64            `json:"bytes"`
	Raw    int64            `json:"raw"`             // estimate of the size in memory
	Mask   uint64           `json:"mask"`            // the last delete applied to it
	Index  int64            `json:"index,omitempty"` // metrics: bytes of the labels
}

func (p *partMeta) partition() partition {
	return partition{signal: p.Signal, tenant: p.Tenant, day: p.Day}
}

// partition is the unit of retention: a tenant's day of a signal.
type partition struct {
	signal storage.Signal
	tenant telemetry.Tenant
	day    int64
}

// path is the folder of the partition below "parts" and "changes".
func (p partition) path() string {
	return p.signal.String() + "/" + string(p.tenant) + "/" + time.Unix(p.day*86400, 0).UTC().Format("20060102")
}

// flushManifest commits a flush: everything of a chain in [From, To).
type flushManifest struct {
	Shard    uint32           `json:"shard"`
	Chain    string           `json:"chain"`
	From     storage.Position `json:"from"`
	To       storage.Position `json:"to"`
	Parts    []partMeta       `json:"parts,omitempty"`
	Snapshot string           `json:"snapshot,omitempty"` // chain meta: the blob with the state at To
	Time     time.Time        `json:"time"`
}

// changeManifest replaces parts of one partition by others. It is void unless all its inputs are live.
type changeManifest struct {
	Number  uint64     `json:"number"`
	Why     string     `json:"why"` // merge, delete, retention
	Inputs  []string   `json:"inputs"`
	Outputs []partMeta `json:"outputs,omitempty"`
	Masks   []uint64   `json:"masks,omitempty"` // the deletes applied
	Time    time.Time  `json:"time"`
}

// checkpoint absorbs the flush manifests of a chain before From and the change manifests of its partitions
// that it names.
type checkpoint struct {
	Chain     string              `json:"chain"`
	From      storage.Position    `json:"from"` // of the last flush manifest absorbed
	To        storage.Position    `json:"to"`
	Snapshot  string              `json:"snapshot,omitempty"`
	Parts     []partMeta          `json:"parts,omitempty"`
	Changes   map[string]uint64   `json:"changes,omitempty"` // by partition path: the number of the next change
	Rewritten map[uint64][]string `json:"rewritten,omitempty"`
	Time      time.Time           `json:"time"`
}

const (
	shard            = 1
	maxManifestBytes = 64 << 20
	manifestMagic    = "braid-manifest 1 "
)

func commitPrefix(c chain) string { return fmt.Sprintf("commits/%08d/%s/", shard, c) }

func commitName(c chain, from storage.Position) string {
	return fmt.Sprintf("%s%020d", commitPrefix(c), from)
}

func changePrefix(p partition) string { return "changes/" + p.path() + "/" }

func changeName(p partition, n uint64) string { return fmt.Sprintf("%s%020d", changePrefix(p), n) }

func checkpointPrefix(c chain) string { return fmt.Sprintf("checkpoints/%s/", c) }

func checkpointName(c chain, from storage.Position) string {
	return fmt.Sprintf("%s%020d", checkpointPrefix(c), from)
}

// encodeManifest writes a line with the version and the CRC32C of the rest, then JSON.
func encodeManifest(v any) ([]byte, error) {
	body, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return nil, fmt.Errorf("encode manifest: %w", err)
	}
	body = append(body, '\n')
	sum := crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli))
	return append(fmt.Appendf(nil, "%s%08x\n", manifestMagic, sum), body...), nil
}

// errManifest is wrapped by every error about the content of a manifest.
var errManifest = errors.New("manifest is corrupt")

func decodeManifest(name string, b []byte, into any) error {
	line, body, ok := bytes.Cut(b, []byte("\n"))
	sum, found := strings.CutPrefix(string(line), manifestMagic)
	if !ok || !found {
		return fmt.Errorf("%w: %s at offset 0: no manifest of version 1 starts like this; restore it from a backup", errManifest, name)
	}
	want, err := strconv.ParseUint(sum, 16, 32)
	if err != nil || uint32(want) != crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli)) {
		return fmt.Errorf("%w: %s at offset %d: the checksum does not match; restore it from a backup", errManifest, name, len(line)+1)
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("%w: %s at offset %d: %w", errManifest, name, len(line)+1, err)
	}
	return nil
}
