// Package lines is the codec of log lines: a block of lines becomes templates with typed columns of variables, and back.
//
// A part has one Dict of templates. An Encoder splits the lines of one block after the other; what it appends for a block is
// opened again by a Decoder with the templates of the part, which the caller stores as a table of strings (Dict.Templates,
// ParseTemplate). An opened Block decodes a column when it is first asked for, and answers storage.Lines, so that parsers work on
// templates and columns. Contains and Match are the line predicates; Contains looks at texts of templates and at the columns
// that can hold the needle, and rebuilds no line.
//
// Merging splits nothing again: Block.AppendTo copies a block into another part as it is, Encoder.AddFrom adds single rows.
//
// Lines that hold a zero byte, are longer than 64 KiB, or have a template that no other line has are kept whole, as texts.
//
// The format is described in docs/format/lines.md. Everything that is read may be hostile: lengths are checked against what is
// there and against MaxRows and MaxBytes before anything is allocated. There is no checksum here; part files have one.
package lines
