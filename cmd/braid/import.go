package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"time"

	"github.com/braidobs/braid/internal/app"
)

const importUsage = `braid import sends what another system has on disk to a running braid.

  braid import prometheus [flags] DIR   the blocks in the data folder of a Prometheus, or in a snapshot of it

Blocks are read, never written. A snapshot (POST /api/v1/admin/tsdb/snapshot of the Prometheus) has the newest samples
as well. An import that was cut off goes on where it was when the same command runs again; what is sent twice is stored
once. Samples older than storage.retention of the server are refused.

Flags:
`

// imports is the command "import".
func imports(ctx context.Context, args []string, out, errOut io.Writer) error {
	flags := flag.NewFlagSet("braid import", flag.ContinueOnError)
	flags.SetOutput(errOut)
	var p app.PrometheusImport
	flags.StringVar(&p.URL, "url", "http://127.0.0.1:9090", "the `address` of the server")
	flags.StringVar(&p.Tenant, "tenant", "", "the `name` of the tenant that gets the samples; the default one when empty")
	flags.StringVar(&p.State, "state", "braid-import.json", "the `file` that remembers how far the import came; empty for none")
	flags.Usage = func() {
		to := errOut
		if helpAsked(args) {
			to = out
		}
		fmt.Fprint(to, importUsage)
		flags.SetOutput(to)
		flags.PrintDefaults()
	}
	from := ""
	if len(args) > 0 && len(args[0]) > 0 && args[0][0] != '-' {
		from, args = args[0], args[1:]
	}
	if err := flags.Parse(args); err != nil {
		return err
	}
	switch {
	case from == "":
		flags.Usage()
		return errors.New("import from what? prometheus is known")
	case from != "prometheus":
		return fmt.Errorf("importing from %q is not known; see braid import -help", from)
	case flags.NArg() != 1:
		return errors.New("name one folder; see braid import -help")
	}
	p.Dir = flags.Arg(0)
	return app.ImportPrometheus(ctx, out, time.Now, p)
}
