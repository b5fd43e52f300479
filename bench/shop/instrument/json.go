package instrument

import (
	"bytes"
	"fmt"
	"io"
	"mime"
	"net/http"

	"go.opentelemetry.io/collector/pdata/plog/plogotlp"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
)

// maxResponse bounds what is read of a receiver's answer.
const maxResponse = 1 << 20

const (
	typeJSON     = "application/json"
	typeProtobuf = "application/x-protobuf"
)

// jsonConversion translates the bodies of one OTLP endpoint between protobuf, which the SDK's exporter speaks, and the
// JSON form of OTLP, which goes over the wire.
type jsonConversion interface {
	request(protobuf []byte) (json []byte, err error)
	response(json []byte) (protobuf []byte, err error)
}

// jsonTransport makes an OTLP/HTTP JSON exporter of the SDK's protobuf one: there is none for metrics and logs.
type jsonTransport struct {
	next    http.RoundTripper
	convert jsonConversion
}

// RoundTrip sends the request in JSON and gives the answer back in protobuf. Answers that are not JSON pass unchanged.
func (t jsonTransport) RoundTrip(in *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(in.Body)
	closeErr := in.Body.Close()
	if err != nil {
		return nil, fmt.Errorf("read export request: %w", err)
	}
	if closeErr != nil {
		return nil, fmt.Errorf("close export request: %w", closeErr)
	}
	if body, err = t.convert.request(body); err != nil {
		return nil, fmt.Errorf("convert export request: %w", err)
	}
	out := in.Clone(in.Context())
	out.Body = io.NopCloser(bytes.NewReader(body))
	out.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	out.ContentLength = int64(len(body))
	out.Header.Set("Content-Type", typeJSON)

	resp, err := t.next.RoundTrip(out)
	if err != nil {
		return nil, err
	}
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")) // an invalid type is just not JSON
	if resp.StatusCode/100 != 2 || kind != typeJSON {
		return resp, nil
	}
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxResponse))
	closeErr = resp.Body.Close()
	if err != nil {
		return nil, fmt.Errorf("read export response: %w", err)
	}
	if closeErr != nil {
		return nil, fmt.Errorf("close export response: %w", closeErr)
	}
	if len(answer) > 0 {
		if answer, err = t.convert.response(answer); err != nil {
			return nil, fmt.Errorf("convert export response: %w", err)
		}
	}
	resp.Header.Set("Content-Type", typeProtobuf)
	resp.Body = io.NopCloser(bytes.NewReader(answer))
	resp.ContentLength = int64(len(answer))
	return resp, nil
}

type metricsJSON struct{}

func (metricsJSON) request(b []byte) ([]byte, error) {
	r := pmetricotlp.NewExportRequest()
	if err := r.UnmarshalProto(b); err != nil {
		return nil, err
	}
	return r.MarshalJSON()
}

func (metricsJSON) response(b []byte) ([]byte, error) {
	r := pmetricotlp.NewExportResponse()
	if err := r.UnmarshalJSON(b); err != nil {
		return nil, err
	}
	return r.MarshalProto()
}

type logsJSON struct{}

func (logsJSON) request(b []byte) ([]byte, error) {
	r := plogotlp.NewExportRequest()
	if err := r.UnmarshalProto(b); err != nil {
		return nil, err
	}
	return r.MarshalJSON()
}

func (logsJSON) response(b []byte) ([]byte, error) {
	r := plogotlp.NewExportResponse()
	if err := r.UnmarshalJSON(b); err != nil {
		return nil, err
	}
	return r.MarshalProto()
}
