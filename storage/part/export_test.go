package part

// AppendColumn and DecodeColumn are the encodings alone.
var (
	AppendColumn = new(Writer).appendColumn
	DecodeColumn = decodeColumn
)

// Encodings, for tests that require each to be used.
const (
	EncConst, EncVarint, EncDelta, EncDelta2, EncPlain, EncDict, EncXor, EncFloatInts, EncFloatScale = encConst, encVarint, encDelta, encDelta2, encPlain, encDict, encXor, encFloatInts, encFloatScale
)
