package telemetry

import (
	"cmp"
	"math"
	"slices"
	"sync"
)

// Directory knows one tenant's resources, when each was seen, and which pod had which name when. It resolves
// on every question, so that evidence which comes late (a pod's UID) joins what came before it.
//
// A pod name belongs to the pods seen under it in the order of their starts; each interval ends where the next
// begins, so they never overlap. A resource that carries a UID belongs to that pod whatever its name says.
// Safe for concurrent use.
type Directory struct {
	cluster string
	max     int

	mu        sync.RWMutex // guards all below
	resources map[ResourceID]*sighting
	pods      map[PodKey][]podInterval // ordered by start
	uids      map[string]PodKey
	bytes     int
}

type sighting struct {
	res         *Resource
	identity    Identity
	first, last int64 // nanoseconds
}

type podInterval struct {
	uid         string
	start, seen int64 // nanoseconds: first and last evidence
}

// NewDirectory returns an empty directory. Pods that name no cluster are taken to be in cluster. Of more than
// max resources the later ones join nothing.
func NewDirectory(cluster string, max int) *Directory {
	return &Directory{
		cluster: cluster, max: max, resources: make(map[ResourceID]*sighting),
		pods: make(map[PodKey][]podInterval), uids: make(map[string]PodKey),
	}
}

// Observe notes that records of r lie between first and last (nanoseconds). It keeps a copy of r, unless r tells nothing
// about identity.
func (d *Directory) Observe(r *Resource, first, last int64) {
	if r == nil || first > last {
		return
	}
	d.mu.RLock()
	s, ok := d.resources[r.ID]
	covered := ok && s.first <= first && s.last >= last
	d.mu.RUnlock()
	if covered {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	s, ok = d.resources[r.ID]
	if !ok {
		if len(d.resources) >= d.max || IdentityOf(r.Attrs) == (Identity{}) {
			return
		}
		r = r.Clone()
		s = &sighting{res: r, identity: IdentityOf(r.Attrs), first: first, last: last}
		d.resources[r.ID] = s
		d.bytes += 300 + r.Attrs.Size()
	}
	s.first, s.last = min(s.first, first), max(s.last, last)
	if s.identity.PodUID == "" {
		return
	}
	if key, ok := s.identity.PodKey(d.cluster); ok {
		d.observePod(key, s.identity.PodUID, s.first, s.last)
	}
}

// observePod needs mu.
func (d *Directory) observePod(key PodKey, uid string, first, last int64) {
	d.uids[uid] = key
	list := d.pods[key]
	i := slices.IndexFunc(list, func(p podInterval) bool { return p.uid == uid })
	if i < 0 {
		list = append(list, podInterval{uid: uid, start: first, seen: last})
		d.bytes += 120
	} else {
		list[i].start, list[i].seen = min(list[i].start, first), max(list[i].seen, last)
	}
	slices.SortStableFunc(list, func(a, b podInterval) int {
		return cmp.Or(cmp.Compare(a.start, b.start), cmp.Compare(a.uid, b.uid))
	})
	d.pods[key] = list
}

// Forget drops what was last seen before the given time.
func (d *Directory) Forget(before int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for id, s := range d.resources {
		if s.last < before {
			d.bytes -= 300 + s.res.Attrs.Size()
			delete(d.resources, id)
		}
	}
	for key, list := range d.pods {
		kept := slices.DeleteFunc(list, func(p podInterval) bool {
			if p.seen < before {
				d.bytes -= 120
				delete(d.uids, p.uid)
				return true
			}
			return false
		})
		if len(kept) == 0 {
			delete(d.pods, key)
		} else {
			d.pods[key] = kept
		}
	}
}

// Len returns the number of resources known.
func (d *Directory) Len() int {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return len(d.resources)
}

// Size returns an estimate of the memory held, in bytes.
func (d *Directory) Size() int {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.bytes
}

// ResourceSpan is a resource and the time in which it speaks for an entity, both ends included.
type ResourceSpan struct {
	Resource   *Resource
	Start, End int64 // nanoseconds
}

// Entity is one producer of telemetry and the resources that speak for it.
type Entity struct {
	Key       EntityKey
	Identity  Identity // the fullest that its resources tell; where they differ, what the first one tells
	Pod       PodKey   // for pods and containers
	Resources []ResourceSpan
}

// Query selects entities. Empty fields select everything.
type Query struct {
	Start, End int64 // nanoseconds, both included; End 0 means without end
	Kind       EntityKind
	Name       string // any alias: see EntityKey
	Resources  []ResourceID
}

// Entities returns the entities that q selects, by kind and ID, each with its resources inside the time asked
// for.
func (d *Directory) Entities(q Query) []Entity {
	if q.End == 0 {
		q.End = math.MaxInt64
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	found := make(map[EntityKey]*Entity)
	if q.Resources == nil {
		for _, s := range d.resources {
			d.collect(found, s, &q)
		}
	}
	for _, id := range q.Resources {
		if s, ok := d.resources[id]; ok {
			d.collect(found, s, &q)
		}
	}
	es := make([]Entity, 0, len(found))
	for _, e := range found {
		slices.SortFunc(e.Resources, func(a, b ResourceSpan) int {
			return cmp.Or(slices.Compare(a.Resource.ID[:], b.Resource.ID[:]), cmp.Compare(a.Start, b.Start))
		})
		for i := range e.Resources {
			e.Identity.merge(&d.resources[e.Resources[i].Resource.ID].identity)
		}
		es = append(es, *e)
	}
	slices.SortFunc(es, func(a, b Entity) int {
		return cmp.Or(cmp.Compare(a.Key.Kind, b.Key.Kind), cmp.Compare(a.Key.ID, b.Key.ID))
	})
	return es
}

// collect needs mu for reading.
func (d *Directory) collect(found map[EntityKey]*Entity, s *sighting, q *Query) {
	for _, o := range d.owners(s) {
		from, to := max(o.start, s.first, q.Start), min(o.end, s.last, q.End)
		if from > to {
			continue
		}
		for _, k := range s.identity.keys(o.pod) {
			if q.Kind != "" && q.Kind != k.Kind || q.Name != "" && !s.identity.Named(k, o.key, q.Name) {
				continue
			}
			e := found[k]
			if e == nil {
				e = &Entity{Key: k}
				if k.Kind == EntityPod || k.Kind == EntityContainer {
					e.Pod = o.key
				}
				found[k] = e
			}
			e.Resources = append(e.Resources, ResourceSpan{Resource: s.res, Start: from, End: to})
		}
	}
}

// merge fills what id does not know from o.
func (id *Identity) merge(o *Identity) {
	for _, p := range [][2]*string{
		{&id.Cluster, &o.Cluster},
		{&id.Namespace, &o.Namespace},
		{&id.Pod, &o.Pod},
		{&id.PodUID, &o.PodUID},
		{&id.Container, &o.Container},
		{&id.Service, &o.Service},
		{&id.ServiceNamespace, &o.ServiceNamespace},
		{&id.Instance, &o.Instance},
		{&id.Host, &o.Host},
	} {
		if *p[0] == "" {
			*p[0] = *p[1]
		}
	}
}

// owner is the pod behind a resource during a time.
type owner struct {
	pod        string // the ID of its entity, "" without one
	key        PodKey
	start, end int64
}

// owners returns the pods behind s, one after another in time. It needs mu for reading.
func (d *Directory) owners(s *sighting) []owner {
	key, named := s.identity.PodKey(d.cluster)
	if uid := s.identity.PodUID; uid != "" {
		if !named {
			key = d.uids[uid]
		}
		return []owner{{pod: uid, key: key, start: math.MinInt64, end: math.MaxInt64}}
	}
	if !named {
		return []owner{{start: math.MinInt64, end: math.MaxInt64}}
	}
	list := d.pods[key]
	if len(list) == 0 {
		return []owner{{pod: key.String(), key: key, start: math.MinInt64, end: math.MaxInt64}}
	}
	os := make([]owner, len(list))
	for i := range list {
		os[i] = owner{pod: list[i].uid, key: key, start: list[i].start, end: math.MaxInt64}
		if i == 0 {
			os[i].start = math.MinInt64 // what came before the first UID was known is its pod's
		} else {
			os[i-1].end = list[i].start - 1
		}
	}
	return os
}

// AppendTo appends the directory's content for a snapshot.
func (d *Directory) AppendTo(dst []byte) []byte {
	d.mu.RLock()
	defer d.mu.RUnlock()
	ids := make([]ResourceID, 0, len(d.resources))
	for id := range d.resources {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b ResourceID) int { return slices.Compare(a[:], b[:]) })
	dst = AppendUvarint(dst, uint64(len(ids)))
	for _, id := range ids {
		s := d.resources[id]
		dst = AppendResource(dst, s.res)
		dst = AppendVarint(dst, s.first)
		dst = AppendUvarint(dst, uint64(s.last-s.first))
	}
	return dst
}

// Load observes everything that AppendTo wrote.
func (d *Directory) Load(in *Decoder) error {
	for range in.Count(4) {
		r := in.Resource()
		first := in.Varint()
		last := first + int64(in.Uvarint())
		if in.err != nil {
			break
		}
		d.Observe(r, first, last)
	}
	return in.Err()
}
