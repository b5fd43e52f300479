package columns

import (
	"github.com/braidobs/braid/internal/telemetry"
)

// Limits of what is kept of a key's values.
const (
	foldValues = 64       // with more, a key is no part of tuples
	foldText   = 64 << 10 // bytes
	codeValues = 64 << 10 // with more, a segment has no codes for the values to come
	codeText   = 1 << 20
	maxKeys    = 4096 // of a segment
)

// mode is where the values of a key go in the open page.
type mode uint8

const (
	folded mode = iota // into tuples
	coded              // into a column of codes
	plain              // into a column as they are
)

// key is a key of the open segment.
type key struct {
	id    uint32
	place place
	name  string
	mode  mode

	vals []telemetry.Value // by code
	text int               // bytes of vals
	strs map[string]uint32
	nums map[int64]uint32
	rest map[telemetry.Value]uint32
	last telemetry.Value // with that code, if there are vals
	code uint32
	next *key // came after it last time

	// In the open page:
	n        int // values
	mark     int // len(vals) and text at its beginning
	markText int
	own      []telemetry.Value // if plain
	codes    []uint32          // if coded

	// In the segment:
	tupled    uint64 // pages that have it in tuples
	columned  uint64 // pages that have a column of it
	unindexed uint64 // pages with values that the filter does not know
	anywhere  uint64 // pages with values that are not in vals
	lo, hi    int64  // of integers that are not in vals
}

// of returns the code of a value.
func (k *key) of(v telemetry.Value) uint32 {
	if v == k.last && len(k.vals) > 0 {
		return k.code
	}
	c, ok := uint32(0), false
	switch v.Kind() {
	case telemetry.KindString:
		c, ok = k.strs[v.Str()]
	case telemetry.KindInt:
		c, ok = k.nums[v.Int()]
	default:
		c, ok = k.rest[v]
	}
	if !ok {
		c = uint32(len(k.vals))
		k.vals = append(k.vals, v)
		k.text += v.Size()
		switch v.Kind() {
		case telemetry.KindString:
			if k.strs == nil {
				k.strs = make(map[string]uint32)
			}
			k.strs[v.Str()] = c
		case telemetry.KindInt:
			if k.nums == nil {
				k.nums = make(map[int64]uint32)
			}
			k.nums[v.Int()] = c
		default:
			if k.rest == nil {
				k.rest = make(map[telemetry.Value]uint32)
			}
			k.rest[v] = c
		}
	}
	k.last, k.code = v, c
	return c
}

// rollback forgets the values that came with the open page.
func (k *key) rollback() {
	for _, v := range k.vals[k.mark:] {
		switch v.Kind() {
		case telemetry.KindString:
			delete(k.strs, v.Str())
		case telemetry.KindInt:
			delete(k.nums, v.Int())
		default:
			delete(k.rest, v)
		}
	}
	clear(k.vals[k.mark:])
	k.vals, k.text = k.vals[:k.mark], k.markText
	k.last, k.code = telemetry.Value{}, 0
	if len(k.vals) > 0 {
		k.last = k.vals[0]
	}
}

// decide says where the values of the page go, now that it ends; it is never less than where they went before.
func (k *key) decide() mode {
	fresh := len(k.vals) - k.mark
	switch {
	case k.mode == plain:
		return plain
	case k.place.attr() && k.intsOnly() && len(k.vals) > foldValues:
		return plain
	case k.name == fieldScope && !k.place.attr():
	case len(k.vals) > codeValues || k.text > codeText+len(k.vals)*valueSize:
		return plain
	case len(k.vals) > foldValues && fresh > k.n/2:
		return plain
	}
	if len(k.vals) > foldValues || k.text > foldText+len(k.vals)*valueSize {
		return coded
	}
	return k.mode
}

// valueSize is what telemetry.Value.Size says beside the text.
const valueSize = 32

func (k *key) intsOnly() bool { return len(k.nums) == len(k.vals) }

// keyName is a key as maps have it.
type keyName struct {
	place place
	name  string
}

func (k keyName) family() family { return k.place.family() }

// keys are the keys of the open segment.
type keys struct {
	list   []*key
	byName [linkAttr + 1]map[string]*key
}

// after is get for a key that follows another one in an item: mostly the one that did so before.
func (ks *keys) after(last *key, p place, name string) *key {
	if k := last.next; k != nil && k.name == name && k.place == p {
		return k
	}
	last.next = ks.get(p, name)
	return last.next
}

func (ks *keys) get(p place, name string) *key {
	if k := ks.byName[p][name]; k != nil {
		return k
	}
	if ks.byName[p] == nil {
		ks.byName[p] = make(map[string]*key)
	}
	k := &key{id: uint32(len(ks.list)), place: p, name: name}
	ks.list = append(ks.list, k)
	ks.byName[p][name] = k
	return k
}
