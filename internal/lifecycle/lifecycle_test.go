package lifecycle_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/braidobs/braid/internal/lifecycle"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// journal notes what happened, in order.
type journal struct {
	mu    sync.Mutex // guards lines
	lines []string
}

func (j *journal) add(s string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, s)
}

// part notes its calls; its Run waits for its context.
func (j *journal) part(name string) lifecycle.Part {
	return lifecycle.Part{
		Name:  name,
		Start: func(context.Context) error { j.add("start " + name); return nil },
		Run: func(ctx context.Context) error {
			<-ctx.Done()
			j.add("end " + name)
			return ctx.Err()
		},
		Stop: func(context.Context) error { j.add("stop " + name); return nil },
	}
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

func TestRun(t *testing.T) {
	boom := errors.New("boom")
	tests := []struct {
		name  string
		parts func(j *journal) []lifecycle.Part
		want  []string
		err   string // empty for none
	}{
		{
			name:  "in order and back",
			parts: func(j *journal) []lifecycle.Part { return []lifecycle.Part{j.part("a"), j.part("b"), {Name: "empty"}} },
			want:  []string{"start a", "start b", "end b", "stop b", "end a", "stop a"},
		},
		{name: "nothing", parts: func(*journal) []lifecycle.Part { return nil }},
		{
			name: "start fails",
			parts: func(j *journal) []lifecycle.Part {
				b := j.part("b")
				b.Start = func(context.Context) error { return boom }
				return []lifecycle.Part{j.part("a"), b, j.part("c")}
			},
			want: []string{"start a", "end a", "stop a"},
			err:  "start b: boom",
		},
		{
			name: "run fails",
			parts: func(j *journal) []lifecycle.Part {
				a := j.part("a")
				a.Run = func(context.Context) error { time.Sleep(time.Second); return boom }
				return []lifecycle.Part{a, j.part("b")}
			},
			want: []string{"start a", "start b", "end b", "stop b", "stop a"},
			err:  "run a: boom",
		},
		{
			name: "run fails while a later part starts",
			parts: func(j *journal) []lifecycle.Part {
				a, b := j.part("a"), j.part("b")
				a.Run = func(context.Context) error { return boom }
				b.Start = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
				return []lifecycle.Part{a, b, j.part("c")}
			},
			want: []string{"start a", "stop a"},
			err:  "run a: boom",
		},
		{
			name: "run that is done does not stop the others",
			parts: func(j *journal) []lifecycle.Part {
				a := j.part("a")
				a.Run = func(context.Context) error { return nil }
				return []lifecycle.Part{a, j.part("b")}
			},
			want: []string{"start a", "start b", "end b", "stop b", "stop a"},
		},
		{
			name: "run that fails while stopping",
			parts: func(j *journal) []lifecycle.Part {
				a := j.part("a")
				a.Run = func(ctx context.Context) error { <-ctx.Done(); return boom }
				return []lifecycle.Part{a}
			},
			want: []string{"start a", "stop a"},
			err:  "run a: boom",
		},
		{
			name: "stop fails",
			parts: func(j *journal) []lifecycle.Part {
				b := j.part("b")
				b.Stop = func(context.Context) error { return boom }
				return []lifecycle.Part{j.part("a"), b}
			},
			want: []string{"start a", "start b", "end b", "end a", "stop a"},
			err:  "stop b: boom",
		},
		{
			name: "run overruns its grace",
			parts: func(j *journal) []lifecycle.Part {
				b := j.part("b")
				b.Run = func(context.Context) error { time.Sleep(time.Hour); return nil }
				b.Grace = 3 * time.Second
				return []lifecycle.Part{j.part("a"), b}
			},
			want: []string{"start a", "start b", "end a", "stop a"},
			err:  "stop b: not done after 3s",
		},
		{
			name: "stop overruns its grace",
			parts: func(j *journal) []lifecycle.Part {
				b := j.part("b")
				b.Stop = func(context.Context) error { time.Sleep(time.Hour); return nil }
				return []lifecycle.Part{j.part("a"), b}
			},
			want: []string{"start a", "start b", "end b", "end a", "stop a"},
			err:  "stop b: not done after 10s",
		},
		{
			name: "stop heeds the end of its grace",
			parts: func(j *journal) []lifecycle.Part {
				b := j.part("b")
				b.Stop = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
				return []lifecycle.Part{j.part("a"), b}
			},
			want: []string{"start a", "start b", "end b", "end a", "stop a"},
			err:  "stop b: not done after 10s\nstop b: context deadline exceeded",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var j journal
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				err := lifecycle.Run(ctx, discard(), tt.parts(&j)...)
				if tt.err == "" {
					require.NoError(t, err)
				} else {
					require.EqualError(t, err, tt.err)
				}
				j.mu.Lock()
				require.Equal(t, tt.want, j.lines)
				j.mu.Unlock()
				time.Sleep(2 * time.Hour) // parts that were left behind
			})
		})
	}
}

func TestRunStopsWhileStarting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		b := j.part("b")
		b.Start = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		require.NoError(t, lifecycle.Run(ctx, discard(), j.part("a"), b, j.part("c")))
		require.Equal(t, []string{"start a", "end a", "stop a"}, j.lines)
	})
}

func TestRunEndedBefore(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var j journal
	require.NoError(t, lifecycle.Run(ctx, discard(), j.part("a")))
	require.Empty(t, j.lines)
}

func TestStopContextOutlivesTheProcessContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type key struct{}
		ctx, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, "v"))
		time.AfterFunc(time.Second, cancel)
		require.NoError(t, lifecycle.Run(ctx, discard(), lifecycle.Part{
			Name: "a",
			Run: func(ctx context.Context) error {
				<-ctx.Done()
				require.Equal(t, "v", ctx.Value(key{}))
				return nil
			},
			Stop: func(ctx context.Context) error {
				require.NoError(t, ctx.Err())
				require.Equal(t, "v", ctx.Value(key{}))
				return nil
			},
		}))
	})
}
