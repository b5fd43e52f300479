package main

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// load says what is sent: the lines of a cluster over some time.
type load struct {
	lines    int
	duration time.Duration
	request  int // bytes of text
	senders  int
	seed     uint64
	end      time.Time
	extra    [][]string // lines of real systems, by system; may be empty
}

const (
	apps       = 21
	podsOfApp  = 24
	streams    = apps * podsOfApp
	needleWord = "kQz7needle3Vx"
	absentWord = "zqnabsent1"
	substring  = "upstream timed out"
	regexText  = `attempt=\d+ of [5-9]`
)

func (l *load) name() string {
	return fmt.Sprintf("%d lines of %d streams over %s, requests of %d KiB of text, %d senders", l.lines, streams, l.duration, l.request>>10, l.senders)
}

// kind is what an app logs.
type kind uint8

const (
	jsonLines kind = iota
	access
	klog
	java
	foreign
)

// kindOf gives 45 % of the lines to apps that log JSON, 20 % to access logs, and the rest to the others.
func kindOf(app int) kind {
	switch {
	case app < 10:
		return jsonLines
	case app < 14:
		return access
	case app < 16:
		return klog
	case app < 18:
		return java
	default:
		return foreign
	}
}

func appName(app int) string { return fmt.Sprintf("app-%02d", app) }

// labelsOf returns the labels of a stream as Loki's push API has them.
func labelsOf(app, pod int) string {
	return fmt.Sprintf(`{app="%s", namespace="team-%d", pod="%s-%s"}`, appName(app), app%5, appName(app), podName(app, pod))
}

func podName(app, pod int) string {
	return strconv.FormatUint(uint64(app*7919+pod*104729+1_000_003)*2654435761%(1<<32), 36)
}

// writer makes the lines of the streams of one sender, in the order of time.
type writer struct {
	l     *load
	rng   *rand.Rand
	buf   []byte
	stack map[int][]string // lines of a stack trace that a pod is in the middle of
	at    []int            // of the extra lines of each system

	methods, agents, messages, failures []string
}

func (w *writer) pick(ss []string) string { return ss[w.rng.IntN(len(ss))] }

func newWriter(l *load, sender int) *writer {
	return &writer{
		l: l, rng: rand.New(rand.NewPCG(l.seed, uint64(sender))), stack: make(map[int][]string), at: make([]int, len(l.extra)),
		methods: methods(), agents: agents(), messages: messages(), failures: failures(),
	}
}

func methods() []string {
	return []string{"GET", "GET", "GET", "GET", "POST", "POST", "PUT", "DELETE"}
}

func agents() []string {
	return []string{
		"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
		"Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1",
		"kube-probe/1.31", "Go-http-client/2.0", "curl/8.7.1",
	}
}

func messages() []string {
	return []string{"request completed", "cache miss, loading from database", "payment authorised", "order placed", "inventory reserved", "session refreshed", "message published"}
}

func failures() []string {
	return []string{"upstream timed out while reading response header", "connection refused by peer", "deadline exceeded", "duplicate key value violates unique constraint"}
}

// status draws an HTTP status: most are fine.
func (w *writer) status() int {
	switch n := w.rng.IntN(1000); {
	case n < 930:
		return 200
	case n < 950:
		return 304
	case n < 985:
		return 404
	case n < 995:
		return 500
	default:
		return 503
	}
}

// took draws a duration in milliseconds with a long tail.
func (w *writer) took() float64 {
	return math.Round(math.Exp(w.rng.NormFloat64()*1.1+3)*1000) / 1000
}

func (w *writer) id(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(w.rng.Uint32())
	}
	return hex.EncodeToString(b)
}

func (w *writer) path() string {
	switch w.rng.IntN(6) {
	case 0:
		return "/api/v1/cart/" + strconv.Itoa(w.rng.IntN(50_000))
	case 1:
		return "/api/v1/products"
	case 2:
		return "/api/v1/checkout"
	case 3:
		return "/healthz"
	case 4:
		return "/api/v2/search"
	default:
		return "/static/app.js"
	}
}

// line returns the next line of a pod; it is valid until the next call.
func (w *writer) line(app, pod int, at time.Time) []byte {
	w.buf = w.buf[:0]
	switch kindOf(app) {
	case jsonLines:
		w.json(app, at)
	case access:
		w.buf = fmt.Appendf(w.buf, "10.%d.%d.%d - - [%s] \"%s %s HTTP/1.1\" %d %d \"-\" \"%s\" %.3f", app, pod, w.rng.IntN(256),
			at.Format("02/Jan/2006:15:04:05 -0700"), w.pick(w.methods), w.path(), w.status(), w.rng.IntN(90_000), w.pick(w.agents), w.took()/1000)
	case klog:
		w.buf = fmt.Appendf(w.buf, "I%s %7d controller.go:%d] \"Reconciled\" object=\"team-%d/%s-%d\" attempt=%d of %d duration=\"%.3fms\"",
			at.Format("0102 15:04:05.000000"), 1+w.rng.IntN(40), 100+w.rng.IntN(20)*13, app%5, appName(app), w.rng.IntN(400), 1+w.rng.IntN(4), 3+w.rng.IntN(7), w.took())
	case java:
		w.java(app*podsOfApp+pod, at)
	case foreign:
		w.foreign(app, at)
	}
	return w.buf
}

func (w *writer) json(app int, at time.Time) {
	status, level, msg := w.status(), "info", w.pick(w.messages)
	if status >= 500 {
		level, msg = "error", w.pick(w.failures)
	}
	w.buf = append(w.buf, `{"ts":"`...)
	w.buf = at.AppendFormat(w.buf, "2006-01-02T15:04:05.000000Z")
	w.buf = fmt.Appendf(w.buf, `","level":"%s","logger":"http.%s","msg":"%s","method":"%s","path":"%s","status":%d,"duration_ms":%.3f,"bytes":%d,"user_id":"u-%d","request_id":"%s"`,
		level, appName(app), msg, w.pick(w.methods), w.path(), status, w.took(), w.rng.IntN(200_000), w.rng.IntN(20_000), w.id(8))
	if w.rng.IntN(9) == 0 { // 5 % of all lines
		w.buf = fmt.Appendf(w.buf, `,"trace_id":"%s","span_id":"%s"`, w.id(16), w.id(8))
	}
	w.buf = append(w.buf, '}')
}

func (w *writer) java(pod int, at time.Time) {
	if rest := w.stack[pod]; len(rest) > 0 {
		w.buf = append(w.buf, rest[0]...)
		w.stack[pod] = rest[1:]
		return
	}
	level := "INFO "
	if w.rng.IntN(60) == 0 {
		level = "ERROR"
		w.stack[pod] = []string{
			fmt.Sprintf("java.net.SocketTimeoutException: Read timed out after %d ms", 1000+w.rng.IntN(9000)),
			"\tat java.base/sun.nio.ch.NioSocketImpl.timedRead(NioSocketImpl.java:288)",
			"\tat java.base/java.net.Socket$SocketInputStream.read(Socket.java:966)",
			fmt.Sprintf("\tat com.shop.orders.OrderClient.fetch(OrderClient.java:%d)", 40+w.rng.IntN(30)),
			"\tat com.shop.orders.OrderService.place(OrderService.java:117)",
			"\tat java.base/java.lang.Thread.run(Thread.java:1583)",
		}
	}
	w.buf = fmt.Appendf(w.buf, "%s %s [pool-%d-thread-%d] com.shop.orders.OrderService - Order %d of customer %d processed in %d ms",
		at.Format("2006-01-02 15:04:05,000"), level, 1+w.rng.IntN(3), 1+w.rng.IntN(32), w.rng.IntN(10_000_000), w.rng.IntN(90_000), int(w.took()))
}

// foreign writes lines of real systems where there are some, and lines like those of sshd otherwise.
func (w *writer) foreign(app int, at time.Time) {
	if n := len(w.l.extra); n > 0 {
		i := w.rng.IntN(n)
		lines := w.l.extra[i]
		w.buf = append(w.buf, lines[w.at[i]%len(lines)]...)
		w.at[i]++
		return
	}
	w.buf = fmt.Appendf(w.buf, "%s node-%02d sshd[%d]: Failed password for invalid user u%d from 173.%d.%d.%d port %d ssh2",
		at.Format("Jan _2 15:04:05"), app, 20_000+w.rng.IntN(9000), w.rng.IntN(300), w.rng.IntN(256), w.rng.IntN(256), w.rng.IntN(256), 30_000+w.rng.IntN(30_000))
}

// readExtra reads the lines of all files below dir whose names end in .log.
func readExtra(dir string) ([][]string, error) {
	var out [][]string
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(path, ".log") {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		var lines []string
		for sc := bufio.NewScanner(f); sc.Scan(); {
			if sc.Text() != "" {
				lines = append(lines, strings.ToValidUTF8(sc.Text(), "?"))
			}
		}
		if len(lines) > 0 {
			out = append(out, lines)
		}
		return nil
	})
	if err == nil && len(out) == 0 {
		err = errors.New("there is no .log file")
	}
	return out, err
}
