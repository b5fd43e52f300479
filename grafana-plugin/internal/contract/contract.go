// Package contract checks frames against what Grafana expects of them: its data plane contract for series, numbers and
// log lines, and what its trace view, tables and exemplars read.
package contract

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/data"
)

// Check returns every rule that the frames of one answer break, or nil.
func Check(frames data.Frames) error {
	if len(frames) == 0 {
		return errors.New("an answer without data has one frame with a type and no fields, not no frame")
	}
	var errs []error
	for i, f := range frames {
		if err := check(f); err != nil {
			errs = append(errs, fmt.Errorf("frame %d %q: %w", i, f.Name, err))
		}
	}
	return errors.Join(errs...)
}

func check(f *data.Frame) error {
	if f.Meta == nil {
		return errors.New("meta is missing")
	}
	if _, err := f.RowLen(); err != nil {
		return err
	}
	seen := make(map[string]bool)
	for _, field := range f.Fields {
		if field.Name == "" || seen[field.Name] {
			return fmt.Errorf("two fields are called %q, or one has no name", field.Name)
		}
		seen[field.Name] = true
		if err := links(field); err != nil {
			return fmt.Errorf("field %q: %w", field.Name, err)
		}
	}
	typed := f.Meta.Type != "" && f.Meta.Type != data.FrameTypeTable
	if typed && f.Meta.TypeVersion != (data.FrameTypeVersion{0, 1}) {
		return fmt.Errorf("version %v of type %s, want 0.1", f.Meta.TypeVersion, f.Meta.Type)
	}
	if typed && len(f.Fields) == 0 {
		return nil // no data
	}
	switch {
	case f.Meta.DataTopic == data.DataTopicAnnotations:
		return exemplars(f)
	case f.Meta.Type == data.FrameTypeTimeSeriesMulti:
		return series(f)
	case f.Meta.Type == data.FrameTypeNumericMulti:
		if len(f.Fields) != 1 || !f.Fields[0].Type().Numeric() || f.Fields[0].Len() != 1 {
			return errors.New("want one numeric field with one value")
		}
		return nil
	case f.Meta.Type == data.FrameTypeNumericLong:
		return long(f)
	case f.Meta.Type == data.FrameTypeLogLines:
		return lines(f)
	case f.Meta.PreferredVisualization == data.VisTypeTrace:
		return spans(f)
	case f.Meta.Type == data.FrameTypeTable:
		if f.Meta.PreferredVisualization != data.VisTypeTable {
			return errors.New("a table must prefer to be shown as one")
		}
		return nil
	}
	return fmt.Errorf("type %q with visualisation %q is none that is known", f.Meta.Type, f.Meta.PreferredVisualization)
}

// links checks that a link opens a query that the data source understands.
func links(field *data.Field) error {
	if field.Config == nil {
		return nil
	}
	for _, l := range field.Config.Links {
		if l.Title == "" || l.Internal == nil || l.Internal.DatasourceUID == "" {
			return errors.New("a link must have a title and the UID of a data source")
		}
		b, err := json.Marshal(l.Internal.Query)
		if err != nil {
			return err
		}
		var q struct {
			QueryType string `json:"queryType"`
		}
		if err := json.Unmarshal(b, &q); err != nil || q.QueryType == "" {
			return fmt.Errorf("link %q has no query with a queryType", l.Title)
		}
	}
	return nil
}

func series(f *data.Frame) error {
	if len(f.Fields) != 2 || f.Fields[0].Type() != data.FieldTypeTime || !f.Fields[1].Type().Numeric() {
		return errors.New("want a field of times that are never null and one of numbers")
	}
	if len(f.Fields[0].Labels) > 0 {
		return errors.New("labels belong on the values, not on the times")
	}
	return ascending(f.Fields[0], false)
}

// ascending checks the order of times; equal ones may follow each other where equal is set.
func ascending(field *data.Field, equal bool) error {
	for i := 1; i < field.Len(); i++ {
		a, okA := field.At(i - 1).(time.Time)
		b, okB := field.At(i).(time.Time)
		if !okA || !okB || b.Before(a) || !equal && b.Equal(a) {
			return fmt.Errorf("time %d does not come after the one before it", i)
		}
	}
	return nil
}

func long(f *data.Frame) error {
	numbers := 0
	for _, field := range f.Fields {
		switch {
		case field.Type().Numeric():
			numbers++
		case field.Type().NonNullableType() != data.FieldTypeString:
			return fmt.Errorf("field %q is %s, want strings and numbers", field.Name, field.Type())
		}
	}
	if numbers == 0 {
		return errors.New("there is no number")
	}
	return nil
}

func exemplars(f *data.Frame) error {
	if f.Name != "exemplar" || len(f.Fields) < 2 {
		return errors.New(`want a frame called "exemplar" with Time and Value`)
	}
	custom, err := json.Marshal(f.Meta.Custom)
	if err != nil || string(custom) != `{"resultType":"exemplar"}` {
		return fmt.Errorf("meta.custom is %s, want a resultType of exemplar", custom)
	}
	if err := fields(f, []want{{"Time", data.FieldTypeTime}, {"Value", data.FieldTypeFloat64}}); err != nil {
		return err
	}
	return ascending(f.Fields[0], true)
}

type want struct {
	name string
	kind data.FieldType
}

func fields(f *data.Frame, wants []want) error {
	for _, w := range wants {
		field, _ := f.FieldByName(w.name)
		if field == nil || field.Type() != w.kind {
			return fmt.Errorf("there is no field %s of type %s", w.name, w.kind)
		}
	}
	return nil
}

func lines(f *data.Frame) error {
	if f.Meta.PreferredVisualization != data.VisTypeLogs {
		return errors.New("log lines must prefer to be shown as logs")
	}
	if err := fields(f, []want{
		{"timestamp", data.FieldTypeTime},
		{"body", data.FieldTypeString},
		{"severity", data.FieldTypeString},
		{"id", data.FieldTypeString},
		{"labels", data.FieldTypeJSON},
		{"labelTypes", data.FieldTypeJSON},
		{"traceID", data.FieldTypeNullableString},
	}); err != nil {
		return err
	}
	severity, _ := f.FieldByName("severity")
	id, _ := f.FieldByName("id")
	labels, _ := f.FieldByName("labels")
	types, _ := f.FieldByName("labelTypes")
	trace, _ := f.FieldByName("traceID")
	if trace.Config == nil || len(trace.Config.Links) == 0 {
		return errors.New("traceID has no link to the trace")
	}
	ids := make(map[any]bool)
	for i := range f.Rows() {
		level, _ := severity.At(i).(string)
		if !slices.Contains([]string{"critical", "error", "warning", "info", "debug", "trace", "unknown"}, level) {
			return fmt.Errorf("severity %q of line %d is none of Grafana's", level, i)
		}
		if key := id.At(i); key == "" || ids[key] {
			return fmt.Errorf("id %q of line %d is empty or not unique", key, i)
		}
		ids[id.At(i)] = true
		ls, ts := map[string]json.RawMessage{}, map[string]string{}
		a, _ := labels.At(i).(json.RawMessage)
		b, _ := types.At(i).(json.RawMessage)
		if err := errors.Join(json.Unmarshal(a, &ls), json.Unmarshal(b, &ts)); err != nil {
			return fmt.Errorf("labels of line %d: %w", i, err)
		}
		for l := range ls {
			if ts[l] == "" {
				return fmt.Errorf("label %q of line %d has no type", l, i)
			}
		}
	}
	return nil
}

func spans(f *data.Frame) error {
	if len(f.Fields) == 0 {
		return nil
	}
	if err := fields(f, []want{
		{"traceID", data.FieldTypeString},
		{"spanID", data.FieldTypeString},
		{"parentSpanID", data.FieldTypeNullableString},
		{"operationName", data.FieldTypeString},
		{"serviceName", data.FieldTypeString},
		{"serviceTags", data.FieldTypeJSON},
		{"startTime", data.FieldTypeFloat64},
		{"duration", data.FieldTypeFloat64},
		{"logs", data.FieldTypeJSON},
		{"references", data.FieldTypeJSON},
		{"tags", data.FieldTypeJSON},
		{"kind", data.FieldTypeString},
		{"statusCode", data.FieldTypeInt64},
		{"statusMessage", data.FieldTypeString},
	}); err != nil {
		return err
	}
	type tag struct {
		Key   *string         `json:"key"`
		Value json.RawMessage `json:"value"`
	}
	code, _ := f.FieldByName("statusCode")
	took, _ := f.FieldByName("duration")
	for i := range f.Rows() {
		if c, ok := code.At(i).(int64); !ok || c < 0 || c > 2 {
			return fmt.Errorf("statusCode of span %d is not 0, 1 or 2", i)
		}
		if d, ok := took.At(i).(float64); !ok || d < 0 {
			return fmt.Errorf("span %d ends before it starts", i)
		}
		for _, name := range []string{"serviceTags", "tags"} {
			field, _ := f.FieldByName(name)
			raw, _ := field.At(i).(json.RawMessage)
			var list []tag
			if err := json.Unmarshal(raw, &list); err != nil {
				return fmt.Errorf("%s of span %d: %w", name, i, err)
			}
			for _, t := range list {
				if t.Key == nil || len(t.Value) == 0 {
					return fmt.Errorf("%s of span %d: a tag has no key or no value", name, i)
				}
			}
		}
		for _, name := range []string{"logs", "references"} {
			field, _ := f.FieldByName(name)
			raw, _ := field.At(i).(json.RawMessage)
			var list []map[string]json.RawMessage
			if err := json.Unmarshal(raw, &list); err != nil {
				return fmt.Errorf("%s of span %d: %w", name, i, err)
			}
		}
	}
	return nil
}
