// Package columns is spans at rest: segments, each of whole traces as columns with the dictionaries and the index that they
// need, so that a merge copies them byte for byte.
//
// A segment is cut into pages of some thousand rows. What repeats from span to span (name, kind, status, the attributes with
// few values) is a tuple of the segment's, and a row has its number alone; what does not has a column of its own in each
// page that is read only when it is asked for. The format is described in docs/format/part.md, section "Traces".
package columns
