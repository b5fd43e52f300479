package alerting

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/prometheus/common/model"

	"github.com/braidobs/braid/alerting/notify"
	"github.com/braidobs/braid/internal/config"
	"github.com/braidobs/braid/internal/telemetry"
)

// Config is section "alerting" of the configuration.
type Config struct {
	Rules              []string          `yaml:"rules" help:"Rule files of Prometheus, each a path or a pattern such as rules/*.yml, from the folder that the process runs in."`
	SLOs               []string          `yaml:"slos" help:"Files of service level objectives, in the short form or of OpenSLO v1, each a path or a pattern."`
	SLOScale           float64           `yaml:"slo_scale" help:"By how much the windows and periods of objectives are shortened; 1 but in tests and demonstrations."`
	EvaluationInterval config.Duration   `yaml:"evaluation_interval" help:"How often the groups are evaluated that name no interval."`
	Alertmanagers      []notify.URL      `yaml:"alertmanagers" help:"The Alertmanagers that every alert is sent to, as URLs such as http://user:password@alertmanager:9093/prefix."`
	ExternalURL        string            `yaml:"external_url" help:"The URL under which people reach this server: it stands in the links of alerts. Empty is the address of server.http."`
	ExternalLabels     map[string]string `yaml:"external_labels" help:"Labels that every alert is sent with unless it has them, such as the cluster."`
	ResendDelay        config.Duration   `yaml:"resend_delay" help:"How long to wait before an alert that goes on firing is sent again."`
	Tenant             string            `yaml:"tenant" help:"The tenant whose series the rules read and write."`
}

// DefaultConfig has no rules and sends to nobody.
func DefaultConfig() Config {
	return Config{
		SLOScale: 1, EvaluationInterval: config.Duration(time.Minute), ResendDelay: config.Duration(time.Minute), Tenant: string(telemetry.DefaultTenant),
	}
}

// Validate returns all mistakes. It does not read the rule files; Check does.
func (c Config) Validate() error {
	var e config.Errors
	for i, p := range c.Rules {
		if p == "" {
			e.Field(fmt.Sprintf("rules[%d]", i), errors.New("must name a file"))
		}
	}
	for i, p := range c.SLOs {
		if p == "" {
			e.Field(fmt.Sprintf("slos[%d]", i), errors.New("must name a file"))
		}
	}
	if !(c.SLOScale >= 1 && c.SLOScale <= 100_000) {
		e.Field("slo_scale", errors.New("must be from 1 to 100000"))
	}
	if c.EvaluationInterval < config.Duration(time.Millisecond) {
		e.Field("evaluation_interval", errors.New("must be at least 1ms"))
	}
	if c.ResendDelay < 0 {
		e.Field("resend_delay", errors.New("must not be negative"))
	}
	if c.ExternalURL != "" {
		_, err := externalURL(c.ExternalURL)
		e.Field("external_url", err)
	}
	for name, v := range c.ExternalLabels {
		if !model.UTF8Validation.IsValidLabelName(name) || name == model.MetricNameLabel {
			e.Field("external_labels", fmt.Errorf("%q is no name of a label", name))
		}
		if !model.LabelValue(v).IsValid() {
			e.Field("external_labels", fmt.Errorf("%q has a value that is not UTF-8", name))
		}
	}
	if !telemetry.Tenant(c.Tenant).Valid() {
		e.Field("tenant", errors.New("must be 1 to 64 of the characters A-Z, a-z, 0-9, _ and -"))
	}
	return e.Err()
}

// externalURL reads the URL that links begin with; a slash at its end goes.
func externalURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("%q is not a URL such as https://braid.example.org/prefix", s)
	}
	u.Path = strings.TrimRight(u.Path, "/")
	u.RawPath = ""
	return u, nil
}
