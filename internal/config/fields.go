package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// field is one key of a struct.
type field struct {
	name  string
	help  string
	value reflect.Value
}

// fieldsOf returns the keys of the struct v in the order they are declared, those of inlined structs among them.
func fieldsOf(v reflect.Value) []field {
	var out []field
	t := v.Type()
	for i := range t.NumField() {
		f := t.Field(i)
		name, opts, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		inline := slices.Contains(strings.Split(opts, ","), "inline")
		switch {
		case name == "-" || !f.IsExported():
		case inline && f.Type.Kind() == reflect.Struct:
			out = append(out, fieldsOf(v.Field(i))...)
		case name == "":
			out = append(out, field{strings.ToLower(f.Name), f.Tag.Get("help"), v.Field(i)})
		default:
			out = append(out, field{name, f.Tag.Get("help"), v.Field(i)})
		}
	}
	return out
}

func find(fields []field, name string) (field, bool) {
	i := slices.IndexFunc(fields, func(f field) bool { return f.name == name })
	if i < 0 {
		return field{}, false
	}
	return fields[i], true
}

// suggest names the key that was probably meant.
func suggest(name string, fields []field) string {
	best, least := "", 3 // more than two edits away is another word
	if len(name) > 64 {
		return ""
	}
	for _, f := range fields {
		if d := distance(name, f.name); d < least && d < len(f.name) {
			best, least = f.name, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(", did you mean %s?", best)
}

// distance is the number of bytes to insert, delete or replace to make b of a.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diag := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diag
			if a[i] != b[j] {
				cost++
			}
			diag = row[j+1]
			row[j+1] = min(cost, diag+1, row[j]+1)
		}
	}
	return row[len(b)]
}

func sortedKeys(m reflect.Value) []reflect.Value {
	keys := m.MapKeys()
	slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
	return keys
}
