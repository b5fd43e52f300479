package plugin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/grafana/grafana-plugin-sdk-go/backend"
	"github.com/prometheus/client_golang/prometheus"
)

// client asks Braid, and turns what goes wrong into words that say what to do.
type client struct {
	http     *http.Client
	set      *settings
	tooLarge prometheus.Counter
}

func newClient(hc *http.Client, set *settings, tooLarge prometheus.Counter) *client {
	own := *hc
	// A redirect is answered as it is: followed, it would carry the token to another host.
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &client{http: &own, set: set, tooLarge: tooLarge}
}

// failure is something that went wrong outside of the plugin.
type failure struct {
	status backend.Status
	err    error
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

func failed(status backend.Status, format string, args ...any) error {
	return &failure{status: status, err: fmt.Errorf(format, args...)}
}

func badRequest(format string, args ...any) error {
	return failed(backend.StatusBadRequest, format, args...)
}

func errorResponse(err error) backend.DataResponse {
	if f, ok := errors.AsType[*failure](err); ok {
		return backend.ErrDataResponseWithSource(f.status, backend.ErrorSourceDownstream, err.Error())
	}
	return backend.ErrDataResponseWithSource(backend.StatusInternal, backend.ErrorSourcePlugin, err.Error())
}

// longQuery is the size of parameters from which they go into the body: proxies bound the length of a URL.
const longQuery = 4096

// get asks for path. The answer is JSON of at most maxResponseMiB.
func (c *client) get(ctx context.Context, path string, params url.Values) ([]byte, error) {
	u := c.set.base.JoinPath(path)
	enc := params.Encode()
	var (
		req *http.Request
		err error
	)
	if len(enc) > longQuery {
		req, err = http.NewRequestWithContext(ctx, http.MethodPost, u.String(), strings.NewReader(enc))
	} else {
		u.RawQuery = enc
		req, err = http.NewRequestWithContext(ctx, http.MethodGet, u.String(), http.NoBody)
	}
	if err != nil {
		return nil, fmt.Errorf("make a request: %w", err)
	}
	if req.Method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("X-Loki-Response-Encoding-Flags", "categorize-labels")
	if c.set.tenant != "" {
		req.Header.Set("X-Scope-OrgID", c.set.tenant)
	}
	if c.set.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.set.token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(ctx, err)
	}
	defer func() { _ = resp.Body.Close() }() // it was read, or is given up
	body, err := io.ReadAll(io.LimitReader(resp.Body, c.set.maxBytes+1))
	if err != nil {
		return nil, c.unreachable(ctx, err)
	}
	if int64(len(body)) > c.set.maxBytes {
		c.tooLarge.Inc()
		return nil, failed(backend.StatusBadGateway, "the answer of %s is larger than the %d MiB of maxResponseMiB of the data source: narrow the query or the time range, or raise the setting",
			c.set.base, c.set.maxBytes>>20)
	}
	if err := c.check(path, resp, body); err != nil {
		return nil, err
	}
	return body, nil
}

func (c *client) unreachable(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return failed(499, "the query was cancelled: %w", ctx.Err())
	}
	// A url.Error repeats the whole URL, query and all, and sees only what it wraps itself.
	if ue, ok := errors.AsType[*url.Error](err); ok {
		err = ue.Err
	}
	ne, ok := errors.AsType[net.Error](err)
	if ok && ne.Timeout() || errors.Is(err, context.DeadlineExceeded) {
		return failed(backend.StatusTimeout, "Braid at %s did not answer in time: narrow the query or the time range, or raise the timeout of the data source", c.set.base)
	}
	return failed(backend.StatusBadGateway, "Braid at %s cannot be reached from Grafana: %w. Is it running, and is the URL of the data source right?", c.set.base, err)
}

// check returns nil for a good answer.
func (c *client) check(path string, resp *http.Response, body []byte) error {
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	code := resp.StatusCode
	switch {
	case code >= 300 && code < 400:
		return failed(backend.StatusBadGateway, "%s redirects to %s: enter the URL that Braid itself answers at", c.set.base, clip(resp.Header.Get("Location")))
	case code == http.StatusUnauthorized || code == http.StatusForbidden:
		what := "no token or password is set in the data source, and one is wanted"
		if c.set.token != "" || resp.Request.Header.Get("Authorization") != "" {
			what = "check the token or password in the data source"
		}
		return failed(backend.Status(code), "%s refuses the request (%d): %s", c.set.base, code, what)
	case code == http.StatusNotFound && (kind == "text/html" || strings.TrimSpace(string(body)) == "404 page not found"):
		return c.notBraid("it has no %s", path)
	case code == http.StatusOK && kind == "application/json":
		return nil
	case kind == "text/html":
		return c.notBraid("it answers with a page%s (%d)", title(body), code)
	case code == http.StatusOK:
		return c.notBraid("it answers with %q instead of JSON", clip(kind))
	case code >= 500:
		return failed(backend.Status(code), "Braid at %s answers %d: %s", c.set.base, code, message(body))
	}
	return failed(backend.Status(code), "%s", message(body))
}

func (c *client) notBraid(format string, args ...any) error {
	return failed(backend.StatusBadGateway, "%s is not a Braid server: %s. Enter the URL that Braid answers queries at, such as http://localhost:9090",
		c.set.base, fmt.Sprintf(format, args...))
}

// decode reads the JSON of an answer into v.
func (c *client) decode(body []byte, v any) error {
	if err := json.Unmarshal(body, v); err != nil {
		return c.notBraid("its answer is not understood (%v)", err)
	}
	return nil
}

// message is the error in an answer: {"error": ...} or plain text.
func message(body []byte) string {
	var e struct {
		Error string `json:"error"`
	}
	if json.Unmarshal(body, &e) == nil && e.Error != "" {
		return clip(e.Error)
	}
	if s := strings.TrimSpace(string(body)); s != "" {
		return clip(s)
	}
	return "no message"
}

// clip bounds what is quoted of an answer.
func clip(s string) string {
	const most = 500
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "..."
	}
	return s
}

// title quotes the title of a page.
func title(page []byte) string {
	s := string(page[:min(len(page), 8192)])
	_, s, ok := strings.Cut(s, "<title>")
	if !ok {
		return ""
	}
	if s, _, ok = strings.Cut(s, "</title>"); !ok {
		return ""
	}
	return fmt.Sprintf(" titled %q", clip(strings.TrimSpace(s)))
}
