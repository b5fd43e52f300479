package loki

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/telemetry"
	"github.com/braidobs/braid/query/logql"
	"github.com/braidobs/braid/query/logql/syntax"
	"github.com/braidobs/braid/storage"
)

const (
	// maxTails is how many tails may be open.
	maxTails = 100
	// maxTailDelay is how long lines may be held back to be sent in order.
	maxTailDelay = 5 * time.Second
	// maxTailQueue is how many bytes of records may wait for a reader that is slow; more are told as dropped.
	maxTailQueue = 32 << 20
	// maxDropped is how many dropped entries one message names.
	maxDropped = 1000
	// tailBeat is how often lines that have come are sent.
	tailBeat = 100 * time.Millisecond
	// pingEvery is how often a reader must show that it is there.
	pingEvery = 10 * time.Second
	// writeWait is how long it may take to take a message.
	writeWait = 10 * time.Second
)

// errGone says that the reader is not there any more.
var errGone = errors.New("the reader is gone")

// RegisterStreams adds the routes that stay open: the tails.
func (a *API) RegisterStreams(rt *httpapi.Router) {
	for _, path := range []string{"/loki/api/v1/tail", "/loki/api/v2alpha/tail"} {
		rt.Handle("GET "+path, http.HandlerFunc(a.tail))
	}
}

// tailRequest is what somebody wants to follow.
type tailRequest struct {
	tenant telemetry.Tenant
	expr   logql.Expr
	match  *logql.Tail
	start  int64
	limit  int
	delay  time.Duration
}

func (a *API) tailRequest(r *http.Request) (q tailRequest, err error) {
	q.tenant = httpapi.TenantFrom(r.Context())
	if q.expr, err = logql.Parse(r.Form.Get("query")); err != nil {
		return q, err
	}
	if q.expr.Kind() != syntax.Lines {
		return q, httpapi.BadDataf("only lines can be tailed, and the query is for numbers")
	}
	if q.match, err = a.engine.Tail(q.expr); err != nil {
		return q, err
	}
	q.start = a.Now().Add(-defaultRange).UnixNano()
	if s := r.Form.Get("start"); s != "" {
		if q.start, err = parseTime(s); err != nil {
			return q, invalid("start", err)
		}
	}
	if q.limit, err = number(r, "limit", defaultLines); err != nil {
		return q, err
	}
	q.limit = min(q.limit, a.Config.MaxLines)
	if s := r.Form.Get("delay_for"); s != "" {
		sec, err := strconv.ParseUint(s, 10, 16)
		if err != nil || time.Duration(sec)*time.Second > maxTailDelay {
			return q, invalid("delay_for", errors.New("want a number of seconds, at most 5"))
		}
		q.delay = time.Duration(sec) * time.Second
	}
	return q, nil
}

// tail sends the newest lines of a query over a websocket, then each that comes.
func (a *API) tail(w http.ResponseWriter, r *http.Request) {
	var q tailRequest
	err := r.ParseForm()
	if err == nil {
		q, err = a.tailRequest(r)
	}
	if err == nil && a.Follower == nil {
		err = httpapi.Errorf(httpapi.Unavailable, "nothing can be tailed here")
	}
	if err != nil {
		a.errors.Text(w, r, httpapi.Query, err)
		return
	}
	select {
	case a.tails <- struct{}{}:
		defer func() { <-a.tails }()
	default:
		a.errors.Text(w, r, httpapi.Query, httpapi.NewOverloaded(0, strconv.Itoa(maxTails)+" tails are open already"))
		return
	}
	categories := categorized(r)
	c, err := websocket.Accept(w, r, nil) // not from pages of other origins
	if err != nil {
		return // it has answered
	}
	ctx := r.Context()
	err = a.follow(c.CloseRead(ctx), c, q, categories)
	code, reason := websocket.StatusNormalClosure, ""
	if err != nil && !errors.Is(err, errGone) && ctx.Err() == nil {
		e := a.errors.From(ctx, err)
		code, reason = websocket.StatusInternalError, e.Message[:min(len(e.Message), 120)]
	}
	_ = c.Close(code, reason) // the reader may be gone
}

// tailQueue holds the batches that came and were not looked at yet.
type tailQueue struct {
	wanted func(stream telemetry.LabelSet) bool

	mu      sync.Mutex // guards what follows; nothing is called under it
	batches []*telemetry.Batch
	bytes   int
	told    int // batches in all
	dropped []droppedEntry
}

// droppedEntry is a record that a slow reader did not get.
type droppedEntry struct {
	stream telemetry.LabelSet
	time   int64
}

// tell takes a batch, from the store, which waits for it.
func (t *tailQueue) tell(b *telemetry.Batch) {
	if !t.wanted(b.Stream) {
		return
	}
	size := b.Size()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.told++
	if t.bytes+size > maxTailQueue {
		for i := range b.Logs {
			if len(t.dropped) < maxDropped {
				t.dropped = append(t.dropped, droppedEntry{b.Stream, b.Logs[i].Time})
			}
		}
		return
	}
	t.batches = append(t.batches, b)
	t.bytes += size
}

// take returns what came since, and how many batches were told in all.
func (t *tailQueue) take() (bs []*telemetry.Batch, dropped []droppedEntry, told int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	bs, dropped, told = t.batches, t.dropped, t.told
	t.batches, t.dropped, t.bytes = nil, nil, 0
	return bs, dropped, told
}

// sight identifies an entry.
type sight struct {
	time   int64
	labels telemetry.LabelSet
	line   string
}

// held is an entry that waits for others of earlier times.
type held struct {
	entry logql.Entry
	until time.Time
}

// follow sends lines until the reader is gone.
func (a *API) follow(ctx context.Context, c *websocket.Conn, q tailRequest, categories bool) error {
	queue := &tailQueue{wanted: q.match.Selects}
	stop := a.Follower.FollowLogs(q.tenant, queue.tell)
	defer stop()

	// What is told before the view is there may be in the view as well; what is told after it is not.
	var history []logql.Entry
	first := 0 // batches told when the view was there
	err := a.view(ctx, func(v storage.View) error {
		queue.mu.Lock()
		first = queue.told
		queue.mu.Unlock()
		out, err := a.engine.Lines(ctx, v, logql.LinesQuery{
			Tenant: q.tenant, Expr: q.expr, Start: q.start, End: a.Now().Add(24 * time.Hour).UnixNano(), Newest: true, Limit: q.limit,
		})
		if err == nil {
			history = out.Entries
		}
		return err
	})
	if err != nil {
		return err
	}
	slices.Reverse(history)
	seen := make(map[sight]int, len(history))
	for i := range history {
		seen[sight{history[i].Time, history[i].Labels, history[i].Line}]++
	}
	if err := a.send(ctx, c, history, nil, categories); err != nil {
		return err
	}

	beat, ping := time.NewTicker(tailBeat), time.NewTicker(pingEvery)
	defer beat.Stop()
	defer ping.Stop()
	looked := 0
	var waiting []held
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ping.C:
			early, cancel := context.WithTimeout(ctx, writeWait)
			err := c.Ping(early)
			cancel()
			if err != nil {
				return errGone
			}
			continue
		case <-beat.C:
		}
		bs, dropped, told := queue.take()
		ready := a.Now().Add(q.delay)
		for _, b := range bs {
			looked++
			waiting, err = q.matched(waiting, b, ready, func(e *logql.Entry) bool {
				if looked > first {
					return false
				}
				k := sight{e.Time, e.Labels, e.Line}
				if seen[k] == 0 {
					return false
				}
				seen[k]--
				return true
			})
			if err != nil {
				return err
			}
		}
		if looked = told; looked >= first {
			seen = nil
		}
		now := a.Now()
		var out []logql.Entry
		waiting = slices.DeleteFunc(waiting, func(h held) bool {
			if h.until.After(now) {
				return false
			}
			out = append(out, h.entry)
			return true
		})
		slices.SortStableFunc(out, func(x, y logql.Entry) int { return cmp.Compare(x.Time, y.Time) })
		if err := a.send(ctx, c, out, dropped, categories); err != nil {
			return err
		}
	}
}

// matched appends what the query makes of a batch, but for entries that were sent.
func (q *tailRequest) matched(dst []held, b *telemetry.Batch, until time.Time, sent func(*logql.Entry) bool) ([]held, error) {
	for i := range b.Logs {
		e, ok, err := q.match.Match(b.Stream, b.Resource, &b.Logs[i])
		if err != nil {
			return dst, err
		}
		if ok && e.Time >= q.start && !sent(&e) {
			dst = append(dst, held{e, until})
		}
	}
	return dst, nil
}

// send sends a message of Loki's, unless there is nothing to say.
func (a *API) send(ctx context.Context, c *websocket.Conn, entries []logql.Entry, dropped []droppedEntry, categories bool) error {
	if len(entries)+len(dropped) == 0 {
		return nil
	}
	dst := appendStreams([]byte(`{"streams":`), entries, categories)
	if len(dropped) > 0 {
		dst = append(dst, `,"dropped_entries":[`...)
		for i, d := range dropped {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendLabels(append(dst, `{"labels":`...), d.stream)
			dst = strconv.AppendInt(append(dst, `,"timestamp":"`...), d.time, 10)
			dst = append(dst, `"}`...)
		}
		dst = append(dst, ']')
	}
	if categories {
		dst = append(dst, `,"encodingFlags":["categorize-labels"]`...)
	}
	early, cancel := context.WithTimeout(ctx, writeWait)
	defer cancel()
	if c.Write(early, websocket.MessageText, append(dst, '}')) != nil {
		return errGone
	}
	return nil
}
