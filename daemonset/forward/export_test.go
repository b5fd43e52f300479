package forward

// The format of the queue alone.
var (
	AppendRequest = appendRequest
	DecodeRequest = decodeRequest
)
