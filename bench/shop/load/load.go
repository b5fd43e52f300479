// Package load drives the shop's frontend the way a crowd does: requests start on schedule whether or not earlier ones
// have finished (open loop), in a mix and an order that follow from a seed.
package load

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/braidobs/braid/bench/shop/wire"
)

// Config is what to drive and how hard.
type Config struct {
	Target      string        // the frontend, host:port
	RPS         float64       // mean rate; gaps between requests are exponential
	Duration    time.Duration // 0: until the context ends
	Seed        uint64
	MaxInFlight int           // a request over it is dropped and counted
	Timeout     time.Duration // per request
	Grace       time.Duration // for requests in flight at the end
}

// Summary is what a run did. Latencies are within 5 %.
type Summary struct {
	Role    string         `json:"role"`
	Seconds float64        `json:"seconds"`
	Sent    int            `json:"sent"`
	Dropped int            `json:"dropped"`      // not sent: too many in flight
	Failed  int            `json:"failed"`       // no answer
	Status  map[string]int `json:"status"`       // answers by status code
	Routes  map[string]int `json:"routes"`       // requests sent by route
	P50     float64        `json:"p50_ms"`       // of all answers
	P95     float64        `json:"p95_ms"`       //
	P99     float64        `json:"p99_ms"`       //
	Max     float64        `json:"max_ms"`       //
	Orders  int            `json:"orders"`       // checkouts answered with 200
	Error   string         `json:"error_sample"` // one of the failures
}

// request is one planned request.
type request struct {
	route, method, path string
	body                []byte
}

// Run drives until the duration is over or ctx ends, waits for what is in flight, and returns what happened.
func Run(ctx context.Context, cfg Config, now func() time.Time) (Summary, error) {
	if cfg.RPS <= 0 || cfg.MaxInFlight <= 0 {
		return Summary{}, fmt.Errorf("load: rate %v and in-flight limit %d must be positive", cfg.RPS, cfg.MaxInFlight)
	}
	transport := &http.Transport{MaxIdleConnsPerHost: cfg.MaxInFlight}
	defer transport.CloseIdleConnections()
	d := &driver{
		cfg: cfg, now: now,
		client:  &http.Client{Transport: transport, Timeout: cfg.Timeout},
		dice:    rand.New(rand.NewPCG(cfg.Seed, 0x10ad)),
		summary: Summary{Role: "load", Status: map[string]int{}, Routes: map[string]int{}},
		buckets: map[int]int{},
	}
	inFlight, cut := context.WithCancel(context.WithoutCancel(ctx)) // a request outlives the end of the schedule
	defer cut()
	var group errgroup.Group
	group.SetLimit(cfg.MaxInFlight)
	start := now()
	next := start
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		if ctx.Err() != nil || cfg.Duration > 0 && next.Sub(start) >= cfg.Duration {
			break
		}
		req := d.plan()
		if !group.TryGo(func() error { d.send(inFlight, req); return nil }) {
			d.summary.Dropped++ // only this goroutine writes it
		}
		next = next.Add(time.Duration(d.dice.ExpFloat64() / cfg.RPS * float64(time.Second)))
		timer.Reset(max(0, next.Sub(now())))
	}
	defer time.AfterFunc(cfg.Grace, cut).Stop()
	_ = group.Wait() // send reports through the summary
	return d.finish(now().Sub(start)), nil
}

type driver struct {
	cfg    Config
	now    func() time.Time
	client *http.Client
	dice   *rand.Rand // of the scheduling goroutine

	mu      sync.Mutex // guards the rest, except summary.Dropped
	summary Summary
	buckets map[int]int // answers by logarithm of their latency
}

// plan draws the next request: 55 % product pages, 20 % lists, 25 % checkouts. One product page in 50 does not exist.
func (d *driver) plan() request {
	switch p := d.dice.IntN(100); {
	case p < 55:
		id := fmt.Sprintf("p%02d", 1+d.dice.IntN(20))
		if d.dice.IntN(50) == 0 {
			id = "p99"
		}
		return request{"GET /product/{id}", http.MethodGet, "/product/" + id, nil}
	case p < 75:
		return request{"GET /products", http.MethodGet, "/products", nil}
	default:
		req := wire.CheckoutRequest{User: fmt.Sprintf("u%06d", d.dice.IntN(1_000_000))}
		for range 1 + d.dice.IntN(3) {
			req.Items = append(req.Items, wire.Item{Product: fmt.Sprintf("p%02d", 1+d.dice.IntN(20)), Quantity: 1 + d.dice.Int64N(3)})
		}
		body, err := json.Marshal(req)
		if err != nil {
			panic(err) // strings and integers always encode
		}
		return request{"POST /checkout", http.MethodPost, "/checkout", body}
	}
}

func (d *driver) send(ctx context.Context, r request) {
	start := d.now()
	code, err := d.do(ctx, r)
	took := d.now().Sub(start)

	d.mu.Lock()
	defer d.mu.Unlock()
	d.summary.Sent++
	d.summary.Routes[r.route]++
	if err != nil {
		d.summary.Failed++
		d.summary.Error = err.Error()
		return
	}
	d.summary.Status[strconv.Itoa(code)]++
	if r.method == http.MethodPost && code == http.StatusOK {
		d.summary.Orders++
	}
	d.buckets[bucket(took)]++
	d.summary.Max = max(d.summary.Max, took.Seconds()*1e3)
}

func (d *driver) do(ctx context.Context, r request) (int, error) {
	req, err := http.NewRequestWithContext(ctx, r.method, "http://"+d.cfg.Target+r.path, bytes.NewReader(r.body))
	if err != nil {
		return 0, err
	}
	if r.body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := d.client.Do(req)
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, errors.Join(err, resp.Body.Close())
}

// growth is the ratio of neighbouring latency buckets.
const growth = 1.05

func bucket(d time.Duration) int {
	return int(math.Floor(math.Log(max(d.Seconds()*1e3, 0.01)) / math.Log(growth)))
}

func (d *driver) finish(took time.Duration) Summary {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.summary
	s.Seconds = took.Seconds()
	total, lowest, highest := 0, math.MaxInt, math.MinInt
	for b, n := range d.buckets {
		total += n
		lowest, highest = min(lowest, b), max(highest, b)
	}
	seen := 0
	for b := lowest; b <= highest && total > 0; b++ {
		seen += d.buckets[b]
		for _, q := range []struct {
			rank float64
			out  *float64
		}{{0.50, &s.P50}, {0.95, &s.P95}, {0.99, &s.P99}} {
			if *q.out == 0 && float64(seen) >= q.rank*float64(total) {
				*q.out = math.Pow(growth, float64(b)+0.5)
			}
		}
	}
	return s
}
