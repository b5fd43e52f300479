package wire

import "encoding/binary"

// AppendMessage appends a field that holds what f appends to what it is given.
func AppendMessage(dst []byte, num int, f func([]byte) []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(num)<<3|uint64(Bytes))
	at := len(dst)
	dst = f(append(dst, 0)) // one byte is kept free for the length; what is longer is moved
	n := len(dst) - at - 1
	if n < 0x80 {
		dst[at] = byte(n)
		return dst
	}
	var length [binary.MaxVarintLen64]byte
	k := binary.PutUvarint(length[:], uint64(n))
	dst = append(dst, length[1:k]...)
	copy(dst[at+k:], dst[at+1:at+1+n])
	copy(dst[at:], length[:k])
	return dst
}

// AppendBytes appends a field of bytes or text, an empty one too.
func AppendBytes[B []byte | string](dst []byte, num int, b B) []byte {
	dst = binary.AppendUvarint(dst, uint64(num)<<3|uint64(Bytes))
	dst = binary.AppendUvarint(dst, uint64(len(b)))
	return append(dst, b...)
}

// AppendText appends a text unless it is empty.
func AppendText(dst []byte, num int, s string) []byte {
	if s == "" {
		return dst
	}
	return AppendBytes(dst, num, s)
}

// AppendNumber appends a number as a varint unless it is zero.
func AppendNumber(dst []byte, num int, n uint64) []byte {
	if n == 0 {
		return dst
	}
	return binary.AppendUvarint(binary.AppendUvarint(dst, uint64(num)<<3|uint64(Varint)), n)
}

// AppendFixed64 appends eight bytes unless they are zero.
func AppendFixed64(dst []byte, num int, n uint64) []byte {
	if n == 0 {
		return dst
	}
	return binary.LittleEndian.AppendUint64(binary.AppendUvarint(dst, uint64(num)<<3|uint64(Fixed64)), n)
}

// AppendFixed32 appends four bytes unless they are zero.
func AppendFixed32(dst []byte, num int, n uint32) []byte {
	if n == 0 {
		return dst
	}
	return binary.LittleEndian.AppendUint32(binary.AppendUvarint(dst, uint64(num)<<3|uint64(Fixed32)), n)
}
