package lifecycle

import (
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
)

// leastGarbage is how many bytes of garbage pile up before a collection, and leastPercent how much of what lives it is
// at least. With a small heap collections are frequent and cost; with a large one, most of which has no pointers in a
// store, they are cheap and memory is what is dear.
const (
	leastGarbage = 48 << 20
	leastPercent = 50
	mostPercent  = 400
)

// collection is garbage whose finalizer runs after each collection.
type collection struct{ _ [16]byte }

// watchCollections decides after each collection when the next one is due.
func watchCollections() {
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	percent := -1
	var next func(*collection)
	next = func(*collection) {
		metrics.Read(live)
		p := mostPercent
		if n := live[0].Value.Uint64(); n > 0 {
			p = int(min(max(100*leastGarbage/n, leastPercent), mostPercent))
		}
		if 10*p < 9*percent || 9*p > 10*percent { // a change stops the process for a moment
			percent = p
			debug.SetGCPercent(p)
		}
		runtime.SetFinalizer(&collection{}, next)
	}
	next(nil)
}

// LimitMemory tells the garbage collector how much memory the process may take: the configured amount, or what the
// control group allows, less a fifth for what lies outside the Go heap. GOMEMLIMIT, which the runtime reads itself,
// goes first. It also decides how much garbage piles up, unless GOGC says it. It returns the limit in bytes, 0 for none.
func LimitMemory(configured int64) int64 {
	if os.Getenv("GOGC") == "" {
		watchCollections()
	}
	if os.Getenv("GOMEMLIMIT") != "" {
		return debug.SetMemoryLimit(-1)
	}
	if configured == 0 {
		configured = groupLimit("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
	}
	if configured == 0 {
		return 0
	}
	limit := configured / 10 * 8
	debug.SetMemoryLimit(limit)
	return limit
}

// groupLimit returns the limit of the process's control group, of version 2 or 1, or 0 for none.
func groupLimit(files ...string) int64 {
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
		if err == nil && n > 0 && n < math.MaxInt64/2 {
			return n
		}
	}
	return 0
}
