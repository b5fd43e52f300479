package template

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"text/template"
	"time"
	"unicode"

	"github.com/braidobs/braid/query/logql/regex"
)

// maxText bounds the result of a function: more than is written, since lines are up to a megabyte and may grow before
// they are cut.
const maxText = 4 * MaxOutput

var errText = fmt.Errorf("it makes a text of more than %d bytes: %w", maxText, ErrLimit)

// expression is a regular expression and what it costs for each byte.
type expression struct {
	re   *regexp.Regexp
	size int
}

func functions(r *run) template.FuncMap {
	// Expressions are charged for what matching them with a text may cost.
	cache := make(map[string]expression)
	compile := func(s, text string) (*regexp.Regexp, error) {
		x, ok := cache[s]
		if !ok {
			if len(s) > 8<<10 {
				return nil, errors.New("the regular expression is too long")
			}
			size, err := regex.Size(s)
			if err != nil {
				return nil, err
			}
			if size > 8<<10 {
				return nil, errors.New("the regular expression repeats too much")
			}
			if err := r.step(size << 10); err != nil {
				return nil, err
			}
			re, err := regexp.Compile(s)
			if err != nil {
				return nil, err
			}
			x = expression{re, size}
			if len(cache) < 100 {
				cache[s] = x
			}
		}
		return x.re, r.step(len(text) * x.size)
	}
	// Texts in, text out; each call is a step, and long results are more.
	one := func(f func(string) string) any {
		return func(s any) (string, error) { return r.text(f(str(s))) }
	}
	two := func(f func(a, b string) string) any {
		return func(a, b any) (string, error) { return r.text(f(str(a), str(b))) }
	}
	replace := func(s, old, new string, n int) (string, error) {
		if len(new) > 0 && len(s)+strings.Count(s, old)*len(new) > maxText {
			return "", errText
		}
		return r.text(strings.Replace(s, old, new, n))
	}
	indent := func(n int, s string) (string, error) {
		if n = max(n, 0); n > maxText || (strings.Count(s, "\n")+1)*n+len(s) > maxText {
			return "", errText
		}
		pad := strings.Repeat(" ", n)
		return r.text(pad + strings.ReplaceAll(s, "\n", "\n"+pad))
	}
	fm := template.FuncMap{
		"__step__":      func() (string, error) { return "", r.step(0) },
		"__line__":      func() (string, error) { return r.text(r.line) },
		"__timestamp__": func() time.Time { return time.Unix(0, r.time).UTC() },
		"now":           func() time.Time { return r.now() },

		"lower":      one(strings.ToLower),
		"upper":      one(strings.ToUpper),
		"ToLower":    one(strings.ToLower),
		"ToUpper":    one(strings.ToUpper),
		"title":      one(title),
		"trim":       one(strings.TrimSpace),
		"TrimSpace":  one(strings.TrimSpace),
		"trimAll":    two(func(chars, s string) string { return strings.Trim(s, chars) }),
		"trimPrefix": two(func(prefix, s string) string { return strings.TrimPrefix(s, prefix) }),
		"trimSuffix": two(func(suffix, s string) string { return strings.TrimSuffix(s, suffix) }),
		"Trim":       two(strings.Trim),
		"TrimLeft":   two(strings.TrimLeft),
		"TrimRight":  two(strings.TrimRight),
		"TrimPrefix": two(strings.TrimPrefix),
		"TrimSuffix": two(strings.TrimSuffix),
		"replace": func(old, new, s string) (string, error) {
			return replace(s, old, new, -1)
		},
		"Replace":    replace,
		"substr":     func(from, to int, s string) (string, error) { return r.text(substr(from, to, s)) },
		"trunc":      func(n int, s string) (string, error) { return r.text(trunc(n, s)) },
		"alignLeft":  func(n int, s string) (string, error) { return align(r, n, s, true) },
		"alignRight": func(n int, s string) (string, error) { return align(r, n, s, false) },
		"indent":     indent,
		"nindent": func(n int, s string) (string, error) {
			out, err := indent(n, s)
			return "\n" + out, err
		},
		"repeat": func(n int, s string) (string, error) {
			if n = max(n, 0); n > maxText || n*len(s) > maxText {
				return "", errText
			}
			return r.text(strings.Repeat(s, n))
		},
		"default": func(d, s any) any {
			if t := str(s); t == "" {
				return d
			}
			return s
		},
		"b64enc": one(func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }),
		"b64dec": func(s string) (string, error) {
			b, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(s, "="))
			if err != nil {
				return "", err
			}
			return r.text(string(b))
		},
		"urlencode": one(url.QueryEscape),
		"urldecode": func(s string) (string, error) {
			out, err := url.QueryUnescape(s)
			if err != nil {
				return "", err
			}
			return r.text(out)
		},
		"fromJson": func(s string) (any, error) {
			var v any
			if json.Unmarshal([]byte(s), &v) != nil {
				return "", r.step(len(s))
			}
			return v, r.step(len(s))
		},
		"printf": func(format string, args ...any) (string, error) {
			if err := r.step(len(format)); err != nil {
				return "", err
			}
			if printed(format, args) > maxText {
				return "", errText
			}
			return r.text(fmt.Sprintf(format, args...))
		},

		"contains":  func(part, s string) (bool, error) { return strings.Contains(s, part), r.step(len(s)) },
		"hasPrefix": func(prefix, s string) (bool, error) { return strings.HasPrefix(s, prefix), r.step(0) },
		"hasSuffix": func(suffix, s string) (bool, error) { return strings.HasSuffix(s, suffix), r.step(0) },
		"count": func(re, s string) (int, error) {
			x, err := compile(re, s)
			if err != nil {
				return 0, err
			}
			return len(x.FindAllStringIndex(s, -1)), r.step(len(s))
		},
		"regexReplaceAll": func(re, s, with string) (string, error) {
			x, err := compile(re, s)
			if err != nil {
				return "", err
			}
			if (len(s)+1)*(len(with)+1) > 16*maxText {
				return "", errText
			}
			return r.text(x.ReplaceAllString(s, with))
		},
		"regexReplaceAllLiteral": func(re, s, with string) (string, error) {
			x, err := compile(re, s)
			if err != nil {
				return "", err
			}
			if (len(s)+1)*(len(with)+1) > 16*maxText {
				return "", errText
			}
			return r.text(x.ReplaceAllLiteralString(s, with))
		},

		// Those of package template, bounded.
		"print":    func(args ...any) (string, error) { return r.print(args, fmt.Sprint) },
		"println":  func(args ...any) (string, error) { return r.print(args, fmt.Sprintln) },
		"html":     func(args ...any) (string, error) { return r.print(args, template.HTMLEscaper) },
		"js":       func(args ...any) (string, error) { return r.print(args, template.JSEscaper) },
		"urlquery": func(args ...any) (string, error) { return r.print(args, template.URLQueryEscaper) },

		"date": func(layout string, at any) (string, error) { return r.text(timeOf(at).Format(layout)) },
		"toDate": func(layout, s string) (time.Time, error) {
			return time.ParseInLocation(layout, s, time.UTC)
		},
		"toDateInZone": func(layout, zone, s string) (time.Time, error) {
			loc, err := time.LoadLocation(zone)
			if err != nil || zone == "Local" {
				loc = time.UTC
			}
			return time.ParseInLocation(layout, s, loc)
		},
		"unixEpoch":        func(t time.Time) string { return strconv.FormatInt(t.Unix(), 10) },
		"unixEpochMillis":  func(t time.Time) string { return strconv.FormatInt(t.UnixMilli(), 10) },
		"unixEpochNanos":   func(t time.Time) string { return strconv.FormatInt(t.UnixNano(), 10) },
		"unixToTime":       unixToTime,
		"duration":         seconds,
		"duration_seconds": seconds,
		"bytes":            Bytes,
	}
	arithmetic(fm)
	return fm
}

// arithmetic adds the functions on numbers.
func arithmetic(fm template.FuncMap) {
	ints := func(f func(a, b int64) (int64, error)) any {
		return func(a any, more ...any) (int64, error) {
			v := toInt(a)
			for _, b := range more {
				var err error
				if v, err = f(v, toInt(b)); err != nil {
					return 0, err
				}
			}
			return v, nil
		}
	}
	floats := func(f func(a, b float64) float64) any {
		return func(a any, more ...any) float64 {
			v := toFloat(a)
			for _, b := range more {
				v = f(v, toFloat(b))
			}
			return v
		}
	}
	fm["add"] = ints(func(a, b int64) (int64, error) { return a + b, nil })
	fm["sub"] = ints(func(a, b int64) (int64, error) { return a - b, nil })
	fm["mul"] = ints(func(a, b int64) (int64, error) { return a * b, nil })
	fm["div"] = ints(func(a, b int64) (int64, error) {
		if b == 0 {
			return 0, errors.New("division by zero")
		}
		return a / b, nil
	})
	fm["mod"] = ints(func(a, b int64) (int64, error) {
		if b == 0 {
			return 0, errors.New("division by zero")
		}
		return a % b, nil
	})
	fm["max"] = ints(func(a, b int64) (int64, error) { return max(a, b), nil })
	fm["min"] = ints(func(a, b int64) (int64, error) { return min(a, b), nil })
	fm["addf"] = floats(func(a, b float64) float64 { return a + b })
	fm["subf"] = floats(func(a, b float64) float64 { return a - b })
	fm["mulf"] = floats(func(a, b float64) float64 { return a * b })
	fm["divf"] = floats(func(a, b float64) float64 { return a / b })
	fm["maxf"] = floats(math.Max)
	fm["minf"] = floats(math.Min)
	fm["ceil"] = func(a any) float64 { return math.Ceil(toFloat(a)) }
	fm["floor"] = func(a any) float64 { return math.Floor(toFloat(a)) }
	fm["round"] = func(a any, digits int, on ...float64) float64 {
		half := .5
		if len(on) > 0 {
			half = on[0]
		}
		pow := math.Pow(10, float64(digits))
		digit := pow * toFloat(a)
		_, div := math.Modf(digit)
		if div >= half {
			return math.Ceil(digit) / pow
		}
		return math.Floor(digit) / pow
	}
	fm["int"] = func(a any) int { return int(toInt(a)) }
	fm["float64"] = toFloat
}

// print writes arguments, unless they are too long.
func (r *run) print(args []any, f func(...any) string) (string, error) {
	n := 0
	for _, a := range args {
		n += size(a) + 1
	}
	if n > maxText {
		return "", errText
	}
	return r.text(f(args...))
}

// size returns about how long the text of a value is.
func size(v any) int {
	switch v := v.(type) {
	case string:
		return len(v)
	case map[string]string:
		n := 0
		for k, s := range v {
			n += len(k) + len(s) + 2
		}
		return n
	case map[string]any:
		n := 0
		for k, x := range v {
			n += len(k) + size(x) + 2
		}
		return n
	case []any:
		n := 0
		for _, x := range v {
			n += size(x) + 1
		}
		return n
	default:
		return 64
	}
}

// printed returns about how many bytes printf writes at most: texts, widths and arguments, as often as the format names
// them.
func printed(format string, args []any) int {
	longest, all, number := 0, 0, 0
	for _, a := range args {
		n := size(a)
		longest = max(longest, n)
		all += n
		switch v := a.(type) {
		case int:
			number = max(number, v, -v)
		case int64:
			number = max(number, int(v), -int(v))
		}
	}
	out, verbs, again, grows := len(format), 0, false, 1
	for at := strings.IndexByte(format, '%'); at >= 0 && at < len(format); verbs++ {
		at++
		width := 0
		for ; at < len(format) && strings.IndexByte("+-# 0123456789.*[]", format[at]) >= 0; at++ {
			switch c := format[at]; c {
			case '*':
				out += number
			case '[':
				again = true
			case '+', '#', ' ':
				grows = 10
			default:
				if c < '0' || c > '9' {
					out, width = out+width, 0
					continue
				}
				width = min(width*10+int(c-'0'), maxText+1)
			}
		}
		out += width
		if at < len(format) && strings.IndexByte("qxXUT", format[at]) >= 0 {
			grows = 10
		}
		if out > maxText {
			return out
		}
		next := strings.IndexByte(format[min(at+1, len(format)):], '%')
		if next < 0 {
			verbs++
			break
		}
		at += 1 + next
	}
	if again {
		return out + verbs*longest*grows
	}
	return out + all*grows
}

// str returns the text of an argument.
func str(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	default:
		return fmt.Sprint(v)
	}
}

func toFloat(v any) float64 {
	switch v := v.(type) {
	case float64:
		return v
	case int:
		return float64(v)
	case int64:
		return float64(v)
	case bool:
		if v {
			return 1
		}
		return 0
	default:
		f, err := strconv.ParseFloat(strings.TrimSpace(str(v)), 64)
		if err != nil {
			return 0
		}
		return f
	}
}

func toInt(v any) int64 {
	switch v := v.(type) {
	case int:
		return int64(v)
	case int64:
		return v
	case float64:
		return int64(v)
	case bool:
		return int64(toFloat(v))
	default:
		s := str(v)
		if n, err := strconv.ParseInt(s, 0, 64); err == nil {
			return n
		}
		if whole, rest, ok := strings.Cut(s, "."); ok && strings.Trim(rest, "0") == "" {
			n, err := strconv.ParseInt(whole, 0, 64)
			if err == nil {
				return n
			}
		}
		return 0
	}
}

func title(s string) string {
	out := []rune(s)
	for i, r := range out {
		if i == 0 || !unicode.IsLetter(out[i-1]) && !unicode.IsDigit(out[i-1]) && out[i-1] != '_' && out[i-1] != '\'' {
			out[i] = unicode.ToTitle(r)
		}
	}
	return string(out)
}

func substr(from, to int, s string) string {
	switch {
	case from < 0:
		return s[:max(min(to, len(s)), 0)]
	case from > len(s):
		return ""
	case to < 0 || to > len(s):
		return s[from:]
	default:
		return s[from:max(to, from)]
	}
}

func trunc(n int, s string) string {
	if n < 0 {
		return s[max(len(s)+n, 0):]
	}
	return s[:min(n, len(s))]
}

// align cuts s to n characters, or fills it up with blanks.
func align(r *run, n int, s string, left bool) (string, error) {
	if n < 0 {
		return r.text(s)
	}
	if n > maxText {
		return "", errText
	}
	rs := []rune(s)
	l := len(rs)
	switch {
	case n < l && left:
		return r.text(string(rs[:n]))
	case n < l:
		return r.text(string(rs[l-n:]))
	case left:
		return r.text(s + strings.Repeat(" ", n-l))
	default:
		return r.text(strings.Repeat(" ", n-l) + s)
	}
}

func timeOf(v any) time.Time {
	switch v := v.(type) {
	case time.Time:
		return v
	case int64:
		return time.Unix(v, 0).UTC()
	case int:
		return time.Unix(int64(v), 0).UTC()
	default:
		return time.Unix(toInt(v), 0).UTC()
	}
}

// unixToTime reads days, seconds, milliseconds, microseconds or nanoseconds since 1970, told apart by their length.
func unixToTime(s string) (time.Time, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("not a time: %q", s)
	}
	switch len(s) {
	case 5:
		return time.Unix(n*86400, 0).UTC(), nil
	case 10:
		return time.Unix(n, 0).UTC(), nil
	case 13:
		return time.UnixMilli(n).UTC(), nil
	case 16:
		return time.UnixMicro(n).UTC(), nil
	case 19:
		return time.Unix(0, n).UTC(), nil
	default:
		return time.Time{}, fmt.Errorf("not a time: %q has %d digits", s, len(s))
	}
}

func seconds(s string) (float64, error) {
	d, err := time.ParseDuration(s)
	return d.Seconds(), err
}
