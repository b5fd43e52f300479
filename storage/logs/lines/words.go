package lines

// Words is what a block has for the word index.
type Words struct {
	templates []uint32
}

func (w *Words) reset() { w.templates = w.templates[:0] }

func (w *Words) template(n uint32) { w.templates = append(w.templates, n) }

func (w *Words) column(byte, []string) {}
