package plugin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"

	"github.com/grafana/grafana-plugin-sdk-go/backend"
)

// CheckHealth computes 1+1 on the server and looks whether it is Braid.
func (d *Datasource) CheckHealth(ctx context.Context, _ *backend.CheckHealthRequest) (*backend.CheckHealthResult, error) {
	version, err := d.health(ctx)
	if err != nil {
		return unhealthy(err)
	}
	tenant := d.set.tenant
	if tenant == "" {
		tenant = "default"
	}
	details, err := json.Marshal(map[string]string{"version": version, "tenant": tenant})
	if err != nil {
		return nil, fmt.Errorf("encode the details: %w", err)
	}
	return &backend.CheckHealthResult{
		Status: backend.HealthStatusOk, Message: fmt.Sprintf("Braid %s answers queries (tenant %s)", version, tenant), JSONDetails: details,
	}, nil
}

// unhealthy is an answer for what a person can set right, and an error for a fault of the plugin.
func unhealthy(err error) (*backend.CheckHealthResult, error) {
	if _, ok := errors.AsType[*failure](err); !ok {
		return nil, err
	}
	return &backend.CheckHealthResult{Status: backend.HealthStatusError, Message: err.Error()}, nil
}

func (d *Datasource) health(ctx context.Context) (version string, err error) {
	if d.broken != nil {
		return "", badRequest("%w", d.broken)
	}
	body, err := d.client.get(ctx, "/api/v1/query", url.Values{"query": {"1+1"}})
	if err != nil {
		return "", err
	}
	var sum struct {
		Data struct {
			Result point `json:"result"`
		} `json:"data"`
	}
	if err := d.client.decode(body, &sum); err != nil {
		return "", err
	}
	if sum.Data.Result.value != 2 {
		return "", d.client.notBraid("1+1 is %v there", sum.Data.Result.value)
	}
	if body, err = d.client.get(ctx, "/api/v1/status/buildinfo", url.Values{}); err != nil {
		return "", err
	}
	var build struct {
		Data struct {
			Revision string `json:"revision"`
			Branch   string `json:"branch"`
			Version  string `json:"version"`
		} `json:"data"`
	}
	if err := d.client.decode(body, &build); err != nil {
		return "", err
	}
	if build.Data.Branch != "braid" {
		return "", d.client.notBraid("it speaks PromQL and says that it is version %s of something else", clip(build.Data.Version))
	}
	return clip(build.Data.Revision), nil
}
