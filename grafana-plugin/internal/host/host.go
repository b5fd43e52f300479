// Package host stands in for Grafana: it launches a plugin's binary with Grafana's handshake and its sparse environment,
// talks to it over gRPC, and answers the part of Grafana's HTTP API that the front end of a data source uses. For tests.
package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"

	"github.com/grafana/grafana-plugin-sdk-go/backend"
	"github.com/grafana/grafana-plugin-sdk-go/backend/grpcplugin"
	"github.com/grafana/grafana-plugin-sdk-go/genproto/pluginv2"
	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
)

// maxMessage is the largest gRPC message, as in Grafana.
const maxMessage = 256 << 20

// Host is a running plugin.
type Host struct {
	client      *goplugin.Client
	diagnostics grpcplugin.DiagnosticsClient
	resource    grpcplugin.ResourceClient
	data        grpcplugin.DataClient
	pid         int
}

// Launch starts the binary and waits for its handshake. Its log goes to log.
func Launch(ctx context.Context, binary string, log io.Writer) (*Host, error) {
	cmd := exec.CommandContext(context.WithoutCancel(ctx), binary)
	// Grafana passes an explicit environment; a plugin must not rely on more.
	cmd.Env = []string{"GF_VERSION=13.1.1", "GF_EDITION=OpenSource", "GF_PLUGIN_TRACING=0"}
	h := &Host{client: goplugin.NewClient(&goplugin.ClientConfig{
		Cmd: cmd,
		HandshakeConfig: goplugin.HandshakeConfig{
			ProtocolVersion: grpcplugin.ProtocolVersion, MagicCookieKey: grpcplugin.MagicCookieKey, MagicCookieValue: grpcplugin.MagicCookieValue,
		},
		VersionedPlugins: map[int]goplugin.PluginSet{grpcplugin.ProtocolVersion: {
			"diagnostics": &grpcplugin.DiagnosticsGRPCPlugin{}, "resource": &grpcplugin.ResourceGRPCPlugin{}, "data": &grpcplugin.DataGRPCPlugin{},
		}},
		AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC},
		Logger:           hclog.New(&hclog.LoggerOptions{Level: hclog.Warn, Output: log}),
	})}
	rpc, err := h.client.Client()
	if err != nil {
		h.client.Kill()
		return nil, fmt.Errorf("launch %s: %w", binary, err)
	}
	h.pid = cmd.Process.Pid
	for name, set := range map[string]func(any) bool{
		"diagnostics": func(v any) (ok bool) { h.diagnostics, ok = v.(grpcplugin.DiagnosticsClient); return ok },
		"resource":    func(v any) (ok bool) { h.resource, ok = v.(grpcplugin.ResourceClient); return ok },
		"data":        func(v any) (ok bool) { h.data, ok = v.(grpcplugin.DataClient); return ok },
	} {
		v, err := rpc.Dispense(name)
		if err == nil && !set(v) {
			err = fmt.Errorf("it is a %T", v)
		}
		if err != nil {
			h.client.Kill()
			return nil, fmt.Errorf("service %s of the plugin: %w", name, err)
		}
	}
	return h, nil
}

// PID is the plugin's process.
func (h *Host) PID() int { return h.pid }

// Exited reports whether the process has ended.
func (h *Host) Exited() bool { return h.client.Exited() }

// Kill asks the plugin to end and waits until it has.
func (h *Host) Kill() { h.client.Kill() }

// CheckHealth is what "Save & test" does.
func (h *Host) CheckHealth(ctx context.Context, pc backend.PluginContext) (*pluginv2.CheckHealthResponse, error) {
	return h.diagnostics.CheckHealth(ctx, &pluginv2.CheckHealthRequest{PluginContext: backend.ToProto().PluginContext(pc)})
}

// Metrics are the plugin's own, in Prometheus's text format.
func (h *Host) Metrics(ctx context.Context) (string, error) {
	m, err := h.diagnostics.CollectMetrics(ctx, &pluginv2.CollectMetricsRequest{})
	if err != nil {
		return "", err
	}
	return string(m.GetMetrics().GetPrometheus()), nil
}

// QueryData asks the queries of one panel, or of one alert rule.
func (h *Host) QueryData(ctx context.Context, req *backend.QueryDataRequest) (*backend.QueryDataResponse, error) {
	out, err := h.data.QueryData(ctx, backend.ToProto().QueryDataRequest(req))
	if err != nil {
		return nil, err
	}
	return backend.FromProto().QueryDataResponse(out)
}

// Resource calls a path of the plugin.
func (h *Host) Resource(ctx context.Context, req *backend.CallResourceRequest) (*backend.CallResourceResponse, error) {
	stream, err := h.resource.CallResource(ctx, backend.ToProto().CallResourceRequest(req))
	if err != nil {
		return nil, err
	}
	out := &backend.CallResourceResponse{}
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		part := backend.FromProto().CallResourceResponse(m)
		if out.Status == 0 {
			out.Status, out.Headers = part.Status, part.Headers
		}
		if out.Body = append(out.Body, part.Body...); len(out.Body) > maxMessage {
			return nil, errors.New("the answer of the resource is too large")
		}
	}
}
