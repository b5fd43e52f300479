// Package tail reads the logs of containers and hosts and hands them on until somebody else has them for good.
//
// The unit is the log stream: one container attempt, or one path of a plain host, with all its files, rotated ones
// first. The files are the queue: a position moves when the [Sink] has acknowledged, nothing is written twice, and
// while the sink blocks nothing is read. Files that are rotated away or deleted meanwhile stay open.
//
// # Exactly once
//
// Every record has a position that rises within its (stream, file) and is the same whenever the file is read again.
// After a crash records are sent a second time; a backend that keeps the highest position it has acknowledged of each
// (stream, file), and drops what is at or below it, stores each once. A record in pieces that spans two files belongs
// to the newer. Positions are the offset after the record times two; pieces that never got their end, and losses, have
// the odd number after that.
//
// One case is left: pieces are sent alone after five seconds of silence; when the process dies between the
// acknowledgement and the next second's checkpoint, and the end of the record comes after all, the record is stored
// once more as a whole.
//
// # Which file is which
//
// A file is known by device, inode and the hash of its first line, so it is found again after a rename, after gzip
// (its beginning is inflated) and after a reuse of its inode. Lines of the CRI and of docker begin with a time of
// nanoseconds, which makes the hash unique; the files of plain text may begin alike, so the name that the backend knows
// them by is made of inode, time of birth and the count of truncations as well. When such a file is compressed while
// the process is down, it is taken for the oldest known file of that first line that is missing.
//
// # Goroutines and locks
//
// One goroutine reads the file system's events and one lists directories, keeps files open and writes the checkpoint;
// GOMAXPROCS ones read; each stream with a chunk under way has one that waits in Send. Run waits for all. The lock
// order is Tailer.mu, stream.mu, scheduler.mu; no lock is held during Send.
package tail
