package instrument

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
)

func TestIdentity(t *testing.T) {
	a, again := NewIdentity("checkout", "checkout", "1.0.0", 1), NewIdentity("checkout", "checkout", "1.0.0", 1)
	require.Regexp(t, `^checkout-[bcdfghjklmnpqrstvwxz2456789]{9}-[bcdfghjklmnpqrstvwxz2456789]{5}$`, a.Pod)
	require.Regexp(t, `^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`, a.PodUID)
	require.NotEqual(t, a.InstanceID, again.InstanceID, "a restarted container is another instance")
	again.InstanceID = a.InstanceID
	require.Equal(t, a, again)
	for name, other := range map[string]Identity{
		"seed":     NewIdentity("checkout", "checkout", "1.0.0", 2),
		"instance": NewIdentity("checkout", "checkout-2", "1.0.0", 1),
		"version":  NewIdentity("checkout", "checkout", "1.1.0", 1),
	} {
		require.NotEqual(t, a.Pod, other.Pod, name)
		require.NotEqual(t, a.PodUID, other.PodUID, name)
	}

	a.Extra = map[string]string{"k8s.cluster.name": "other", "team": "shop"}
	res, err := a.Resource()
	require.NoError(t, err)
	got := map[string]string{}
	for _, kv := range res.Attributes() {
		got[string(kv.Key)] = kv.Value.AsString()
	}
	require.Equal(t, "other", got["k8s.cluster.name"])
	require.Equal(t, "shop", got["team"])
	require.Equal(t, a.Pod, got["k8s.pod.name"])
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestJSONTransport(t *testing.T) {
	in := pmetricotlp.NewExportRequestFromMetrics(pmetric.NewMetrics())
	in.Metrics().ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics().AppendEmpty().SetName("orders")
	body, err := in.MarshalProto()
	require.NoError(t, err)
	partial := pmetricotlp.NewExportResponse()
	partial.PartialSuccess().SetRejectedDataPoints(3)
	answer, err := partial.MarshalJSON()
	require.NoError(t, err)

	for _, tc := range []struct {
		name, kind string
		status     int
		answer     []byte
		wantKind   string
		wantReject int64 // of an answer in protobuf
	}{
		{"partial success", "application/json; charset=utf-8", 200, answer, typeProtobuf, 3},
		{"empty", typeJSON, 200, nil, typeProtobuf, 0},
		{"error", typeJSON, 400, []byte(`{"message":"no"}`), typeJSON, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			transport := jsonTransport{convert: metricsJSON{}, next: roundTrip(func(r *http.Request) (*http.Response, error) {
				require.Equal(t, []string{typeJSON}, r.Header.Values("Content-Type"))
				sent, err := io.ReadAll(r.Body)
				require.NoError(t, err)
				require.Len(t, sent, int(r.ContentLength))
				require.JSONEq(t, `{"resourceMetrics":[{"resource":{},"scopeMetrics":[{"scope":{},"metrics":[{"name":"orders"}]}]}]}`, string(sent))
				return &http.Response{
					StatusCode: tc.status, Header: http.Header{"Content-Type": {tc.kind}}, Body: io.NopCloser(bytes.NewReader(tc.answer)),
				}, nil
			})}
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://receiver/v1/metrics", bytes.NewReader(body))
			require.NoError(t, err)
			req.Header.Set("Content-Type", typeProtobuf)
			resp, err := transport.RoundTrip(req)
			require.NoError(t, err)
			got, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			require.Equal(t, []string{tc.wantKind}, resp.Header.Values("Content-Type"))
			if tc.wantKind == typeProtobuf {
				message := pmetricotlp.NewExportResponse()
				require.NoError(t, message.UnmarshalProto(got))
				require.Equal(t, tc.wantReject, message.PartialSuccess().RejectedDataPoints())
			} else {
				require.Equal(t, tc.answer, got)
			}
			require.Equal(t, typeProtobuf, req.Header.Get("Content-Type"), "the caller's request is as it was")
		})
	}

	t.Run("no connection", func(t *testing.T) {
		refused := errors.New("refused")
		transport := jsonTransport{convert: logsJSON{}, next: roundTrip(func(*http.Request) (*http.Response, error) { return nil, refused })}
		req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, "http://receiver/v1/logs", http.NoBody)
		require.NoError(t, err)
		resp, err := transport.RoundTrip(req) //nolint:bodyclose // there is none
		require.ErrorIs(t, err, refused)
		require.Nil(t, resp)
	})
}
