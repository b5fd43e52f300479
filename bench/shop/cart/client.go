package cart

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/braidobs/braid/bench/shop/wire"
)

// Client calls a cart service.
type Client struct {
	HTTP *http.Client
	Addr string // host:port
}

// StatusError is an answer other than the one wanted.
type StatusError struct {
	Code    int
	Message string
}

func (e *StatusError) Error() string { return fmt.Sprintf("status %d: %s", e.Code, e.Message) }

// Put replaces the user's cart.
func (c Client) Put(ctx context.Context, user string, cart wire.Cart) error {
	body, err := json.Marshal(cart)
	if err != nil {
		return fmt.Errorf("encode cart: %w", err)
	}
	return c.do(ctx, http.MethodPut, user, body, nil)
}

// Get returns the user's cart.
func (c Client) Get(ctx context.Context, user string) (wire.Cart, error) {
	var cart wire.Cart
	err := c.do(ctx, http.MethodGet, user, nil, &cart)
	return cart, err
}

// Delete empties the user's cart.
func (c Client) Delete(ctx context.Context, user string) error {
	return c.do(ctx, http.MethodDelete, user, nil, nil)
}

func (c Client) do(ctx context.Context, method, user string, body []byte, reply *wire.Cart) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s cart: %w", method, err)
		}
	}()
	target := url.URL{Scheme: "http", Host: c.Addr, Path: "/cart/" + user}
	req, err := http.NewRequestWithContext(ctx, method, target.String(), bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := c.HTTP.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return &StatusError{Code: resp.StatusCode, Message: string(bytes.TrimSpace(answer))}
	}
	if reply == nil {
		return nil
	}
	return json.Unmarshal(answer, reply)
}
