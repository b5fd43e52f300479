package httpapi_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/braidobs/braid/internal/httpapi"
)

type kinded struct {
	kind  httpapi.Kind
	after time.Duration
}

func (k kinded) Error() string             { return "kinded text" }
func (k kinded) ErrorKind() httpapi.Kind   { return k.kind }
func (k kinded) RetryAfter() time.Duration { return k.after }

func TestErrorTable(t *testing.T) {
	other := errors.New("of another package")
	errs := httpapi.Errors{Classify: func(err error) *httpapi.Error {
		if errors.Is(err, other) {
			return httpapi.NewOverloaded(3*time.Second, "classified")
		}
		return nil
	}}
	tests := []struct {
		name          string
		in            error
		message       string
		ingest, query int
		code          codes.Code
		prometheus    string
		retry         string
	}{
		{"bad data", httpapi.BadDataf("at %d", 3), "at 3", 400, 400, codes.InvalidArgument, "bad_data", ""},
		{"wrapped", fmt.Errorf("outer: %w", httpapi.BadDataf("inner")), "inner", 400, 400, codes.InvalidArgument, "bad_data", ""},
		{"unauthorized", httpapi.Errorf(httpapi.Unauthorized, "who"), "who", 401, 401, codes.Unauthenticated, "unauthorized", ""},
		{"not found", httpapi.NotFoundf("x"), "x", 404, 404, codes.NotFound, "not_found", ""},
		{"too large", &http.MaxBytesError{Limit: 7}, "the body is larger than 7 bytes", 413, 413, codes.ResourceExhausted, "bad_data", ""},
		{"media", httpapi.Errorf(httpapi.UnsupportedMedia, "x"), "x", 415, 415, codes.InvalidArgument, "bad_data", ""},
		{"tenant limit", httpapi.Errorf(httpapi.TenantLimit, "x"), "x", 429, 422, codes.ResourceExhausted, "execution", ""},
		{"query limit", httpapi.Errorf(httpapi.QueryLimit, "x"), "x", 422, 422, codes.ResourceExhausted, "execution", ""},
		{"execution", httpapi.Errorf(httpapi.Execution, "x"), "x", 422, 422, codes.FailedPrecondition, "execution", ""},
		{"overloaded", httpapi.NewOverloaded(1500*time.Millisecond, "x"), "x", 503, 503, codes.Unavailable, "unavailable", "2"},
		{"unavailable", httpapi.Errorf(httpapi.Unavailable, "x"), "x", 503, 503, codes.Unavailable, "unavailable", ""},
		{"deadline", fmt.Errorf("scan: %w", context.DeadlineExceeded), "the request took too long", 504, 503, codes.DeadlineExceeded, "timeout", ""},
		{"canceled", fmt.Errorf("scan: %w", context.Canceled), "the request was canceled", 499, 499, codes.Canceled, "canceled", ""},
		{"kinded", fmt.Errorf("outer: %w", kinded{httpapi.QueryLimit, 0}), "kinded text", 422, 422, codes.ResourceExhausted, "execution", ""},
		{"kinded overloaded", kinded{httpapi.Overloaded, 0}, "kinded text", 503, 503, codes.Unavailable, "unavailable", "1"},
		{"kinded with retry", kinded{httpapi.TenantLimit, time.Minute}, "kinded text", 429, 422, codes.ResourceExhausted, "execution", "60"},
		{"classified", fmt.Errorf("outer: %w", other), "classified", 503, 503, codes.Unavailable, "unavailable", "3"},
		{"unknown", errors.New("secret"), "internal error*", 500, 500, codes.Internal, "internal", ""},
		{"kinded internal", kinded{httpapi.Internal, 0}, "internal error*", 500, 500, codes.Internal, "internal", ""},
		{"internal on purpose", httpapi.Errorf(httpapi.Internal, "secret"), "internal error*", 500, 500, codes.Internal, "internal", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := errs.From(t.Context(), tt.in)
			if want, open := strings.CutSuffix(tt.message, "*"); open {
				require.True(t, strings.HasPrefix(e.Message, want))
				require.NotContains(t, e.Message, "secret")
				require.Contains(t, e.Message, e.ID)
				require.Same(t, e, errs.From(t.Context(), fmt.Errorf("again: %w", e)))
			} else {
				require.Equal(t, tt.message, e.Error())
			}
			require.Equal(t, tt.ingest, e.Kind.HTTPStatus(httpapi.Ingest))
			require.Equal(t, tt.query, e.Kind.HTTPStatus(httpapi.Query))
			require.Equal(t, tt.prometheus, e.Kind.PrometheusType())
			require.NotEmpty(t, e.Kind.String())

			st := status.Convert(errs.GRPC(t.Context(), tt.in))
			require.Equal(t, tt.code, st.Code())
			require.Equal(t, tt.retry != "", len(st.Details()) == 1)
			if tt.retry != "" {
				require.Equal(t, e.RetryAfter, st.Details()[0].(*errdetails.RetryInfo).GetRetryDelay().AsDuration())
			}

			w := httptest.NewRecorder()
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			errs.Text(w, r, httpapi.Ingest, tt.in)
			require.Equal(t, tt.ingest, w.Code)
			require.Equal(t, tt.retry, w.Header().Get("Retry-After"))

			w = httptest.NewRecorder()
			errs.Prometheus(w, r, tt.in)
			require.Equal(t, tt.query, w.Code)
			require.Contains(t, w.Body.String(), `"errorType":"`+tt.prometheus+`"`)
			require.Contains(t, w.Body.String(), `"status":"error"`)
		})
	}
}

func TestErrorsNil(t *testing.T) {
	require.Nil(t, httpapi.FromError(nil))
	require.Nil(t, httpapi.Errors{}.From(t.Context(), nil))
	require.NoError(t, httpapi.Errors{}.GRPC(t.Context(), nil))
}

func TestErrorfKeepsTheCause(t *testing.T) {
	err := httpapi.BadDataf("read: %w", io.ErrUnexpectedEOF)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.EqualError(t, err, "read: unexpected EOF")
}

func TestInternalIsLoggedWithItsID(t *testing.T) {
	var out bytes.Buffer
	errs := httpapi.Errors{Log: slog.New(slog.NewTextHandler(&out, nil))}
	e := errs.From(t.Context(), errors.New("what happened"))
	require.Contains(t, out.String(), e.ID)
	require.Contains(t, out.String(), "what happened")
	out.Reset()
	require.Same(t, e, errs.From(t.Context(), e))
	_ = errs.From(t.Context(), httpapi.BadDataf("x"))
	require.Empty(t, out.String())
}

func TestGRPCPassesStatuses(t *testing.T) {
	for c := codes.Canceled; c <= codes.Unauthenticated; c++ {
		err := httpapi.Errors{}.GRPC(t.Context(), status.Error(c, "text"))
		switch c {
		case codes.InvalidArgument, codes.NotFound, codes.ResourceExhausted, codes.FailedPrecondition,
			codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.Unauthenticated, codes.Unimplemented:
			require.Equal(t, c, status.Code(err))
			require.Equal(t, "text", status.Convert(err).Message())
		case codes.OutOfRange:
			require.Equal(t, codes.InvalidArgument, status.Code(err))
		case codes.PermissionDenied:
			require.Equal(t, codes.Unauthenticated, status.Code(err))
		default:
			require.Equal(t, codes.Internal, status.Code(err), c.String())
		}
	}
	st, err := status.New(codes.ResourceExhausted, "x").WithDetails(&errdetails.RetryInfo{})
	require.NoError(t, err)
	require.Equal(t, codes.ResourceExhausted, status.Code(httpapi.Errors{}.GRPC(t.Context(), st.Err())))
}

func TestWriteJSON(t *testing.T) {
	w := httptest.NewRecorder()
	httpapi.WriteJSON(w, 201, map[string]int{"a": 1})
	require.Equal(t, 201, w.Code)
	require.JSONEq(t, `{"a":1}`, w.Body.String())
	require.Equal(t, "application/json", w.Header().Get("Content-Type"))
	w = httptest.NewRecorder()
	httpapi.WriteJSON(w, 200, func() {})
	require.Equal(t, 500, w.Code)
}
