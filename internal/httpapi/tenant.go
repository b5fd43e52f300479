package httpapi

import (
	"context"
	"net/http"
	"strings"

	"github.com/braidobs/braid/internal/telemetry"
)

// TenantHeader is the HTTP header that names the tenant. In gRPC metadata its name is lower case.
const TenantHeader = "X-Scope-OrgID"

type tenantKey struct{}

// WithTenant puts the tenant of a request into its context.
func WithTenant(ctx context.Context, t telemetry.Tenant) context.Context {
	return context.WithValue(ctx, tenantKey{}, t)
}

// TenantFrom returns the tenant of the request, or the empty tenant, which no store accepts, when WithTenant was
// not called.
func TenantFrom(ctx context.Context) telemetry.Tenant {
	t, _ := ctx.Value(tenantKey{}).(telemetry.Tenant)
	return t
}

// ParseTenant returns the tenant that the values of a header name: the default one when there is none. Ingest may
// not write to the tenant that Braid keeps for itself. Errors are BadData.
func ParseTenant(values []string, s Surface) (telemetry.Tenant, error) {
	name := ""
	for _, v := range values {
		if name != "" && v != name {
			return "", BadDataf("%s is given more than once", TenantHeader)
		}
		name = v
	}
	t := telemetry.Tenant(name)
	switch {
	case name == "":
		return telemetry.DefaultTenant, nil
	case strings.Contains(name, "|"):
		return "", BadDataf("%s: several tenants in one request are not supported; name one", TenantHeader)
	case !t.Valid():
		return "", BadDataf("%s: a tenant is 1 to 64 of the characters A-Z, a-z, 0-9, _ and -", TenantHeader)
	case t == telemetry.SelfTenant && s == Ingest:
		return "", BadDataf("%s: tenant %s can be read but not written", TenantHeader, t)
	}
	return t, nil
}

// Tenant puts the tenant that a request names into its context and refuses requests that name it wrongly.
func Tenant(s Surface, errs Errors) Middleware {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			t, err := ParseTenant(r.Header.Values(TenantHeader), s)
			if err != nil {
				errs.Text(w, r, s, err)
				return
			}
			next.ServeHTTP(w, r.WithContext(WithTenant(r.Context(), t)))
		})
	}
}
