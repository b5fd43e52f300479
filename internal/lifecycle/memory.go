package lifecycle

import (
	"math"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
)

// gcPercent is how much garbage the process lets pile up, in percent of what lives. Most of what lives in a store has no
// pointers, so that collections are cheap and memory is what is dear.
const gcPercent = 50

// LimitMemory tells the garbage collector how much memory the process may take: the configured amount, or what the
// control group allows, less a fifth for what lies outside the Go heap. GOMEMLIMIT, which the runtime reads itself,
// goes first. It lets less garbage pile up than Go does by itself, unless GOGC says how much. It returns the limit in bytes, 0 for none.
func LimitMemory(configured int64) int64 {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
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
