// Package watch tells which directories have changed, by the kernel's own events (inotify).
package watch

// Event is a change in a watched directory.
type Event struct {
	WD       int // what Add returned
	Name     string
	Modify   bool // the content of Name changed; otherwise a name came or went
	Gone     bool // the watch has ended
	Overflow bool // events are missing
}
