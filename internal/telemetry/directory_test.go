package telemetry_test

import (
	"fmt"
	"math"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unsafe"
	"weak"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/braidobs/braid/internal/telemetry"
)

// res returns a resource with the given keys and values.
func res(pairs ...string) *telemetry.Resource {
	var as []telemetry.Attr
	for i := 0; i < len(pairs); i += 2 {
		as = append(as, str(pairs[i], pairs[i+1]))
	}
	return telemetry.NewResource("", telemetry.NewAttrs(as))
}

// pods describes the pods of a directory: "<ID> <resource>[from,to] ..." with resources by their attribute "r".
func pods(d *telemetry.Directory, q telemetry.Query) []string {
	q.Kind = telemetry.EntityPod
	var out []string
	for _, e := range d.Entities(q) {
		s := e.Key.ID
		var rs []string
		for _, r := range e.Resources {
			rs = append(rs, fmt.Sprintf("%s[%d,%d]", r.Resource.Attrs.Text("r"), r.Start, r.End))
		}
		slices.Sort(rs)
		var sSb36 strings.Builder
		for _, r := range rs {
			sSb36.WriteString(" " + r)
		}
		s += sSb36.String()
		out = append(out, s)
	}
	return out
}

func named(r string) *telemetry.Resource { return res("r", r, "namespace", "ns", "pod", "web-0") }

func withUID(r, uid string) *telemetry.Resource {
	return res("r", r, "k8s.namespace.name", "ns", "k8s.pod.name", "web-0", "k8s.pod.uid", uid)
}

var all = telemetry.Query{Start: math.MinInt64}

func TestPodIdentity(t *testing.T) {
	type seen struct {
		r           *telemetry.Resource
		first, last int64
	}
	tests := []struct {
		name string
		in   []seen
		q    telemetry.Query
		want []string
	}{
		{"a name alone is an identity", []seen{{named("a"), 1, 9}}, all, []string{"c/ns/web-0 a[1,9]"}},
		{"the UID wins over the name", []seen{{named("a"), 1, 9}, {withUID("b", "u1"), 2, 8}}, all, []string{"u1 a[1,9] b[2,8]"}},
		{"evidence that comes late joins what came before", []seen{{named("a"), 1, 3}, {withUID("b", "u1"), 5, 8}}, all, []string{"u1 a[1,3] b[5,8]"}},
		{
			"a name that is used again does not cross",
			[]seen{{withUID("b", "u1"), 10, 20}, {withUID("c", "u2"), 30, 40}, {named("a"), 1, 50}},
			all,
			[]string{"u1 a[1,29] b[10,20]", "u2 a[30,50] c[30,40]"},
		},
		{
			"in whatever order it becomes known",
			[]seen{{named("a"), 1, 50}, {withUID("c", "u2"), 30, 40}, {withUID("b", "u1"), 10, 20}},
			all,
			[]string{"u1 a[1,29] b[10,20]", "u2 a[30,50] c[30,40]"},
		},
		{
			"a record with a UID stays with it whatever the time",
			[]seen{{withUID("b", "u1"), 10, 35}, {withUID("c", "u2"), 30, 40}, {named("a"), 31, 33}},
			all,
			[]string{"u1 b[10,35]", "u2 a[31,33] c[30,40]"},
		},
		{
			"an earlier start that becomes known moves the border",
			[]seen{{withUID("b", "u1"), 10, 20}, {withUID("c", "u2"), 30, 40}, {named("a"), 15, 35}, {withUID("c", "u2"), 25, 26}},
			all,
			[]string{"u1 a[15,24] b[10,20]", "u2 a[25,35] c[25,40]"},
		},
		{"times before the first start belong to it", []seen{{withUID("b", "u1"), 10, 20}, {named("a"), -5, 3}}, all, []string{"u1 a[-5,3] b[10,20]"}},
		{"a UID without a name", []seen{{res("r", "x", "k8s.pod.uid", "u1"), 1, 2}, {withUID("b", "u1"), 5, 6}}, all, []string{"u1 b[5,6] x[1,2]"}},
		{"the default cluster is the one that is named", []seen{{named("a"), 1, 2}, {res("r", "b", "cluster", "c", "namespace", "ns", "pod", "web-0", "pod_uid", "u1"), 1, 2}}, all, []string{"u1 a[1,2] b[1,2]"}},
		{"another cluster is another pod", []seen{{named("a"), 1, 2}, {res("r", "b", "cluster", "d", "namespace", "ns", "pod", "web-0", "pod_uid", "u1"), 1, 2}}, all, []string{"c/ns/web-0 a[1,2]", "u1 b[1,2]"}},
		{"another namespace is another pod", []seen{{named("a"), 1, 2}, {res("r", "b", "namespace", "other", "pod", "web-0"), 1, 2}}, all, []string{"c/ns/web-0 a[1,2]", "c/other/web-0 b[1,2]"}},
		{"no identity joins nothing", []seen{{res("r", "a", "color", "red"), 1, 2}, {nil, 1, 2}}, all, nil},
		{"an empty time is no sighting", []seen{{named("a"), 2, 1}}, all, nil},
		{
			"a time range cuts",
			[]seen{{withUID("b", "u1"), 10, 20}, {withUID("c", "u2"), 30, 40}, {named("a"), 1, 50}},
			telemetry.Query{Start: 12, End: 15},
			[]string{"u1 a[12,15] b[12,15]"},
		},
		{
			"both ends included",
			[]seen{{withUID("b", "u1"), 10, 20}},
			telemetry.Query{Start: 20, End: 25},
			[]string{"u1 b[20,20]"},
		},
		{"outside", []seen{{withUID("b", "u1"), 10, 20}}, telemetry.Query{Start: 21, End: 25}, nil},
		{"without end", []seen{{withUID("b", "u1"), 10, 20}}, telemetry.Query{Start: 20}, []string{"u1 b[20,20]"}},
		{"by pod name", []seen{{withUID("b", "u1"), 1, 2}}, telemetry.Query{Name: "web-0"}, []string{"u1 b[1,2]"}},
		{"by namespace and name", []seen{{withUID("b", "u1"), 1, 2}}, telemetry.Query{Name: "ns/web-0"}, []string{"u1 b[1,2]"}},
		{"by cluster, namespace and name", []seen{{withUID("b", "u1"), 1, 2}}, telemetry.Query{Name: "c/ns/web-0"}, []string{"u1 b[1,2]"}},
		{"by UID", []seen{{withUID("b", "u1"), 1, 2}}, telemetry.Query{Name: "u1"}, []string{"u1 b[1,2]"}},
		{"by another name", []seen{{withUID("b", "u1"), 1, 2}}, telemetry.Query{Name: "web-1"}, nil},
		{"by resource", []seen{{withUID("b", "u1"), 1, 2}, {named("a"), 1, 2}}, telemetry.Query{Resources: []telemetry.ResourceID{named("a").ID, {9}}}, []string{"u1 a[1,2]"}},
		{"by no resource", []seen{{withUID("b", "u1"), 1, 2}}, telemetry.Query{Resources: []telemetry.ResourceID{}}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := telemetry.NewDirectory("c", 100)
			for _, s := range tt.in {
				d.Observe(s.r, s.first, s.last)
			}
			require.Equal(t, tt.want, pods(d, tt.q))
		})
	}
}

func TestEntitiesOfOneContainer(t *testing.T) {
	d := telemetry.NewDirectory("c", 100)
	d.Observe(res("service.name", "shop", "service.namespace", "eu", "service.instance.id", "i-1", "k8s.pod.uid", "u1", "k8s.pod.name", "shop-1", "k8s.namespace.name", "ns", "k8s.container.name", "app", "host.name", "node-1"), 1, 9)
	d.Observe(res("namespace", "ns", "pod", "shop-1", "container", "app"), 1, 9)
	es := d.Entities(all)
	var keys []string
	for _, e := range es {
		keys = append(keys, e.Key.String())
	}
	require.Equal(t, []string{"container:u1/app", "host:node-1", "instance:eu/shop/i-1", "pod:u1", "service:eu/shop"}, keys)
	require.Len(t, es[0].Resources, 2, "the tailed log, the spans and cAdvisor's series are one container")
	require.Equal(t, telemetry.PodKey{Cluster: "c", Namespace: "ns", Name: "shop-1"}, es[0].Pod)
	require.Equal(t, "node-1", es[0].Identity.Host)
	require.Len(t, es[4].Resources, 1)
	for name, want := range map[string]string{"app": "container", "shop-1/app": "container", "ns/shop-1/app": "container", "i-1": "instance", "shop": "service", "eu/shop": "service", "node-1": "host"} {
		found := d.Entities(telemetry.Query{Name: name})
		require.Len(t, found, 1, name)
		require.Equal(t, telemetry.EntityKind(want), found[0].Key.Kind)
	}
}

func TestForget(t *testing.T) {
	d := telemetry.NewDirectory("c", 100)
	empty := d.Size()
	d.Observe(withUID("b", "u1"), 10, 20)
	d.Observe(withUID("c", "u2"), 30, 40)
	d.Observe(named("a"), 1, 50)
	d.Forget(25)
	require.Equal(t, []string{"u2 a[1,50] c[30,40]"}, pods(d, all))
	require.Equal(t, 2, d.Len())
	d.Forget(51)
	require.Empty(t, pods(d, all))
	require.Zero(t, d.Len())
	require.Equal(t, empty, d.Size(), "memory is accounted")
}

func TestDirectoryIsBounded(t *testing.T) {
	d := telemetry.NewDirectory("c", 2)
	for i := range 5 {
		d.Observe(res("r", strconv.Itoa(i), "pod", "p"+strconv.Itoa(i)), 1, 2)
	}
	require.Equal(t, []string{"c//p0 0[1,2]", "c//p1 1[1,2]"}, pods(d, all))
	d.Observe(res("r", "0", "pod", "p0"), 5, 9)
	require.Equal(t, []string{"c//p0 0[1,9]", "c//p1 1[1,2]"}, pods(d, all), "what is known goes on")
}

// TestDirectoryProperties observes in random order and requires that the order does not matter, that the intervals
// of pods with one name do not overlap, and that a snapshot holds everything.
func TestDirectoryProperties(t *testing.T) {
	type seen struct {
		r           *telemetry.Resource
		first, last int64
	}
	rapid.Check(t, func(t *rapid.T) {
		var in []seen
		for range rapid.IntRange(1, 12).Draw(t, "n") {
			first := rapid.Int64Range(-50, 50).Draw(t, "first")
			s := seen{first: first, last: first + rapid.Int64Range(0, 20).Draw(t, "length")}
			id := strconv.Itoa(rapid.IntRange(0, 3).Draw(t, "r"))
			if rapid.Bool().Draw(t, "uid") {
				s.r = withUID("u"+id, "u"+id)
			} else {
				s.r = named("n" + id)
			}
			in = append(in, s)
		}
		a, b := telemetry.NewDirectory("c", 100), telemetry.NewDirectory("c", 100)
		for _, s := range in {
			a.Observe(s.r, s.first, s.last)
		}
		for _, i := range rapid.Permutation(indexes(len(in))).Draw(t, "order") {
			b.Observe(in[i].r, in[i].first, in[i].last)
		}
		require.Equal(t, pods(a, all), pods(b, all))

		covered := make(map[string][][2]int64) // of named resources
		for _, e := range a.Entities(all) {
			for _, r := range e.Resources {
				if e.Key.Kind == telemetry.EntityPod && r.Resource.Attrs.Text("k8s.pod.uid") == "" {
					for _, o := range covered[r.Resource.ID.String()] {
						require.True(t, r.End < o[0] || r.Start > o[1], "a name is two pods at a time")
					}
					covered[r.Resource.ID.String()] = append(covered[r.Resource.ID.String()], [2]int64{r.Start, r.End})
				}
			}
		}

		enc := a.AppendTo(nil)
		c := telemetry.NewDirectory("c", 100)
		d := telemetry.NewDecoderBytes(enc)
		require.NoError(t, c.Load(d))
		require.Zero(t, d.Len())
		require.Equal(t, pods(a, all), pods(c, all))
		require.Equal(t, enc, c.AppendTo(nil))
		require.Equal(t, a.Size(), c.Size())
	})
}

func indexes(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	return out
}

func TestLoadRefusesNonsense(t *testing.T) {
	d := telemetry.NewDirectory("c", 100)
	require.ErrorIs(t, d.Load(telemetry.NewDecoder("\xff\xff\x01")), telemetry.ErrDecode)
	require.ErrorIs(t, d.Load(telemetry.NewDecoder("\x01\x00\x05\x00")), telemetry.ErrDecode)
	require.Zero(t, d.Len())
}

func BenchmarkObserveKnown(b *testing.B) {
	d := telemetry.NewDirectory("c", 100)
	r := withUID("a", "u1")
	d.Observe(r, 0, math.MaxInt64)
	b.ReportAllocs()
	for b.Loop() {
		d.Observe(r, 5, 10)
	}
}

// A resource that is seen for the first time comes with the memory of its request, which must not stay for it.
func TestObserveKeepsNothing(t *testing.T) {
	d := telemetry.NewDirectory("c", 100)
	body := func() weak.Pointer[byte] {
		body := strings.Repeat("0123456789", 1000)
		attrs := []telemetry.Attr{{Key: "k8s.pod.name", Value: telemetry.String(body[:10])}, {Key: "k8s.pod.uid", Value: telemetry.String(body[10:25])}, {Key: body[3:9], Value: telemetry.Int(7)}}
		r := telemetry.NewResource(body[2:12], telemetry.NewAttrs(attrs))
		require.Equal(t, r, r.Clone())
		d.Observe(r, 1, 2)
		return weak.Make(unsafe.StringData(body))
	}()
	runtime.GC()
	require.Nil(t, body.Value())
	require.Equal(t, 1, d.Len())
}
