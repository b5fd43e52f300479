// Command host is the server of the browser test: the page and the front end of the plugin, the plugin's real backend,
// and behind it a real server with a small shop, which wants a token. It prints where it listens and runs until its
// standard input ends.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/backend"

	"github.com/braidobs/braid/grafana-plugin/internal/host"
	"github.com/braidobs/braid/grafana-plugin/internal/lab"
)

const token = "s3cret"

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "host:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	dist := flag.String("dist", "dist", "the `folder` of the plugin's front end")
	web := flag.String("web", "browser/out", "the `folder` of the page")
	flag.Parse()
	dir, err := os.MkdirTemp("", "braid-browser-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	start, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	plugin, err := lab.Build(start, dir, "gpx_braid", "github.com/braidobs/braid/grafana-plugin/pkg")
	if err != nil {
		return err
	}
	server, err := lab.Build(start, dir, "braid", "github.com/braidobs/braid/cmd/braid")
	if err != nil {
		return err
	}
	srv, err := lab.Start(start, server, dir)
	if err != nil {
		return err
	}
	defer srv.Stop()
	now := time.Now().UTC().Truncate(time.Second)
	if err := srv.Fill(start, now); err != nil {
		return err
	}
	guard, err := lab.Guard(srv.URL, token)
	if err != nil {
		return err
	}
	h, err := host.Launch(start, plugin, os.Stderr)
	if err != nil {
		return err
	}
	defer h.Kill()
	pc := backend.PluginContext{
		PluginID: "braidobs-braid-datasource", PluginVersion: "0.1.0", User: &backend.User{Login: "admin", Role: "Admin"},
		DataSourceInstanceSettings: &backend.DataSourceInstanceSettings{ID: 1, UID: "braid-uid", Name: "Braid", JSONData: []byte("{}"), Updated: now},
	}
	back, braid, err := serve(start, guard)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, back.Close()) }()
	front, page, err := serve(start, h.Handler(pc, *dist, *web))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, front.Close()) }()
	if err := json.NewEncoder(os.Stdout).Encode(map[string]any{"page": page, "braid": braid, "token": token, "trace": lab.TraceID, "now": now.UnixMilli()}); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// serve serves on a free port of loopback.
func serve(ctx context.Context, handler http.Handler) (*http.Server, string, error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, "", err
	}
	srv := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = srv.Serve(ln) }() // it ends when it is closed
	return srv, "http://" + ln.Addr().String(), nil
}
