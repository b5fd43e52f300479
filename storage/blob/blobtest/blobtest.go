// Package blobtest is the acceptance suite of blob.Store: what the engine relies on, for any implementation.
package blobtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/storage/blob"
)

// Run runs the suite. fresh returns a new, empty store.
func Run(t *testing.T, fresh func(t *testing.T) blob.Store) {
	t.Helper()
	for _, tt := range []struct {
		name string
		run  func(t *testing.T, s blob.Store)
	}{
		{"put and get", putAndGet},
		{"put replaces", replace},
		{"a failed put leaves nothing", failedPut},
		{"put if absent", putIfAbsent},
		{"one of 16 creators wins", race},
		{"open", open},
		{"list", list},
		{"list stops", listStops},
		{"delete", remove},
		{"names", names},
		{"a cancelled context", cancelled},
		{"puts and deletes in one folder", churn},
	} {
		t.Run(tt.name, func(t *testing.T) { tt.run(t, fresh(t)) })
	}
}

// Put puts text as name.
func Put(ctx context.Context, s blob.Store, name, text string) error {
	return s.Put(ctx, name, func(w io.Writer) error {
		_, err := io.WriteString(w, text)
		return err
	})
}

// Names returns the listed names.
func Names(t *testing.T, s blob.Store, prefix string) []string {
	t.Helper()
	out := []string{}
	for info, err := range s.List(t.Context(), prefix) {
		require.NoError(t, err)
		out = append(out, info.Name)
	}
	return out
}

// Get returns the content of name.
func Get(t *testing.T, s blob.Store, name string) string {
	t.Helper()
	b, err := s.Get(t.Context(), name, 1<<30)
	require.NoError(t, err)
	return string(b)
}

func putAndGet(t *testing.T, s blob.Store) {
	t.Helper()
	big := strings.Repeat("0123456789", 100_000)
	for name, text := range map[string]string{"a": "A", "b/c/d/e/f": "F", "b/c/x": "", "b/big": big} {
		require.NoError(t, Put(t.Context(), s, name, text))
		require.Equal(t, text, Get(t, s, name))
	}
	_, err := s.Get(t.Context(), "b/big", int64(len(big))-1)
	require.ErrorIs(t, err, blob.ErrTooBig)
	_, err = s.Get(t.Context(), "b/big", int64(len(big)))
	require.NoError(t, err)
	for _, name := range []string{"nope", "b", "b/c", "b/nope", "nope/nope", "a/nope"} {
		_, err := s.Get(t.Context(), name, 10)
		require.ErrorIs(t, err, blob.ErrNotFound, name)
		require.ErrorContains(t, err, name)
	}
}

func replace(t *testing.T, s blob.Store) {
	t.Helper()
	require.NoError(t, Put(t.Context(), s, "a/b", "a long first content"))
	r, err := s.Open(t.Context(), "a/b")
	require.NoError(t, err)
	require.NoError(t, Put(t.Context(), s, "a/b", "second"))
	require.Equal(t, "second", Get(t, s, "a/b"))
	b := make([]byte, 6)
	_, err = r.ReadAt(b, 2)
	require.NoError(t, err)
	require.Equal(t, "long f", string(b))
	require.NoError(t, r.Close())
}

func failedPut(t *testing.T, s blob.Store) {
	t.Helper()
	boom := errors.New("boom")
	for range 2 {
		err := s.Put(t.Context(), "a/b", func(w io.Writer) error {
			_, err := w.Write(make([]byte, 1<<20))
			require.NoError(t, err)
			require.Empty(t, Names(t, s, ""), "in flight")
			return boom
		})
		require.ErrorIs(t, err, boom)
		_, err = s.Get(t.Context(), "a/b", 1<<30)
		require.ErrorIs(t, err, blob.ErrNotFound)
	}
	require.Empty(t, Names(t, s, ""))
}

func putIfAbsent(t *testing.T, s blob.Store) {
	t.Helper()
	require.NoError(t, s.PutIfAbsent(t.Context(), "m/1", []byte("one")))
	require.ErrorIs(t, s.PutIfAbsent(t.Context(), "m/1", []byte("two")), blob.ErrExists)
	require.Equal(t, "one", Get(t, s, "m/1"))
	require.NoError(t, s.Delete(t.Context(), "m/1"))
	require.NoError(t, s.PutIfAbsent(t.Context(), "m/1", nil))
	require.Empty(t, Get(t, s, "m/1"))
	require.NoError(t, Put(t.Context(), s, "m/2", "x"))
	require.ErrorIs(t, s.PutIfAbsent(t.Context(), "m/2", nil), blob.ErrExists)
}

func race(t *testing.T, s blob.Store) {
	t.Helper()
	for round := range 10 {
		name := fmt.Sprintf("commits/%d/manifest", round)
		errs := make([]error, 16)
		var wg sync.WaitGroup
		for i := range errs {
			wg.Go(func() { errs[i] = s.PutIfAbsent(t.Context(), name, fmt.Appendf(nil, "%d", i)) })
		}
		wg.Wait()
		winner := slices.Index(errs, nil)
		require.GreaterOrEqual(t, winner, 0)
		for i, err := range errs {
			if i != winner {
				require.ErrorIs(t, err, blob.ErrExists)
			}
		}
		require.Equal(t, strconv.Itoa(winner), Get(t, s, name))
	}
}

func open(t *testing.T, s blob.Store) {
	t.Helper()
	require.NoError(t, Put(t.Context(), s, "d/a", "0123456789"))
	r, err := s.Open(t.Context(), "d/a")
	require.NoError(t, err)
	require.EqualValues(t, 10, r.Size())
	var wg sync.WaitGroup
	for i := range 10 {
		wg.Go(func() {
			b := make([]byte, 1)
			if _, err := r.ReadAt(b, int64(i)); err != nil || int(b[0]-'0') != i {
				t.Errorf("byte %d: %q, %v", i, b, err)
			}
		})
	}
	wg.Wait()
	n, err := r.ReadAt(make([]byte, 5), 8)
	require.ErrorIs(t, err, io.EOF)
	require.Equal(t, 2, n)
	require.NoError(t, s.Delete(t.Context(), "d/a"))
	_, err = r.ReadAt(make([]byte, 5), 0)
	require.NoError(t, err, "a reader outlives the name")
	require.NoError(t, r.Close())
	for _, name := range []string{"d/a", "d", "x/y"} {
		_, err = s.Open(t.Context(), name)
		require.ErrorIs(t, err, blob.ErrNotFound, name)
	}
}

func list(t *testing.T, s blob.Store) {
	t.Helper()
	all := []string{"a-b", "a.b", "a/b", "a/b-c", "a/c/d", "a0", "a=1/x", "ab/c/d/e", "b"}
	slices.Sort(all)
	for i, name := range all {
		require.NoError(t, Put(t.Context(), s, name, strings.Repeat("x", i)))
	}
	for _, prefix := range []string{"", "a", "a/", "a/b", "a/b-", "a/c/d", "a/c/d/", "ab/c", "b", "c", "a0/x"} {
		want := []string{}
		for _, name := range all {
			if strings.HasPrefix(name, prefix) {
				want = append(want, name)
			}
		}
		require.Equal(t, want, Names(t, s, prefix), prefix)
	}
	i := 0
	for info, err := range s.List(t.Context(), "") {
		require.NoError(t, err)
		require.EqualValues(t, i, info.Size)
		i++
	}
}

func listStops(t *testing.T, s blob.Store) {
	t.Helper()
	for i := range 5 {
		require.NoError(t, Put(t.Context(), s, fmt.Sprintf("d%d/x", i), ""))
	}
	n := 0
	for _, err := range s.List(t.Context(), "") {
		require.NoError(t, err)
		if n++; n == 2 {
			break
		}
	}
	require.Equal(t, 2, n)
	// Deleting while listing is how a sweep works.
	for info, err := range s.List(t.Context(), "d") {
		require.NoError(t, err)
		require.NoError(t, s.Delete(t.Context(), info.Name))
	}
	require.Empty(t, Names(t, s, ""))
}

func remove(t *testing.T, s blob.Store) {
	t.Helper()
	require.NoError(t, Put(t.Context(), s, "a/b/c", "1"))
	require.NoError(t, Put(t.Context(), s, "a/d", "2"))
	for _, name := range []string{"a/b/c", "a/b/c", "a", "a/b", "nope", "nope/nope", "a/d/nope"} {
		require.NoError(t, s.Delete(t.Context(), name), name)
	}
	require.Equal(t, []string{"a/d"}, Names(t, s, ""))
	require.NoError(t, Put(t.Context(), s, "a/b/c", "3"))
	require.Equal(t, "3", Get(t, s, "a/b/c"))
}

func names(t *testing.T, s blob.Store) {
	t.Helper()
	for _, name := range []string{
		"", "/", "/a", "a/", "a//b", ".", "..", "a/..", "../a", "a/./b", "a b", "ä", "a\\b", "a\x00", "a:b",
		strings.Repeat("a", 256), strings.Repeat("a/", 512) + "a",
	} {
		require.ErrorIs(t, blob.CheckName(name), blob.ErrInvalidName, name)
		require.ErrorIs(t, Put(t.Context(), s, name, ""), blob.ErrInvalidName, name)
		require.ErrorIs(t, s.PutIfAbsent(t.Context(), name, nil), blob.ErrInvalidName, name)
		require.ErrorIs(t, s.Delete(t.Context(), name), blob.ErrInvalidName, name)
		_, err := s.Get(t.Context(), name, 1)
		require.ErrorIs(t, err, blob.ErrInvalidName, name)
		_, err = s.Open(t.Context(), name)
		require.ErrorIs(t, err, blob.ErrInvalidName, name)
	}
	for _, name := range []string{"...", "a/..b", "-", "A=1/b_c.d-e", strings.Repeat("a", 255)} {
		require.NoError(t, Put(t.Context(), s, name, "x"), name)
	}
	require.Len(t, Names(t, s, ""), 5)
}

func cancelled(t *testing.T, s blob.Store) {
	t.Helper()
	require.NoError(t, Put(t.Context(), s, "a", "x"))
	ctx, cancel := context.WithCancel(t.Context())
	err := s.Put(ctx, "b", func(w io.Writer) error {
		cancel()
		_, err := w.Write(make([]byte, 1<<20))
		return err
	})
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, s.PutIfAbsent(ctx, "b", nil), context.Canceled)
	_, err = s.Get(ctx, "a", 1)
	require.ErrorIs(t, err, context.Canceled)
	_, err = s.Open(ctx, "a")
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, s.Delete(ctx, "a"), context.Canceled)
	for _, err = range s.List(ctx, "") {
		require.ErrorIs(t, err, context.Canceled)
	}
	require.Error(t, err)
	require.Equal(t, []string{"a"}, Names(t, s, ""))
}

// churn makes folders come and go while others put into them: a put that returned nil is there.
func churn(t *testing.T, s blob.Store) {
	t.Helper()
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			name := fmt.Sprintf("p/q/%d", i)
			for j := range 30 {
				text := strconv.Itoa(j)
				if err := Put(t.Context(), s, name, text); err != nil {
					t.Errorf("put: %v", err)
				}
				if b, err := s.Get(t.Context(), name, 10); err != nil || string(b) != text {
					t.Errorf("get: %q, %v", b, err)
				}
				if err := s.Delete(t.Context(), name); err != nil {
					t.Errorf("delete: %v", err)
				}
			}
		})
	}
	wg.Go(func() {
		for range 30 {
			for _, err := range s.List(t.Context(), "p/") {
				if err != nil {
					t.Errorf("list: %v", err)
				}
			}
		}
	})
	wg.Wait()
	require.Empty(t, Names(t, s, ""))
}
