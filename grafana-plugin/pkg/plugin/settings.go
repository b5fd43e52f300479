package plugin

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/backend"
)

// options is jsonData of the data source. TLS, basic authentication and timeout have the names that Grafana's HTTP
// settings have everywhere, and are read by the SDK.
type options struct {
	Tenant         string `json:"tenant"`
	TimeInterval   string `json:"timeInterval"`
	MaxLines       int    `json:"maxLines"`
	MaxResponseMiB int64  `json:"maxResponseMiB"`
}

type settings struct {
	base     *url.URL
	uid      string
	name     string
	tenant   string
	token    string
	scrape   time.Duration // how often samples come
	maxLines int
	maxBytes int64
}

const (
	defaultScrape      = time.Minute // what OpenTelemetry SDKs export at
	defaultMaxLines    = 1000
	defaultResponseMiB = 64
	maxTenants         = 64 // names in one setting
)

func parseSettings(s *backend.DataSourceInstanceSettings) (settings, error) {
	out := settings{uid: s.UID, name: s.Name, scrape: defaultScrape, maxLines: defaultMaxLines, token: strings.TrimSpace(s.DecryptedSecureJSONData["token"])}
	var o options
	if len(s.JSONData) > 0 {
		if err := json.Unmarshal(s.JSONData, &o); err != nil {
			return out, fmt.Errorf("jsonData of the data source: %w", err)
		}
	}
	base, err := parseURL(s.URL)
	var interval error
	if o.TimeInterval != "" {
		out.scrape, interval = parseDuration(o.TimeInterval)
	}
	err = errors.Join(err, at("timeInterval", interval), at("tenant", checkTenant(o.Tenant)))
	if o.MaxLines < 0 {
		err = errors.Join(err, errors.New("maxLines must not be negative"))
	}
	if o.MaxResponseMiB < 0 || o.MaxResponseMiB > 4096 {
		err = errors.Join(err, errors.New("maxResponseMiB must be from 1 to 4096"))
	}
	if strings.ContainsAny(out.token, "\r\n") {
		err = errors.Join(err, errors.New("the token has a line break in it"))
	}
	if err != nil {
		return out, fmt.Errorf("settings of the data source: %w", err)
	}
	out.base, out.tenant = base, o.Tenant
	if o.MaxLines > 0 {
		out.maxLines = o.MaxLines
	}
	if o.MaxResponseMiB == 0 {
		o.MaxResponseMiB = defaultResponseMiB
	}
	out.maxBytes = o.MaxResponseMiB << 20
	return out, nil
}

func at(field string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", field, err)
}

func parseURL(s string) (*url.URL, error) {
	s = strings.TrimSpace(s)
	if s == "" {
		return nil, errors.New("the URL is missing: enter where Braid answers queries, such as http://localhost:9090")
	}
	u, err := url.Parse(s)
	if err != nil {
		return nil, fmt.Errorf("the URL cannot be read, one such as http://localhost:9090 is wanted: %w", err)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("the URL %q must begin with http:// or https:// and have a host, as http://localhost:9090 has", s)
	}
	if u.User != nil {
		return nil, errors.New("the URL must not hold a password: use the token or basic authentication")
	}
	u.RawQuery, u.Fragment = "", ""
	return u, nil
}

func checkTenant(s string) error {
	if s == "" {
		return nil
	}
	names := strings.Split(s, "|")
	if len(names) > maxTenants {
		return fmt.Errorf("%d tenants are more than %d", len(names), maxTenants)
	}
	for _, n := range names {
		bad := strings.IndexFunc(n, func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '_' && r != '-'
		})
		if n == "" || len(n) > 64 || bad >= 0 {
			return fmt.Errorf("%q is no tenant: 1 to 64 of the characters A-Z, a-z, 0-9, _ and -", n)
		}
	}
	return nil
}
