package app

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/braidobs/braid/ingest/block"
)

// PrometheusImport says what is imported, and where to.
type PrometheusImport struct {
	Dir    string // the data folder of a Prometheus, a snapshot of it, or a block
	URL    string // of the server
	Tenant string // "" for the default one
	State  string // the file that remembers how far the import came; "" for none
}

// ImportPrometheus sends the blocks of a Prometheus to a server and writes how far it is. Samples that the server does
// not take are an error, at the end.
func ImportPrometheus(ctx context.Context, out io.Writer, now func() time.Time, p PrometheusImport) error {
	began := now()
	client := &http.Client{Transport: &http.Transport{Proxy: http.ProxyFromEnvironment}, Timeout: 2 * time.Minute}
	defer client.CloseIdleConnections()
	t, err := block.Import(ctx, block.Options{Dir: p.Dir, URL: p.URL, Tenant: p.Tenant, State: p.State, Client: client, Out: out, Now: now})
	if err != nil {
		return fmt.Errorf("%w; run the same command again to go on", err)
	}
	fmt.Fprintf(out, "%d blocks, %d samples in %s\n", t.Blocks, t.Samples, now().Sub(began).Round(time.Second))
	if t.Refused > 0 {
		return fmt.Errorf("%d samples were not stored: %s", t.Refused, t.Reason)
	}
	return nil
}
