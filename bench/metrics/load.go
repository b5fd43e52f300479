package main

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// interval is the time between two scrapes of a pod.
const interval = 15 * time.Second

const (
	seriesOfPod = 133
	handlers    = 4
	bucketsOf   = 15
	resetChance = 2000 // a pod restarts once in so many scrapes
)

// kind is how a series moves.
type kind uint8

const (
	constant  kind = iota
	counter        // whole numbers that rise, and fall to zero with the pod
	seconds        // a counter with fractions
	walk           // a gauge of bytes, in pages
	level          // a gauge of a few
	ratio          // a gauge with three decimals
	bucket         // part of a histogram, see pod.step
	startTime      // moves with restarts alone
)

// family is a metric of every pod.
type family struct {
	name   string
	kind   kind
	value  float64  // the constant, the start or the usual step
	labels []string // the label that tells the series apart, then its values; nil for a single series
}

func families() []family {
	quantiles := []string{"quantile", "0", "0.25", "0.5", "0.75", "1"}
	resources := []string{"resource", "cpu", "memory"}
	return []family{
		{"up", constant, 1, nil},
		{"scrape_duration_seconds", ratio, 0.05, nil},
		{"scrape_samples_scraped", constant, seriesOfPod, nil},
		{"container_cpu_usage_seconds_total", seconds, 2, nil},
		{"container_memory_working_set_bytes", walk, 256 << 20, nil},
		{"container_memory_rss", walk, 200 << 20, nil},
		{"container_network_receive_bytes_total", counter, 40_000, nil},
		{"container_network_transmit_bytes_total", counter, 60_000, nil},
		{"container_network_receive_packets_total", counter, 300, nil},
		{"container_network_transmit_packets_total", counter, 350, nil},
		{"container_network_receive_errors_total", constant, 0, nil},
		{"container_network_transmit_errors_total", constant, 0, nil},
		{"process_cpu_seconds_total", seconds, 1.5, nil},
		{"process_resident_memory_bytes", walk, 210 << 20, nil},
		{"process_virtual_memory_bytes", constant, 1.25 * (1 << 30), nil},
		{"process_open_fds", level, 40, nil},
		{"process_max_fds", constant, 1 << 20, nil},
		{"process_start_time_seconds", startTime, 0, nil},
		{"go_goroutines", level, 120, nil},
		{"go_threads", level, 14, nil},
		{"go_info", constant, 1, []string{"version", "go1.26.5"}},
		{"go_gc_duration_seconds", ratio, 0.001, quantiles},
		{"go_gc_duration_seconds_sum", seconds, 0.002, nil},
		{"go_gc_duration_seconds_count", counter, 2, nil},
		{"go_memstats_alloc_bytes", walk, 80 << 20, nil},
		{"go_memstats_alloc_bytes_total", counter, 5 << 20, nil},
		{"go_memstats_heap_alloc_bytes", walk, 80 << 20, nil},
		{"go_memstats_heap_idle_bytes", walk, 40 << 20, nil},
		{"go_memstats_heap_inuse_bytes", walk, 100 << 20, nil},
		{"go_memstats_heap_objects", level, 500_000, nil},
		{"go_memstats_sys_bytes", constant, 180 << 20, nil},
		{"go_memstats_mallocs_total", counter, 90_000, nil},
		{"go_memstats_frees_total", counter, 90_000, nil},
		{"go_memstats_next_gc_bytes", walk, 120 << 20, nil},
		{"kube_pod_info", constant, 1, []string{"host_network", "false"}},
		{"kube_pod_labels", constant, 1, []string{"label_app", ""}},
		{"kube_pod_status_phase", constant, 0, []string{"phase", "Running", "Pending", "Succeeded", "Failed", "Unknown"}},
		{"kube_pod_container_status_restarts_total", level, 0, nil},
		{"kube_pod_container_resource_requests", constant, 0.25, resources},
		{"kube_pod_container_resource_limits", constant, 2, resources},
		{"kube_pod_created", constant, 1.7e9, nil},
		{"db_pool_connections", level, 8, []string{"state", "idle", "used", "waiting"}},
		{"cache_requests_total", counter, 500, []string{"result", "hit", "miss", "evicted"}},
		{"http_requests_total", counter, 60, nil}, // by handler and code
		{"http_request_duration_seconds_bucket", bucket, 0, nil},
		{"http_request_duration_seconds_sum", bucket, 0, nil},
		{"http_request_duration_seconds_count", bucket, 0, nil},
	}
}

func handlerNames() [handlers]string {
	return [...]string{"/api/cart", "/api/checkout", "/api/search", "/healthz"}
}

func bounds() [bucketsOf]string {
	return [...]string{"0.001", "0.0025", "0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10", "30", "+Inf"}
}

// series is one series of a pod.
type series struct {
	labels []byte // the label fields of a remote write request
	kind   kind
	value  float64
	usual  float64 // what the value is about, or rises by
}

// histogram is what the pod's handler has observed.
type histogram struct {
	counts [bucketsOf]float64 // not cumulative
	sum, n float64
	first  int     // the index of its first series: buckets, sum, count
	rate   float64 // most requests of a scrape
	middle float64 // the bucket that most requests fall into
}

// pod is one target of a scrape: what it is called and where its series stand.
type pod struct {
	series []series
	hists  [handlers]histogram
	rng    *rand.Rand
}

// newPod returns pod number i of a generation. The same numbers and seed give the same pod.
func newPod(seed uint64, i, generation int, start time.Time) *pod {
	p := &pod{rng: rand.New(rand.NewPCG(seed, uint64(i)<<16|uint64(generation)))}
	app := fmt.Sprintf("service-%02d", i%24)
	id := p.rng.Uint64()
	name := fmt.Sprintf("%s-%08x-%05x", app, uint32(id>>32)>>4, uint32(id)&0xfffff)
	node := fmt.Sprintf("ip-10-0-%d-%d.eu-central-1.compute.internal", i%16, i%7)
	base := map[string]string{
		"app": app, "cluster": "production-eu-1", "container": app, "instance": fmt.Sprintf("10.42.%d.%d:8080", i/250, i%250), "job": "kubernetes-pods",
		"namespace": fmt.Sprintf("team-%02d", i%12), "node": node, "pod": name,
	}
	add := func(name string, k kind, value float64, more ...string) {
		p.series = append(p.series, series{labels: labelFields(name, base, more), kind: k, value: value, usual: value})
	}
	for _, f := range families() {
		switch {
		case f.name == "http_requests_total":
			for h, handler := range handlerNames() {
				add(f.name, counter, f.value/float64(h+1), "handler", handler, "code", "200")
				add(f.name, counter, f.value/float64(h+1)/50, "handler", handler, "code", "500")
			}
		case f.name == "http_request_duration_seconds_bucket":
			for h, handler := range handlerNames() {
				p.hists[h] = histogram{first: len(p.series), rate: 60 / float64(h+1), middle: 3 + p.rng.Float64()*5}
				for _, le := range bounds() {
					add(f.name, bucket, 0, "handler", handler, "le", le)
				}
				add("http_request_duration_seconds_sum", bucket, 0, "handler", handler)
				add("http_request_duration_seconds_count", bucket, 0, "handler", handler)
			}
		case f.kind == bucket: // made beside the buckets
		case f.kind == startTime:
			add(f.name, f.kind, float64(start.Unix()))
		case f.name == "kube_pod_labels":
			add(f.name, f.kind, f.value, "label_app", app, "label_team", fmt.Sprintf("team-%02d", i%12), "label_version", fmt.Sprintf("v1.%d.0", i%5))
		case f.name == "kube_pod_status_phase":
			for j, phase := range f.labels[1:] {
				add(f.name, f.kind, float64(btoi(j == 0)), f.labels[0], phase)
			}
		case f.labels == nil:
			add(f.name, f.kind, f.value)
		default:
			for j, v := range f.labels[1:] {
				add(f.name, f.kind, f.value*float64(j+1), f.labels[0], v)
			}
		}
	}
	for i := range p.series { // counters have counted before
		if s := &p.series[i]; s.kind == counter || s.kind == seconds {
			s.value = math.Floor(s.usual * 1000 * p.rng.Float64())
		}
	}
	return p
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// labelFields writes labels in the order of their names.
func labelFields(name string, base map[string]string, more []string) []byte {
	all := map[string]string{"__name__": name}
	maps.Copy(all, base)
	for i := 0; i < len(more); i += 2 {
		all[more[i]] = more[i+1]
	}
	var out []byte
	for _, k := range slices.Sorted(maps.Keys(all)) {
		var l []byte
		l = protowire.AppendString(protowire.AppendTag(l, 1, protowire.BytesType), k)
		l = protowire.AppendString(protowire.AppendTag(l, 2, protowire.BytesType), all[k])
		out = protowire.AppendBytes(protowire.AppendTag(out, 1, protowire.BytesType), l)
	}
	return out
}

// step moves the pod by one scrape, at t.
func (p *pod) step(t time.Time) {
	restart := p.rng.IntN(resetChance) == 0
	for i := range p.series {
		s := &p.series[i]
		switch s.kind {
		case counter:
			s.value += math.Floor(s.usual * (0.5 + p.rng.Float64()))
			if restart {
				s.value = 0
			}
		case seconds:
			s.value = math.Round((s.value+s.usual*p.rng.Float64())*100) / 100
			if restart {
				s.value = 0
			}
		case walk:
			s.value += 4096 * float64(p.rng.IntN(2001)-1000)
			s.value = min(max(s.value, s.usual/2), s.usual*2)
		case level:
			if s.usual > 0 && p.rng.IntN(3) == 0 {
				s.value = max(s.value+float64(p.rng.IntN(7)-3), 0)
			}
		case ratio:
			s.value = math.Round(s.usual*(0.5+p.rng.Float64())*1e6) / 1e6
		case startTime:
			if restart {
				s.value = float64(t.Unix())
			}
		case constant, bucket:
		}
	}
	for h := range p.hists {
		p.observe(&p.hists[h], restart)
	}
}

func (p *pod) observe(h *histogram, restart bool) {
	if restart {
		h.counts, h.sum, h.n = [bucketsOf]float64{}, 0, 0
	}
	for range 1 + p.rng.IntN(int(h.rate)) {
		at := h.middle + p.rng.NormFloat64()*1.7
		i := min(max(int(at), 0), bucketsOf-1)
		h.counts[i]++
		h.sum += 0.001 * math.Exp2(at)
		h.n++
	}
	total := 0.0
	for i, n := range h.counts {
		total += n
		p.series[h.first+i].value = total
	}
	p.series[h.first+bucketsOf].value = math.Round(h.sum*1e9) / 1e9
	p.series[h.first+bucketsOf+1].value = h.n
}

// appendTo appends the pod's series with their samples at t to a remote write request of version 1.0.
func (p *pod) appendTo(dst []byte, t int64) []byte {
	for i := range p.series {
		s := &p.series[i]
		sample := 9 + 1 + protowire.SizeVarint(uint64(t))
		dst = append(dst, 1<<3|2)
		dst = binary.AppendUvarint(dst, uint64(len(s.labels)+2+sample))
		dst = append(dst, s.labels...)
		dst = append(dst, 2<<3|2, byte(sample), 1<<3|1)
		dst = binary.LittleEndian.AppendUint64(dst, math.Float64bits(s.value))
		dst = append(dst, 2<<3)
		dst = binary.AppendUvarint(dst, uint64(t))
	}
	return dst
}

// load says what is written.
type load struct {
	pods        int // at a time
	generations int // how often all pods are replaced, 1 for never
	duration    time.Duration
	end         time.Time // of the last scrape
	seed        uint64
	batch       int // series of a request
	senders     int
}

// scrapes returns how often each pod is scraped.
func (l load) scrapes() int { return int(l.duration / interval) }

// series returns how many series there are in the end.
func (l load) series() int { return l.pods * seriesOfPod * l.generations }

// samples returns how many samples are written.
func (l load) samples() int { return l.pods * seriesOfPod * l.scrapes() }

// at returns the time of scrape n.
func (l load) at(n int) time.Time { return l.end.Add(-time.Duration(l.scrapes()-1-n) * interval) }

// name describes the load in the output.
func (l load) name() string {
	s := strconv.Itoa(l.pods) + " pods, " + strconv.Itoa(l.series()) + " series"
	if l.generations > 1 {
		s += " in " + strconv.Itoa(l.generations) + " generations"
	}
	return s + ", " + l.duration.String() + ", " + strconv.Itoa(l.samples()) + " samples"
}
