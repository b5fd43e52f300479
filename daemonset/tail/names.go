package tail

import (
	"cmp"
	"strconv"
	"strings"
)

const gzSuffix = ".gz"

// rotation is what a name says about a file of a stream: a.log, a.log.20260131-140505, a.log.2.gz, a.log-20260131.
type rotation struct {
	live       bool
	compressed bool
	number     int    // logrotate and docker count up: a higher one is older
	date       string // the kubelet and logrotate's dateext: a higher one is newer
}

// rotationOf says whether name is live itself or a rotated sibling of it.
func rotationOf(live, name string) (rotation, bool) {
	rest, ok := strings.CutPrefix(name, live)
	if !ok {
		return rotation{}, false
	}
	if rest == "" {
		return rotation{live: true}, true
	}
	if rest[0] != '.' && rest[0] != '-' {
		return rotation{}, false
	}
	var r rotation
	rest, r.compressed = strings.CutSuffix(rest[1:], gzSuffix)
	if rest == "" || strings.Trim(rest, "0123456789-_.T:") != "" || rest[0] < '0' || rest[0] > '9' {
		return rotation{}, false
	}
	if n, err := strconv.Atoi(rest); err == nil && len(rest) <= 4 {
		r.number = n
	} else {
		r.date = rest
	}
	return r, true
}

// older orders the files of a stream, the oldest first.
func (r rotation) older(o rotation) int {
	if r.live != o.live {
		if r.live {
			return 1
		}
		return -1
	}
	return cmp.Or(cmp.Compare(o.number, r.number), cmp.Compare(r.date, o.date))
}

// liveName returns the name that a rotated one belongs to, or name itself.
func liveName(name string) string {
	for i := len(name) - 1; i > 0; i-- {
		if name[i] == '.' || name[i] == '-' {
			if _, ok := rotationOf(name[:i], name); ok {
				name = name[:i]
			}
		}
	}
	return name
}

// podDir reads the name of a pod's directory: namespace_pod_uid. The names of Kubernetes hold no underscore.
func podDir(name string) (ns, pod, uid string, ok bool) {
	parts := strings.Split(name, "_")
	if len(parts) != 3 || parts[0] == "" || parts[1] == "" || parts[2] == "" {
		return "", "", "", false
	}
	return parts[0], parts[1], parts[2], true
}

// attempt reads the name of a container's log: 0.log and its rotated siblings are attempt 0.
func attempt(name string) (n int, live string, ok bool) {
	digits, rest, ok := strings.Cut(name, ".")
	if !ok || rest != "log" && !strings.HasPrefix(rest, "log.") {
		return 0, "", false
	}
	n, err := strconv.Atoi(digits)
	if err != nil || n < 0 || strconv.Itoa(n) != digits {
		return 0, "", false
	}
	return n, digits + ".log", true
}

// fileOf is the name of the live log of an attempt.
func fileOf(n int) string { return strconv.Itoa(n) + ".log" }
