//go:build !linux

package tail

import (
	"io/fs"
	"os"
)

// Other systems than Linux have no kubelet; files are told apart by their beginning alone.

func fileNumbers(fs.FileInfo) (dev, ino uint64) { return 0, 0 }

func birth(*os.File) uint64 { return 0 }
