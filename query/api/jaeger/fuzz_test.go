package jaeger

import (
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/braidobs/braid/internal/httpapi"
	"github.com/braidobs/braid/internal/wire"
	"github.com/braidobs/braid/query"
)

// FuzzRequest reads whatever as requests of both gRPC services and of both HTTP APIs: it is understood, or refused as bad data.
func FuzzRequest(f *testing.F) {
	f.Add(wire.AppendMessage(nil, 1, func(b []byte) []byte {
		b = wire.AppendText(wire.AppendText(b, 1, "shop"), 2, "GET /")
		b = wire.AppendMessage(b, 3, func(b []byte) []byte {
			return wire.AppendMessage(wire.AppendText(b, 1, "code"), 2, func(b []byte) []byte { return wire.AppendNumber(b, 3, 500) })
		})
		return wire.AppendNumber(appendTime(b, 4, 1e18), 8, 20)
	}), "query.service_name=a&query.attributes=%7B%22a%22:%22b%22%7D&tags=%7B%7D&tag=a:b&lookback=2d&start=1&minDuration=1s")
	f.Fuzz(func(t *testing.T, req []byte, params string) {
		refused := func(err error) {
			if err != nil {
				require.Equal(t, httpapi.BadData, query.KindOf(err), "%v", err)
			}
		}
		for _, storageAPI := range []bool{true, false} {
			p, err := queryOf(req, storageAPI)
			refused(err)
			if err == nil {
				p.where()
			}
		}
		q, err := url.ParseQuery(params)
		if err != nil {
			return
		}
		p, err := v3Params(q)
		refused(err)
		p.where()
		p, err = oldParams(q, time.Unix(1, 0))
		refused(err)
		p.where()
	})
}
