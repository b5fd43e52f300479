package logs

import (
	"github.com/braidobs/braid/storage"
	"github.com/braidobs/braid/storage/logs/lines"
)

// split returns the bodies of rows of a head as Lines.
func split(dec *lines.Decoder, rows []headRow) (*storage.Lines, error) {
	dict := lines.NewDict()
	enc := lines.NewEncoder(dict)
	times := make([]int64, len(rows))
	for i, r := range rows {
		times[i] = r.rec.Time
		enc.Add(r.rec.Body.Text(), r.rec.Time)
	}
	b := enc.Append(nil)
	ss := dict.Templates()
	templates := make([]*storage.Template, len(ss))
	for i, s := range ss {
		var err error
		if templates[i], err = lines.ParseTemplate(s); err != nil {
			return nil, err
		}
	}
	blk, err := dec.Open(b, templates, func() ([]int64, error) { return times, nil })
	if err != nil {
		return nil, err
	}
	return blk.Lines(nil), nil
}
