package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coder/websocket"

	"github.com/braidobs/braid/bench/harness"
)

// probes is how many lines each probe sends.
const probes = 60

// latencies are medians over single lines, from the moment they are sent.
type latencies struct {
	acked   time.Duration // the sender has the answer
	visible time.Duration // a query finds the line, which is the first of a stream
	tailed  time.Duration // a tail has it; 0 where there is none to speak of
}

// probe measures how soon single lines are there, on a server that does nothing else.
func (t *target) probe(ctx context.Context) (l latencies, err error) {
	var acked, visible, tailed []time.Duration
	for n := range probes {
		word := fmt.Sprintf("probe%dx", n)
		began := time.Now()
		if err := t.pushOne(ctx, map[string]string{"app": "probe", "namespace": "probes", "n": strconv.Itoa(n)}, word); err != nil {
			return l, err
		}
		acked = append(acked, time.Since(began))
		for {
			found, err := t.finds(ctx, word)
			if err != nil {
				return l, err
			}
			if found {
				break
			}
			if time.Since(began) > 30*time.Second {
				return l, fmt.Errorf("line %d was not there after 30 s", n)
			}
			if n > 4 { // not seconds for each
				if err := harness.Sleep(ctx, time.Millisecond); err != nil {
					return l, err
				}
			}
		}
		visible = append(visible, time.Since(began))
		if n >= 4 && visible[n] > time.Second {
			break
		}
	}
	if t.name != victoriaLogs {
		if tailed, err = t.tails(ctx); err != nil {
			return l, err
		}
	}
	return latencies{median(acked), median(visible), median(tailed)}, nil
}

func median(ds []time.Duration) time.Duration {
	if len(ds) == 0 {
		return 0
	}
	slices.Sort(ds)
	return ds[len(ds)/2]
}

// pushOne pushes one line.
func (t *target) pushOne(ctx context.Context, stream map[string]string, line string) error {
	body, err := json.Marshal(map[string]any{"streams": []any{map[string]any{
		"stream": stream, "values": [][]string{{strconv.FormatInt(time.Now().UnixNano(), 10), line}},
	}}})
	if err != nil {
		return err
	}
	return harness.Send(ctx, t.http, t.pushURL(), http.Header{"Content-Type": {"application/json"}}, body)
}

// finds says whether a line with the word is there.
func (t *target) finds(ctx context.Context, word string) (bool, error) {
	now := time.Now()
	v := url.Values{
		"start": {strconv.FormatInt(now.Add(-time.Minute).UnixNano(), 10)}, "end": {strconv.FormatInt(now.Add(time.Minute).UnixNano(), 10)}, "limit": {"1"},
	}
	path := "/loki/api/v1/query_range"
	if t.name == victoriaLogs {
		path = "/select/logsql/query"
		v.Set("query", `{app="probe"} `+word)
	} else {
		v.Set("query", `{app="probe"} |= "`+word+`"`)
	}
	b, err := t.get(ctx, path, v)
	return strings.Contains(string(b), word+`"`), err
}

// tails follows a stream and returns how long each line took to come.
func (t *target) tails(ctx context.Context) ([]time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	q := url.Values{"query": {`{app="tailed"}`}, "start": {strconv.FormatInt(time.Now().UnixNano(), 10)}}
	conn, resp, err := websocket.Dial(ctx, "ws://"+t.s.HTTP+"/loki/api/v1/tail?"+q.Encode(), nil)
	if err != nil {
		return nil, fmt.Errorf("tail: %w", err)
	}
	if resp.Body != nil {
		_ = resp.Body.Close() // the connection is the answer
	}
	defer func() { _ = conn.CloseNow() }()
	var took []time.Duration
	for n := range probes {
		began := time.Now()
		word := fmt.Sprintf("tail%dx", n)
		if err := t.pushOne(ctx, map[string]string{"app": "tailed", "namespace": "probes"}, word); err != nil {
			return nil, err
		}
		for {
			_, b, err := conn.Read(ctx)
			if err != nil {
				return nil, fmt.Errorf("tail: %w", err)
			}
			if strings.Contains(string(b), word) {
				break
			}
		}
		took = append(took, time.Since(began))
		if n >= 4 && took[n] > 500*time.Millisecond {
			break
		}
	}
	return took, nil
}
