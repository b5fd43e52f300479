// Package telemetry is Braid's model of the three signals: resources exactly as they were sent, spans, log
// records and series, the batch that carries them, and the identity of what produced them.
//
// It is a leaf: it imports nothing of Braid, so that every other package may speak in its types. Values are
// immutable once they are handed on; a batch belongs to whoever was handed it last.
//
// Times are Unix nanoseconds (int64, UTC) for spans and logs and Unix milliseconds for samples.
package telemetry
