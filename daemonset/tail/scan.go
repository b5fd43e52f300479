package tail

import (
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/braidobs/braid/daemonset/tail/watch"
)

// dirKind is what a watched directory has in it.
type dirKind uint8

const (
	podsRoot   dirKind = iota // directories of pods
	podFiles                  // directories of containers
	containers                // logs of one container
	linked                    // files that links of a container's directory point to
	plain                     // files of sources
)

// watched is a directory of interest.
type watched struct {
	kind dirKind
	path string
	wd   int      // -1 when it could not be watched
	for_ []string // linked: the containers' directories that point here
}

// scanner finds the files of streams. Except for request and the reading of events, it is for one goroutine.
type scanner struct {
	t       *Tailer
	watcher *watch.Watcher // nil when there are no events
	dirs    map[string]*watched
	byWD    map[int]*watched
	byDir   map[string]map[StreamKey]*stream // streams by the directory of their live file
	denied  bool                             // a directory could not be watched

	mu     sync.Mutex // guards all below
	events map[dirEvent]struct{}
	lost   bool
	asked  map[string]struct{} // directories of streams
	notify chan struct{}
}

type dirEvent struct {
	wd     int
	name   string
	modify bool
	gone   bool
}

func newScanner(t *Tailer) *scanner {
	return &scanner{
		t: t, dirs: map[string]*watched{}, byWD: map[int]*watched{}, byDir: map[string]map[StreamKey]*stream{},
		events: map[dirEvent]struct{}{}, asked: map[string]struct{}{}, notify: make(chan struct{}, 1),
	}
}

// discover lists directories, keeps files open and writes the checkpoint until ctx ends.
func (t *Tailer) discover(ctx context.Context, g *errgroup.Group) error {
	sc := t.scanner
	interval := t.cfg.RescanInterval.Std()
	w, err := watch.New()
	if err != nil {
		t.metrics.watchErrors.Inc()
		interval = min(interval, t.timing.poll)
		t.deps.Log.Warn("directories of logs cannot be watched: they are listed instead", "interval", interval, "err", err)
	} else {
		sc.watcher = w
		defer func() { _ = w.Close() }() // ends readEvents
		g.Go(func() error { sc.readEvents(ctx); return nil })
	}
	sc.full()
	sc.gone()
	t.first = false
	tick := time.NewTicker(t.timing.tick)
	defer tick.Stop()
	rescan := time.NewTimer(jitter(interval))
	defer rescan.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-sc.notify:
			sc.handle()
		case <-rescan.C:
			sc.full()
			rescan.Reset(jitter(interval))
		case <-tick.C:
			t.look()
			t.checkpoint()
		}
	}
}

func jitter(d time.Duration) time.Duration {
	return d - d/10 + time.Duration(rand.Int64N(int64(d/5)+1))
}

// readEvents collects events until the watcher is closed. It pauses after each read, so that the kernel merges what
// comes in bursts.
func (sc *scanner) readEvents(ctx context.Context) {
	buf := make([]byte, 64<<10)
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-pause.C:
		}
		err := sc.watcher.Read(buf, func(e watch.Event) {
			sc.mu.Lock()
			defer sc.mu.Unlock()
			if e.Overflow {
				sc.lost = true
				return
			}
			sc.events[dirEvent{wd: e.WD, name: e.Name, modify: e.Modify, gone: e.Gone}] = struct{}{}
		})
		if err != nil {
			return
		}
		sc.ping()
		pause.Reset(sc.t.timing.coalesce)
	}
}

func (sc *scanner) ping() {
	select {
	case sc.notify <- struct{}{}:
	default:
	}
}

// request asks for the directory of a stream to be listed.
func (sc *scanner) request(s *stream) {
	sc.mu.Lock()
	sc.asked[s.dir] = struct{}{}
	sc.mu.Unlock()
	sc.ping()
}

// handle does what events ask for.
func (sc *scanner) handle() {
	sc.mu.Lock()
	events, lost, asked := sc.events, sc.lost, sc.asked
	sc.events, sc.lost, sc.asked = map[dirEvent]struct{}{}, false, map[string]struct{}{}
	sc.mu.Unlock()
	if lost {
		sc.t.metrics.overflows.Inc()
		sc.full()
		return
	}
	list := map[string]struct{}{} // directories that changed
	for e := range events {
		d := sc.byWD[e.wd]
		if d == nil {
			continue
		}
		if e.modify {
			sc.modified(d, e.name)
			continue
		}
		if e.gone {
			delete(sc.byWD, e.wd)
			delete(sc.dirs, d.path)
		}
		if !e.gone && d.kind == podsRoot {
			list[filepath.Join(d.path, e.name)] = struct{}{}
			continue
		}
		list[d.path] = struct{}{}
		for _, dir := range d.for_ {
			list[dir] = struct{}{}
		}
	}
	for dir := range asked {
		list[dir] = struct{}{}
	}
	for dir := range list {
		sc.list(dir)
	}
}

// modified wakes the streams that a file whose content changed may belong to.
func (sc *scanner) modified(d *watched, name string) {
	wake := func(dir string, fits func(*stream) bool) {
		for _, s := range sc.byDir[dir] {
			if fits(s) {
				sc.t.sched.wake(s)
			}
		}
	}
	wake(d.path, func(s *stream) bool { return strings.HasPrefix(name, s.live) })
	for _, dir := range d.for_ {
		wake(dir, func(*stream) bool { return true })
	}
}

// list looks at one directory again, by its place.
func (sc *scanner) list(dir string) {
	root := sc.t.cfg.PodsDir
	if root != "" {
		switch rel, err := filepath.Rel(root, dir); {
		case err != nil:
		case rel == ".":
			sc.root()
			return
		case !strings.HasPrefix(rel, ".."):
			switch strings.Count(rel, string(filepath.Separator)) {
			case 0:
				sc.pod(rel)
			case 1:
				sc.container(filepath.Dir(rel), filepath.Base(rel))
			}
			return
		}
	}
	if d := sc.dirs[dir]; d != nil && d.kind == linked {
		for _, c := range d.for_ {
			sc.list(c)
		}
		return
	}
	sc.sources()
}

// full lists everything and asks anew which streams are to be skipped.
func (sc *scanner) full() {
	for _, s := range sc.t.all() {
		if sc.t.deps.Skip(s.key) && !sc.t.sched.busy(s) {
			sc.drop(s)
		}
	}
	sc.root()
	sc.sources()
}

// drop ends the reading of a stream that is to be skipped; the checkpoint keeps where it was.
func (sc *scanner) drop(s *stream) {
	sc.t.save(s)
	s.mu.Lock()
	sc.t.known[s.key] = s.state()
	s.mu.Unlock()
	s.close()
	sc.t.mu.Lock()
	delete(sc.t.streams, s.key)
	sc.t.mu.Unlock()
	delete(sc.byDir[s.dir], s.key)
}

// root lists the pods.
func (sc *scanner) root() {
	t := sc.t
	dir := t.cfg.PodsDir
	if dir == "" {
		t.setNotReady("")
		return
	}
	sc.watch(dir, podsRoot)
	names, err := readDir(dir)
	if err != nil {
		t.setNotReady("pods_dir cannot be listed: " + err.Error())
		return
	}
	present := map[string]bool{}
	for _, name := range names {
		present[filepath.Join(dir, name)] = true
		sc.pod(name)
	}
	sc.vanished(present, 1)
	t.setNotReady("")
}

// vanished refreshes streams of pods whose directory, up levels above that of their files, is not present.
func (sc *scanner) vanished(present map[string]bool, up int) {
	for dir, streams := range sc.byDir {
		above := dir
		for range up {
			above = filepath.Dir(above)
		}
		if present[above] {
			continue
		}
		for _, s := range streams {
			if s.key.Path == "" {
				s.refresh(nil, time.Time{})
				sc.t.sched.wake(s)
			}
		}
		sc.prune(dir)
	}
}

// prune forgets the directory when no stream is left in it.
func (sc *scanner) prune(dir string) {
	sc.t.mu.Lock()
	defer sc.t.mu.Unlock()
	for key, s := range sc.byDir[dir] {
		if sc.t.streams[key] != s {
			delete(sc.byDir[dir], key)
		}
	}
	if len(sc.byDir[dir]) == 0 {
		delete(sc.byDir, dir)
	}
}

func readDir(dir string) ([]string, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	names, err := f.Readdirnames(-1)
	return names, errors.Join(err, f.Close())
}

// pod lists the containers of a pod.
func (sc *scanner) pod(name string) {
	if _, _, _, ok := podDir(name); !ok {
		return
	}
	dir := filepath.Join(sc.t.cfg.PodsDir, name)
	sc.watch(dir, podFiles)
	names, err := readDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return
	}
	seen := map[string]bool{}
	for _, c := range names {
		seen[filepath.Join(dir, c)] = true
		sc.container(name, c)
	}
	for d := range sc.byDir { // containers that are gone
		if filepath.Dir(d) == dir && !seen[d] {
			sc.container(name, filepath.Base(d))
		}
	}
}

// container lists the logs of a container.
func (sc *scanner) container(pod, name string) {
	ns, podName, uid, ok := podDir(pod)
	if !ok {
		return
	}
	dir := filepath.Join(sc.t.cfg.PodsDir, pod, name)
	sc.watch(dir, containers)
	names, err := readDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return
	}
	lists := map[int][]entry{}
	steady(dir, names, func(names []string) (found []node) {
		clear(lists)
		for _, n := range names {
			i, live, ok := attempt(n)
			if !ok {
				continue
			}
			if rot, ok := rotationOf(live, n); ok && !doubled(n, rot, names) {
				list := sc.follow(dir, filepath.Join(dir, n), rot)
				lists[i] = append(lists[i], list...)
				for _, e := range list {
					found = append(found, e.node())
				}
			}
		}
		return found
	})
	for i, list := range lists {
		key := StreamKey{Namespace: ns, Pod: podName, PodUID: uid, Container: name, Restart: i}
		sc.found(key, dir, fileOf(i), Source{}, list)
	}
	for key, s := range sc.byDir[dir] {
		if _, ok := lists[key.Restart]; !ok {
			s.refresh(nil, time.Time{})
			sc.t.sched.wake(s)
		}
	}
	sc.prune(dir)
}

// node is a file under a name.
type node struct {
	path     string
	dev, ino uint64
}

func (e *entry) node() node { return node{e.path, e.stat.dev, e.stat.ino} }

// steady calls look with the names in dir until it finds the same files under the same names twice: one that is renamed
// or compressed between listing and looking would be missing, and one that took its name be taken for it. The names
// alone do not tell: after a rotation they may be the same.
func steady(dir string, names []string, look func(names []string) []node) {
	const tries = 6
	slices.Sort(names)
	found := look(names)
	for range tries {
		again, err := readDir(dir)
		if err != nil {
			return
		}
		slices.Sort(again)
		now := look(again)
		if slices.Equal(names, again) && slices.Equal(found, now) {
			return
		}
		names, found = again, now
	}
}

// doubled says that a compressed file stands beside the plain one it is made of.
func doubled(name string, rot rotation, names []string) bool {
	return rot.compressed && slices.Contains(names, strings.TrimSuffix(name, gzSuffix))
}

// follow describes the file at path. Where it is a link, the rotated siblings of what it points to belong to it.
func (sc *scanner) follow(dir, path string, rot rotation) []entry {
	fi, err := os.Lstat(path)
	if err != nil {
		return nil
	}
	if fi.Mode()&fs.ModeSymlink == 0 {
		if e, ok := statEntry(path, rot); ok {
			return []entry{e}
		}
		return nil
	}
	target, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil
	}
	behind := filepath.Dir(target)
	sc.watch(behind, linked)
	if d := sc.dirs[behind]; d != nil && !slices.Contains(d.for_, dir) {
		d.for_ = append(d.for_, dir)
	}
	return siblings(behind, filepath.Base(target))
}

// siblings lists a live file and what was rotated away from it.
func siblings(dir, live string) (list []entry) {
	names, err := readDir(dir)
	if err != nil {
		return nil
	}
	steady(dir, names, func(names []string) (found []node) {
		list = list[:0]
		for _, n := range names {
			rot, ok := rotationOf(live, n)
			if !ok || doubled(n, rot, names) {
				continue
			}
			if e, ok := statEntry(filepath.Join(dir, n), rot); ok {
				list = append(list, e)
				found = append(found, e.node())
			}
		}
		return found
	})
	return list
}

// sources lists the files of the host.
func (sc *scanner) sources() {
	for _, src := range sc.t.cfg.Sources {
		lives := map[string]bool{}
		for _, pattern := range src.Include {
			sc.watchPattern(pattern)
			matches, err := filepath.Glob(pattern)
			if err != nil {
				continue // Validate has seen it
			}
			for _, path := range matches {
				if excluded(src.Exclude, path) {
					continue
				}
				if base := filepath.Join(filepath.Dir(path), liveName(filepath.Base(path))); base != path {
					if _, err := os.Stat(base); err == nil || sc.has(base, src) {
						path = base // a rotated sibling
					}
				}
				if fi, err := os.Stat(path); err == nil && !fi.Mode().IsRegular() {
					continue
				}
				lives[path] = true
			}
		}
		for key := range sc.t.known { // the live file may be between two names
			if key.Source == src.Name && key.Path != "" {
				lives[key.Path] = true
			}
		}
		for _, s := range sc.t.all() {
			if s.key.Source == src.Name && s.key.Path != "" {
				lives[s.key.Path] = true
			}
		}
		for path := range lives {
			dir, live := filepath.Split(path)
			dir = filepath.Clean(dir)
			sc.watch(dir, plain)
			sc.found(StreamKey{Path: path, Source: src.Name}, dir, live, src, siblings(dir, live))
			sc.prune(dir)
		}
	}
}

func (sc *scanner) has(path string, src Source) bool {
	key := StreamKey{Path: path, Source: src.Name}
	_, known := sc.t.known[key]
	sc.t.mu.Lock()
	defer sc.t.mu.Unlock()
	return known || sc.t.streams[key] != nil
}

func excluded(patterns []string, path string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		ok, err := filepath.Match(p, path)
		return err == nil && ok
	})
}

// watchPattern watches the directory that the names of a pattern without wildcards in its directory come from.
func (sc *scanner) watchPattern(pattern string) {
	dir := filepath.Dir(pattern)
	for strings.ContainsAny(dir, "*?[\\") {
		dir = filepath.Dir(dir)
	}
	sc.watch(dir, plain)
}

// found refreshes a stream, or begins one. It takes the files in any order.
func (sc *scanner) found(key StreamKey, dir, live string, src Source, list []entry) {
	t := sc.t
	slices.SortStableFunc(list, func(a, b entry) int { return a.rot.older(b.rot) })
	t.mu.Lock()
	s := t.streams[key]
	t.mu.Unlock()
	var skipOld time.Time
	if s == nil {
		if t.deps.Skip(key) {
			return
		}
		st, known := t.known[key]
		if len(list) == 0 && !known {
			return
		}
		s = t.newStream(key, dir, live, src)
		if known {
			s.restore(st)
			delete(t.known, key)
		} else if t.first && t.cfg.MaxAge > 0 {
			skipOld = t.deps.Now().Add(-t.cfg.MaxAge.Std())
		}
		t.mu.Lock()
		t.streams[key] = s
		t.mu.Unlock()
		if sc.byDir[dir] == nil {
			sc.byDir[dir] = map[StreamKey]*stream{}
		}
		sc.byDir[dir][key] = s
	}
	work := s.refresh(list, skipOld)
	if s.wantsScan() {
		sc.request(s)
	}
	if work {
		t.sched.wake(s)
	}
}

func (t *Tailer) newStream(key StreamKey, dir, live string, src Source) *stream {
	return &stream{
		key: key, id: key.String(), source: src, dir: dir, live: live,
		log: t.deps.Log, metrics: t.metrics, partial: t.partial,
		maxRecord: int(t.cfg.MaxRecord), maxOpen: t.cfg.MaxInflight.Bytes(), now: t.deps.Now,
	}
}

// gone begins streams of the checkpoint whose files were not found, so that what is lost is told. Those of sources that
// are not configured any more are forgotten. While pods cannot be listed nothing is known about theirs.
func (sc *scanner) gone() {
	t := sc.t
	for key, st := range t.known {
		switch {
		case t.deps.Skip(key):
		case key.Path != "":
			if !slices.ContainsFunc(t.cfg.Sources, func(s Source) bool { return s.Name == key.Source }) {
				t.store.Delete(st.ID)
				delete(t.known, key)
			}
		case t.Ready() == nil:
			dir := filepath.Join(t.cfg.PodsDir, key.Namespace+"_"+key.Pod+"_"+key.PodUID, key.Container)
			sc.found(key, dir, fileOf(key.Restart), Source{}, nil)
		}
	}
}

// watch asks for the events of a directory.
func (sc *scanner) watch(dir string, kind dirKind) {
	if d := sc.dirs[dir]; sc.watcher == nil || d != nil && d.wd >= 0 {
		return
	}
	wd, err := sc.watcher.Add(dir, kind == containers || kind == linked || kind == plain)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	d := sc.dirs[dir]
	if d == nil {
		d = &watched{kind: kind, path: dir}
		sc.dirs[dir] = d
	}
	d.wd = wd
	if err != nil {
		d.wd = -1
		sc.t.metrics.watchErrors.Inc()
		if !sc.denied {
			sc.t.deps.Log.Warn("a directory of logs cannot be watched: it is listed every rescan_interval", "dir", dir, "err", err)
		}
		sc.denied = true
		return
	}
	sc.byWD[wd] = d
}
