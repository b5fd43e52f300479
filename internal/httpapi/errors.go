// Package httpapi is what the HTTP and gRPC surfaces have in common: the table from errors to statuses, the
// tenant of a request, and middleware for panics, metrics, traces, limits and compression.
//
// Errors become answers in one place. A handler returns or reports any error; Errors classifies it, logs what the
// client must not see, and writes the status that the surface (ingest or query) has for it:
//
//	kind              ingest  query  gRPC
//	BadData           400     400    INVALID_ARGUMENT
//	Unauthorized      401     401    UNAUTHENTICATED
//	NotFound          404     404    NOT_FOUND
//	TooLarge          413     413    RESOURCE_EXHAUSTED
//	UnsupportedMedia  415     415    INVALID_ARGUMENT
//	TenantLimit       429     422    RESOURCE_EXHAUSTED, with RetryInfo when a retry can help
//	QueryLimit        422     422    RESOURCE_EXHAUSTED
//	Execution         422     422    FAILED_PRECONDITION
//	Overloaded        503     503    UNAVAILABLE with RetryInfo (HTTP: Retry-After)
//	Unavailable       503     503    UNAVAILABLE
//	Timeout           504     503    DEADLINE_EXCEEDED
//	Canceled          499     499    CANCELLED
//	Internal          500     500    INTERNAL, the message hidden behind an ID
package httpapi

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

// StatusClientClosedRequest is the status of a request that its client gave up on. Nobody reads it but logs and
// metrics.
const StatusClientClosedRequest = 499

// DefaultRetryAfter is what an overloaded server asks for when nothing else is known.
const DefaultRetryAfter = time.Second

// Kind is what went wrong, as far as the client is concerned.
type Kind uint8

// The kinds.
const (
	Internal         Kind = iota // a fault of ours
	BadData                      // the request is malformed
	Unauthorized                 // the client did not say who it is, or not truthfully
	NotFound                     // what the request names does not exist
	TooLarge                     // the body is larger than allowed
	UnsupportedMedia             // the type or encoding of the body is not known here
	TenantLimit                  // the tenant is over one of its limits
	QueryLimit                   // the query is over a limit of queries
	Execution                    // the query is well formed but cannot be computed on this data
	Overloaded                   // not now: try again after a while
	Unavailable                  // not ready yet, or stopping
	Timeout                      // the time given was not enough
	Canceled                     // the client went away
)

// String returns the name of the kind in lower case.
func (k Kind) String() string {
	switch k {
	case BadData:
		return "bad_data"
	case Unauthorized:
		return "unauthorized"
	case NotFound:
		return "not_found"
	case TooLarge:
		return "too_large"
	case UnsupportedMedia:
		return "unsupported_media"
	case TenantLimit:
		return "tenant_limit"
	case QueryLimit:
		return "query_limit"
	case Execution:
		return "execution"
	case Overloaded:
		return "overloaded"
	case Unavailable:
		return "unavailable"
	case Timeout:
		return "timeout"
	case Canceled:
		return "canceled"
	default:
		return "internal"
	}
}

// Error is an error with what a client may know about it.
type Error struct {
	Kind       Kind
	Message    string        // for the client
	RetryAfter time.Duration // zero when not known
	ID         string        // of an Internal error: in the answer and in the log
	Err        error         // what caused it, for the log; may be nil
}

// Error returns the message for the client.
func (e *Error) Error() string { return e.Message }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Kinded is implemented by errors of other packages that know their kind. Their text is shown to the client,
// unless the kind is Internal. One that has a method RetryAfter() time.Duration is asked for that as well.
type Kinded interface {
	error
	ErrorKind() Kind
}

// Errorf returns an error of the kind. A %w in the format is its cause, and its text becomes part of the message.
func Errorf(k Kind, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Kind: k, Message: err.Error(), Err: errors.Unwrap(err)}
}

// BadDataf returns an error for a malformed request.
func BadDataf(format string, args ...any) *Error { return Errorf(BadData, format, args...) }

// NotFoundf returns an error for something that does not exist.
func NotFoundf(format string, args ...any) *Error { return Errorf(NotFound, format, args...) }

// NewOverloaded returns an error that asks the client to come back after a while; zero is DefaultRetryAfter.
func NewOverloaded(after time.Duration, message string) *Error {
	if after <= 0 {
		after = DefaultRetryAfter
	}
	return &Error{Kind: Overloaded, Message: message, RetryAfter: after}
}

// FromError classifies err: an *Error in its chain is returned as it is, a Kinded error has its kind, the errors
// of ended contexts and of http.MaxBytesReader have theirs. Anything else is Internal, with a new ID and a
// message that says nothing but the ID; the caller logs it. It returns nil for nil.
func FromError(err error) *Error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*Error](err); ok {
		if e.Kind != Internal {
			return e
		}
		if e.ID != "" {
			return e
		}
		return internal(err)
	}
	if e, ok := errors.AsType[Kinded](err); ok && e.ErrorKind() != Internal {
		out := &Error{Kind: e.ErrorKind(), Message: e.Error(), Err: err}
		if r, ok := e.(interface{ RetryAfter() time.Duration }); ok {
			out.RetryAfter = r.RetryAfter()
		}
		if out.Kind == Overloaded && out.RetryAfter <= 0 {
			out.RetryAfter = DefaultRetryAfter
		}
		return out
	}
	if e, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return &Error{Kind: TooLarge, Message: fmt.Sprintf("the body is larger than %d bytes", e.Limit), Err: err}
	}
	switch {
	case errors.Is(err, context.Canceled):
		return &Error{Kind: Canceled, Message: "the request was canceled", Err: err}
	case errors.Is(err, context.DeadlineExceeded):
		return &Error{Kind: Timeout, Message: "the request took too long", Err: err}
	}
	return internal(err)
}

func internal(err error) *Error {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	id := hex.EncodeToString(b[:])
	return &Error{Kind: Internal, Message: "internal error, logged with ID " + id, ID: id, Err: err}
}

// Surface is the side of Braid that a request talks to; some errors have a status of their own on each.
type Surface uint8

// The surfaces.
const (
	Query Surface = iota
	Ingest
)

// HTTPStatus returns the status of the kind on a surface.
func (k Kind) HTTPStatus(s Surface) int {
	pick := func(ingest, query int) int {
		if s == Ingest {
			return ingest
		}
		return query
	}
	switch k {
	case BadData:
		return http.StatusBadRequest
	case Unauthorized:
		return http.StatusUnauthorized
	case NotFound:
		return http.StatusNotFound
	case TooLarge:
		return http.StatusRequestEntityTooLarge
	case UnsupportedMedia:
		return http.StatusUnsupportedMediaType
	case TenantLimit:
		return pick(http.StatusTooManyRequests, http.StatusUnprocessableEntity)
	case QueryLimit, Execution:
		return http.StatusUnprocessableEntity
	case Overloaded, Unavailable:
		return http.StatusServiceUnavailable
	case Timeout:
		return pick(http.StatusGatewayTimeout, http.StatusServiceUnavailable)
	case Canceled:
		return StatusClientClosedRequest
	default:
		return http.StatusInternalServerError
	}
}

// GRPCCode returns the code of the kind.
func (k Kind) GRPCCode() codes.Code {
	switch k {
	case BadData, UnsupportedMedia:
		return codes.InvalidArgument
	case Unauthorized:
		return codes.Unauthenticated
	case NotFound:
		return codes.NotFound
	case TooLarge, TenantLimit, QueryLimit:
		return codes.ResourceExhausted
	case Execution:
		return codes.FailedPrecondition
	case Overloaded, Unavailable:
		return codes.Unavailable
	case Timeout:
		return codes.DeadlineExceeded
	case Canceled:
		return codes.Canceled
	default:
		return codes.Internal
	}
}

// GRPCStatus returns the error as a gRPC status; its presence makes status.FromError find it.
func (e *Error) GRPCStatus() *status.Status {
	st := status.New(e.Kind.GRPCCode(), e.Message)
	if e.RetryAfter <= 0 {
		return st
	}
	with, err := st.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(e.RetryAfter)})
	if err != nil {
		return st // a detail less
	}
	return with
}

// setHeader adds what the status alone does not say.
func (e *Error) setHeader(h http.Header) {
	if e.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int(math.Ceil(e.RetryAfter.Seconds()))))
	}
}

// PrometheusType returns the errorType that the Prometheus API has for the kind.
func (k Kind) PrometheusType() string {
	switch k {
	case BadData, TooLarge, UnsupportedMedia:
		return "bad_data"
	case NotFound:
		return "not_found"
	case TenantLimit, QueryLimit, Execution:
		return "execution"
	case Overloaded, Unavailable:
		return "unavailable"
	case Timeout:
		return "timeout"
	case Canceled:
		return "canceled"
	case Unauthorized:
		return "unauthorized"
	default:
		return "internal"
	}
}
