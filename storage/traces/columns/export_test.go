package columns

// TrustAll makes pieces pass whatever their checksums are, for tests that look at what lies behind them.
func (p *Part) TrustAll() { p.whole = func([]byte, uint32) bool { return true } }
