package tail

import "time"

// Hasten makes the tailer look at what waits more often than it does.
func (t *Tailer) Hasten() {
	t.timing = timing{tick: 50 * time.Millisecond, coalesce: 2 * time.Millisecond, poll: 50 * time.Millisecond}
}
