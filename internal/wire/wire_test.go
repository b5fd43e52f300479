package wire_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/braidobs/braid/internal/wire"
)

// check compares what Fields says of a message with what protowire says.
func check(t *testing.T, m []byte) {
	t.Helper()
	var want []wire.Field
	malformed := false
	for rest := m; len(rest) > 0; {
		num, typ, n := protowire.ConsumeTag(rest)
		if n < 0 || typ == protowire.StartGroupType || typ == protowire.EndGroupType {
			malformed = true
			break
		}
		f := wire.Field{Num: uint64(num), Type: wire.Type(typ)}
		rest = rest[n:]
		var b []byte
		var v32 uint32
		switch typ {
		case protowire.VarintType:
			f.N, n = protowire.ConsumeVarint(rest)
		case protowire.Fixed32Type:
			v32, n = protowire.ConsumeFixed32(rest)
			f.N = uint64(v32)
		case protowire.Fixed64Type:
			f.N, n = protowire.ConsumeFixed64(rest)
		case protowire.BytesType:
			b, n = protowire.ConsumeBytes(rest)
			f.N, f.S = uint64(len(b)), string(b)
		default:
			n = -1
		}
		if n < 0 {
			malformed = true
			break
		}
		rest = rest[n:]
		want = append(want, f)
	}
	var got []wire.Field
	err := wire.Fields(string(m), func(f wire.Field) error {
		got = append(got, f)
		return nil
	})
	require.Equal(t, malformed, err != nil, "%v", err)
	require.Equal(t, want, got)
}

func TestFields(t *testing.T) {
	var m []byte
	m = protowire.AppendVarint(protowire.AppendTag(m, 1, protowire.VarintType), 1<<63)
	m = protowire.AppendString(protowire.AppendTag(m, 2000, protowire.BytesType), "text")
	m = protowire.AppendFixed32(protowire.AppendTag(m, 3, protowire.Fixed32Type), 7)
	m = protowire.AppendFixed64(protowire.AppendTag(m, 1<<29-1, protowire.Fixed64Type), 8)
	for n := range len(m) + 1 {
		check(t, m[:n])
	}
	require.ErrorIs(t, wire.Fields("\x0b", func(wire.Field) error { return nil }), wire.ErrMalformed, "a group")
}

// FuzzFields: whatever the bytes are, protowire reads the same fields and finds the same mistakes.
func FuzzFields(f *testing.F) {
	f.Add([]byte("\x08\x96\x01\x12\x03abc"))
	f.Add([]byte("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"))
	f.Fuzz(check)
}
