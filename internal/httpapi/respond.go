package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Errors turns errors into answers. The zero value logs nothing.
type Errors struct {
	// Log gets what clients must not see: the cause of every Internal error, with its ID. Nil drops it.
	Log *slog.Logger
	// Classify knows the errors of packages that this one does not. It is asked first and returns nil for errors it
	// does not know, or is nil itself.
	Classify func(err error) *Error
}

// From classifies err as FromError does, after Classify, and logs it when it is Internal. It returns nil for nil.
func (e Errors) From(ctx context.Context, err error) *Error {
	if err == nil {
		return nil
	}
	var out *Error
	if _, ok := errors.AsType[*Error](err); !ok && e.Classify != nil {
		out = e.Classify(err)
	}
	if out == nil {
		fresh, ok := errors.AsType[*Error](err)
		logged := ok && fresh.ID != ""
		out = FromError(err)
		if logged {
			return out
		}
	} else if out.Kind == Internal && out.ID == "" {
		out = internal(err)
	}
	if out.Kind == Internal && e.Log != nil {
		e.Log.ErrorContext(ctx, "internal error", "id", out.ID, "err", out.Err)
	}
	return out
}

// GRPC returns err as an error that gRPC sends with the right code and details. Statuses that have a kind keep
// their message, UNIMPLEMENTED passes unchanged, others are Internal.
func (e Errors) GRPC(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if status.Code(err) == codes.Unimplemented {
		return err
	}
	return e.From(ctx, fromStatus(err)).GRPCStatus().Err()
}

// Text answers with err as a line of plain text.
func (e Errors) Text(w http.ResponseWriter, r *http.Request, s Surface, err error) {
	out := e.From(r.Context(), err)
	out.setHeader(w.Header())
	http.Error(w, out.Message, out.Kind.HTTPStatus(s))
}

// Prometheus answers with err in the envelope of the Prometheus API.
func (e Errors) Prometheus(w http.ResponseWriter, r *http.Request, err error) {
	out := e.From(r.Context(), err)
	out.setHeader(w.Header())
	WriteJSON(w, out.Kind.HTTPStatus(Query), map[string]string{
		"status": "error", "errorType": out.Kind.PrometheusType(), "error": out.Message,
	})
}

// Header sets what belongs to the answer to err besides its body, Retry-After, and returns the error as it is for
// the client and the status to write: for surfaces whose bodies are their own.
func (e Errors) Header(w http.ResponseWriter, r *http.Request, s Surface, err error) (out *Error, code int) {
	out = e.From(r.Context(), err)
	out.setHeader(w.Header())
	return out, out.Kind.HTTPStatus(s)
}

// WriteJSON answers with v as JSON. A client that is gone by then is not an error.
func WriteJSON(w http.ResponseWriter, code int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		http.Error(w, "internal error: the answer cannot be encoded", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	_, _ = w.Write(b)
}
