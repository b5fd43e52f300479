package runner

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/braidobs/braid/bench/shop/host"
)

// process is one running child.
type process struct {
	info  Process
	cmd   *exec.Cmd
	stdin io.Closer // held open: the child stops when it closes, so it never outlives us
	out   *output
	done  chan struct{} // closed after err is set
	err   error
}

// launch starts a child, adds it to the shop, and waits until it is ready.
func (s *Shop) launch(
	ctx context.Context, binary, name string, args []string, stdout, stderr io.Writer,
) (Process, error) {
	p := &process{
		info: Process{Name: name}, cmd: exec.Command(binary, args...), //nolint:noctx // Stop ends it, politely
		out:  &output{next: stdout, first: make(chan []byte, 1)},
		done: make(chan struct{}),
	}
	p.cmd.Stdout, p.cmd.Stderr = p.out, stderr
	p.cmd.WaitDelay = time.Second
	stdin, err := p.cmd.StdinPipe()
	if err != nil {
		return Process{}, fmt.Errorf("open standard input of %s: %w", name, err)
	}
	p.stdin = stdin
	if err := p.cmd.Start(); err != nil {
		return Process{}, errors.Join(fmt.Errorf("start %s: %w", name, err), stdin.Close())
	}
	p.info.PID = p.cmd.Process.Pid
	s.procs = append(s.procs, p)
	go func() { // stop waits for it
		p.err = p.cmd.Wait()
		close(p.done)
		s.failOnce.Do(func() { close(s.failed) }) // Stop has been called, or it is a failure: either way it is over
	}()

	timer := time.NewTimer(startLimit)
	defer timer.Stop()
	select {
	case line := <-p.out.first:
		var ready host.Ready
		if err := json.Unmarshal(line, &ready); err != nil {
			return Process{}, fmt.Errorf("read ready line %q of %s: %w", line, name, err)
		}
		p.info.Pod, p.info.HTTP, p.info.GRPC, p.info.Admin = ready.Pod, ready.HTTP, ready.GRPC, ready.Admin
		return p.info, nil
	case <-p.done:
		return Process{}, fmt.Errorf("%s ended before it was ready: %w", name, errors.Join(p.err, errEnded))
	case <-timer.C:
		return Process{}, fmt.Errorf("%s is not ready after %v", name, startLimit)
	case <-ctx.Done():
		return Process{}, fmt.Errorf("wait for %s: %w", name, ctx.Err())
	}
}

var errEnded = errors.New("its standard error says why")

// stop ends the child and waits for it.
func (p *process) stop(ctx context.Context, grace time.Duration) error {
	// A child that has ended already cannot be signalled: its exit status is what counts.
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("send SIGTERM: %w", err)
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	var killed error
	select {
	case <-p.done:
	case <-timer.C:
		killed = fmt.Errorf("killed, %v after SIGTERM", grace)
	case <-ctx.Done():
		killed = fmt.Errorf("killed: %w", ctx.Err())
	}
	if killed != nil {
		if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("send SIGKILL: %w", err)
		}
		<-p.done
	}
	_ = p.stdin.Close() // Wait has closed it, if the child ended
	if killed != nil {
		return killed
	}
	return p.err
}

// output passes a child's standard output on and keeps its first and its last line.
type output struct {
	next  io.Writer
	first chan []byte // gets the first line

	mu      sync.Mutex // guards the rest
	partial []byte
	lines   int
	last    []byte
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.partial = append(o.partial, b...)
	for {
		i := bytes.IndexByte(o.partial, '\n')
		if i < 0 {
			return len(b), nil
		}
		line := bytes.Clone(o.partial[:i+1])
		o.partial = append(o.partial[:0], o.partial[i+1:]...)
		o.last = line
		if o.lines++; o.lines == 1 {
			o.first <- line // has room for it
		}
		if _, err := o.next.Write(line); err != nil {
			return 0, err
		}
	}
}

func (o *output) lastLine() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.last
}

// shared makes a writer that several children may write to.
func shared(w io.Writer) io.Writer {
	if w == nil {
		return io.Discard
	}
	return &locked{w: w}
}

type locked struct {
	mu sync.Mutex // guards w
	w  io.Writer
}

func (l *locked) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}
