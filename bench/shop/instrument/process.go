package instrument

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/metrics"
	"strconv"
	"sync"
	"syscall"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// observeProcess registers what a pod's container would report about itself: CPU, memory and the Go runtime. Services
// that share a process report the whole process each.
func observeProcess(meter metric.Meter, now func() time.Time) error {
	var errs [6]error
	var cpuTime metric.Float64ObservableCounter
	var cpuUsage metric.Float64ObservableGauge
	var memory, workingSet, heap, goroutines metric.Int64ObservableUpDownCounter
	cpuTime, errs[0] = meter.Float64ObservableCounter("process.cpu.time",
		metric.WithUnit("s"), metric.WithDescription("Total CPU seconds broken down by mode."))
	cpuUsage, errs[1] = meter.Float64ObservableGauge("container.cpu.usage",
		metric.WithUnit("{cpu}"), metric.WithDescription("Container's CPU usage, in cores, since the last collection."))
	memory, errs[2] = meter.Int64ObservableUpDownCounter("process.memory.usage",
		metric.WithUnit("By"), metric.WithDescription("The amount of physical memory in use."))
	workingSet, errs[3] = meter.Int64ObservableUpDownCounter("container.memory.working_set",
		metric.WithUnit("By"), metric.WithDescription("Container memory working set."))
	heap, errs[4] = meter.Int64ObservableUpDownCounter("go.memory.used",
		metric.WithUnit("By"), metric.WithDescription("Memory used by the Go runtime."))
	goroutines, errs[5] = meter.Int64ObservableUpDownCounter("go.goroutine.count",
		metric.WithUnit("{goroutine}"), metric.WithDescription("Count of live goroutines."))
	if err := errors.Join(errs[:]...); err != nil {
		return fmt.Errorf("create process instruments: %w", err)
	}

	user := metric.WithAttributes(attribute.String("cpu.mode", "user"))
	system := metric.WithAttributes(attribute.String("cpu.mode", "system"))
	rate := cpuRate{last: now()}
	_, err := meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		u, s, err := cpuSeconds()
		if err != nil {
			return err
		}
		o.ObserveFloat64(cpuTime, u, user)
		o.ObserveFloat64(cpuTime, s, system)
		if cores, ok := rate.next(u+s, now()); ok {
			o.ObserveFloat64(cpuUsage, cores)
		}
		samples := []metrics.Sample{
			{Name: "/memory/classes/total:bytes"},
			{Name: "/memory/classes/heap/released:bytes"},
			{Name: "/sched/goroutines:goroutines"},
		}
		metrics.Read(samples)
		used := int64(samples[0].Value.Uint64() - samples[1].Value.Uint64())
		o.ObserveInt64(heap, used)
		o.ObserveInt64(goroutines, int64(samples[2].Value.Uint64()))
		resident, err := residentBytes()
		if err != nil {
			resident = used // no /proc here: the runtime's own account is the best there is
		}
		o.ObserveInt64(memory, resident)
		o.ObserveInt64(workingSet, resident)
		return nil
	}, cpuTime, cpuUsage, memory, workingSet, heap, goroutines)
	if err != nil {
		return fmt.Errorf("register process metrics: %w", err)
	}
	return nil
}

// cpuRate turns CPU seconds into cores between two collections.
type cpuRate struct {
	mu      sync.Mutex // guards the rest; collections may overlap
	seconds float64
	last    time.Time
}

func (r *cpuRate) next(seconds float64, now time.Time) (cores float64, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	elapsed := now.Sub(r.last).Seconds()
	if elapsed <= 0 {
		return 0, false
	}
	cores = (seconds - r.seconds) / elapsed
	r.seconds, r.last = seconds, now
	return cores, true
}

func cpuSeconds() (user, system float64, err error) {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0, 0, fmt.Errorf("get resource usage: %w", err)
	}
	return float64(usage.Utime.Nano()) / 1e9, float64(usage.Stime.Nano()) / 1e9, nil
}

func residentBytes() (int64, error) {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, err
	}
	fields := bytes.Fields(b)
	if len(fields) < 2 {
		return 0, fmt.Errorf("/proc/self/statm has %d fields", len(fields))
	}
	pages, err := strconv.ParseInt(string(fields[1]), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("parse /proc/self/statm: %w", err)
	}
	return pages * int64(os.Getpagesize()), nil
}
