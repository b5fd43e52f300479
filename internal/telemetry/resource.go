package telemetry

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
)

// Tenant is the name of an isolated user of one store: 1 to 64 characters of [A-Za-z0-9_-].
type Tenant string

const (
	// DefaultTenant is the tenant of requests that name none.
	DefaultTenant Tenant = "default"
	// SelfTenant holds Braid's own traces and logs.
	SelfTenant Tenant = "_self"
)

// Valid says whether t is a legal name.
func (t Tenant) Valid() bool {
	if len(t) == 0 || len(t) > 64 {
		return false
	}
	for i := range len(t) {
		c := t[i]
		if c != '_' && c != '-' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return false
		}
	}
	return true
}

// ResourceID is a hash (SHA-256, truncated) of the exact attribute set a record came with and of its schema
// URL. Two sets that differ in anything are two resources.
type ResourceID [16]byte

// String returns the ID in hexadecimal.
func (id ResourceID) String() string { return hex.EncodeToString(id[:]) }

// Resource is what OTLP calls a resource: immutable, shared by the records that came with it.
type Resource struct {
	ID        ResourceID
	SchemaURL string
	Attrs     Attrs // sorted, unique, as sent
	Dropped   uint32
}

// NewResource returns the resource with the given attributes, which it keeps.
func NewResource(schemaURL string, attrs Attrs) *Resource {
	r := &Resource{SchemaURL: schemaURL, Attrs: attrs}
	h := sha256.Sum256(AppendResource(nil, r))
	copy(r.ID[:], h[:])
	return r
}

// Clone returns a copy that shares no memory with r, whose texts mostly lie in that of a whole request.
func (r *Resource) Clone() *Resource {
	var b strings.Builder
	n := len(r.SchemaURL)
	for i := range r.Attrs {
		n += len(r.Attrs[i].Key) + len(r.Attrs[i].Value.str)
	}
	b.Grow(n)
	text := func(s string) string {
		from := b.Len()
		b.WriteString(s)
		return b.String()[from:]
	}
	c := &Resource{ID: r.ID, SchemaURL: text(r.SchemaURL), Attrs: slices.Clone(r.Attrs), Dropped: r.Dropped}
	for i := range c.Attrs {
		a := &c.Attrs[i]
		a.Key, a.Value.str = text(a.Key), text(a.Value.str)
	}
	return c
}

// AppendResource appends schema URL and attributes; the ID is computed again when it is read.
func AppendResource(dst []byte, r *Resource) []byte {
	dst = AppendString(dst, r.SchemaURL)
	return AppendAttrs(dst, r.Attrs)
}

// Resource reads what AppendResource wrote.
func (d *Decoder) Resource() *Resource {
	url := d.Str()
	attrs := d.Attrs()
	if d.err != nil {
		return nil
	}
	return NewResource(url, attrs)
}

// Scope is the instrumentation scope of a record: immutable and shared. A nil scope is an empty one.
type Scope struct {
	Name, Version, SchemaURL string
	Attrs                    Attrs
	Dropped                  uint32
}

// AppendScope appends s; nil is written like an empty scope.
func AppendScope(dst []byte, s *Scope) []byte {
	if s == nil {
		s = &Scope{}
	}
	dst = AppendString(dst, s.Name)
	dst = AppendString(dst, s.Version)
	dst = AppendString(dst, s.SchemaURL)
	dst = AppendAttrs(dst, s.Attrs)
	return AppendUvarint(dst, uint64(s.Dropped))
}

// Scope reads what AppendScope wrote.
func (d *Decoder) Scope() *Scope {
	return &Scope{Name: d.Str(), Version: d.Str(), SchemaURL: d.Str(), Attrs: d.Attrs(), Dropped: uint32(d.Uvarint())}
}
