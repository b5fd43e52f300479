package config_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"

	"github.com/braidobs/braid/internal/config"
)

type conf struct {
	Listen  config.Addr       `yaml:"listen" help:"Where to listen."`
	Storage storage           `yaml:"storage"`
	Tenants map[string]tenant `yaml:"tenants"`
	Rules   []rule            `yaml:"rules" help:"Rules, in order."`
	Names   []string          `yaml:"names"`
	Auth    *auth             `yaml:"auth"`
	Ratio   float64           `yaml:"ratio"`
	Workers uint8             `yaml:"workers"`
	Offset  int               `yaml:"offset"`
	Raw     yaml.Node         `yaml:"raw"`
	Custom  custom            `yaml:"custom"`
	Common  `yaml:",inline"`
	Hidden  int `yaml:"-"`
}

type Common struct {
	Debug bool `yaml:"debug"`
}

type storage struct {
	Path      string          `yaml:"path"`
	Retention config.Duration `yaml:"retention"`
	Head      config.Size     `yaml:"head"`
}

func (s *storage) Validate() error {
	var e config.Errors
	if s.Path == "" {
		e.Field("path", errors.New("must not be empty"))
	}
	if s.Retention == 0 {
		e.Field("retention", errors.New("must be positive"))
	}
	return e.Err()
}

type tenant struct {
	Limit config.Size `yaml:"limit"`
}

func (t tenant) Validate() error {
	if t.Limit == 0 {
		return config.Field("limit", errors.New("must be positive"))
	}
	return nil
}

type rule struct {
	Name string          `yaml:"name"`
	For  config.Duration `yaml:"for"`
}

func (r *rule) SetDefaults() { r.For = 60e9 }

func (r *rule) Validate() error {
	if r.Name == "" {
		return config.Field("name", errors.New("is missing"))
	}
	return nil
}

type auth struct {
	User     string        `yaml:"user"`
	Password config.Secret `yaml:"password"`
}

type custom struct{ words []string }

func (c *custom) UnmarshalYAML(n *yaml.Node) error { return n.Decode(&c.words) }

func (c *custom) MarshalYAML() (any, error) { return c.words, nil }

func defaults() conf {
	return conf{
		Listen:  "127.0.0.1:9090",
		Storage: storage{Path: "data", Retention: 30 * 86400e9, Head: 64 << 20},
		Tenants: map[string]tenant{"default": {Limit: 1}},
		Workers: 4,
	}
}

func load(t *testing.T, text string) (conf, error) {
	t.Helper()
	env := map[string]string{
		"PORT": "1234", "EMPTY": "", "YES": "true", "NULL": "null", "EVIL": "x\ndebug: true", "LIST": "[a, b]", "PW": "hunter2",
	}
	l := config.Loader{Env: func(k string) (string, bool) { v, ok := env[k]; return v, ok }}
	c := defaults()
	err := l.Load(strings.NewReader(text), "braid.yaml", &c)
	return c, err
}

func TestLoad(t *testing.T) {
	with := func(change func(c *conf)) conf { c := defaults(); change(&c); return c }
	tests := []struct {
		name string
		in   string
		want conf
	}{
		{"empty", "", defaults()},
		{"comment", "# nothing\n", defaults()},
		{"null sections keep defaults", "storage:\ntenants: ~\nworkers: null\n", defaults()},
		{"missing keys keep defaults", "storage:\n  path: /x\n", with(func(c *conf) { c.Storage.Path = "/x" })},
		{
			"types", "listen: :0\nstorage: {retention: 1h30m, head: 1.5GiB}\nratio: 0.25\nworkers: 255\noffset: -3\ndebug: true\n",
			with(func(c *conf) {
				c.Listen, c.Ratio, c.Workers, c.Offset, c.Debug = ":0", 0.25, 255, -3, true
				c.Storage.Retention, c.Storage.Head = 5400e9, 3<<29
			}),
		},
		{
			"lists replace, maps merge", "tenants: {a: {limit: 2B}, default: {}}\nrules: [{name: r}, {name: s, for: 5m}]\nnames: [x, 1, true]\n",
			with(func(c *conf) {
				c.Tenants = map[string]tenant{"a": {Limit: 2}, "default": {Limit: 1}}
				c.Rules = []rule{{"r", 60e9}, {"s", 300e9}}
				c.Names = []string{"x", "1", "true"}
			}),
		},
		{"pointer", "auth: {user: a, password: b}\n", with(func(c *conf) { c.Auth = &auth{"a", "b"} })},
		{
			"environment", "listen: localhost:${PORT}\ndebug: ${YES}\noffset: ${PORT}\nnames: ['${EMPTY:-$$5}', \"${NONE:-a:-b}\", $1, $$, '${NULL}', a$]\n",
			with(func(c *conf) {
				c.Listen, c.Debug, c.Offset = "localhost:1234", true, 1234
				c.Names = []string{"$$5", "a:-b", "$1", "$", "null", "a$"}
			}),
		},
		{
			"environment cannot add structure", "storage: {path: '${EVIL}'}\nnames: ['${LIST}', \"${EVIL}\"]\n",
			with(func(c *conf) {
				c.Storage.Path = "x\ndebug: true"
				c.Names = []string{"[a, b]", "x\ndebug: true"}
			}),
		},
		{"aliases", "names: &n [a]\ncustom: *n\n", with(func(c *conf) { c.Names = []string{"a"}; c.Custom = custom{[]string{"a"}} })},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := load(t, tt.in)
			require.NoError(t, err)
			require.Equal(t, tt.want, got)
		})
	}
}

func TestLoadMistakes(t *testing.T) {
	deep := strings.Repeat("[", 100) + strings.Repeat("]", 100)
	var bomb strings.Builder
	bomb.WriteString("a: &a [x,x,x,x,x,x,x,x,x,x]\n")
	for i := 'b'; i < 'i'; i++ {
		fmt.Fprintf(&bomb, "%c: &%c [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*%c,", i-1), 10), ","))
	}
	tests := []struct {
		name string
		in   string
		want []string // whole lines, or parts of them when they end in ...
	}{
		{"unknown key", "storge: {}\n", []string{"braid.yaml:1: storge: unknown key, did you mean storage?"}},
		{"unknown nested key", "storage:\n  quux: 1\n", []string{"braid.yaml:2: storage.quux: unknown key"}},
		{"hidden field", "hidden: 1\n", []string{"braid.yaml:1: hidden: unknown key"}},
		{"duplicate", "ratio: 1\nratio: 2\n", []string{"braid.yaml:2: ratio: duplicate key, first on line 1"}},
		{
			"all at once",
			"workers: 256\nlisten: nowhere\nstorage:\n  retention: 0s\n  path: ''\n  head: big\nrules:\n- for: 1m\n- {name: x, for: -1s}\nratio: .nan\n",
			[]string{
				`braid.yaml:1: workers: "256" is not a whole number from 0 that fits`,
				`braid.yaml:2: listen: "nowhere" is not an address such as 127.0.0.1:9090 or :9090`,
				`braid.yaml:4: storage.retention: must be positive`,
				`braid.yaml:5: storage.path: must not be empty`,
				`braid.yaml:6: storage.head: "big" is not a size such as 64MiB, 1.5GB or 512`,
				`braid.yaml:8: rules[0].name: is missing`,
				`braid.yaml:9: rules[1].for: "-1s" is negative`,
				`braid.yaml:10: ratio: ".nan" is not a number`,
			},
		},
		{"line of the section when the key is missing", "debug: true\ntenants:\n  acme: {}\n", []string{"braid.yaml:3: tenants.acme.limit: must be positive"}},
		{"an unreadable value is not validated", "tenants: {a: {limit: x}}", []string{`braid.yaml:1: tenants.a.limit: "x" is not a size such as 64MiB, 1.5GB or 512`}},
		{"scalar for section", "storage: 1\n", []string{"braid.yaml:1: storage: must be a section of keys, not a single value"}},
		{"list for section", "tenants: []\n", []string{"braid.yaml:1: tenants: must be a section of keys, not a list"}},
		{"section for list", "names: {}\n", []string{"braid.yaml:1: names: must be a list, not a section of keys"}},
		{"section for scalar", "ratio: {}\nlisten: []\n", []string{
			"braid.yaml:1: ratio: must be a single value, not a section of keys", "braid.yaml:2: listen: must be a single value, not a list",
		}},
		{"bool", "debug: yes\n", []string{`braid.yaml:1: debug: "yes" is neither true nor false`}},
		{"int", "offset: 0x10\n", []string{`braid.yaml:1: offset: "0x10" is not a whole number`}},
		{"custom", "custom: {a: 1}\n", []string{"braid.yaml:1: custom: line 1: cannot unmarshal..."}},
		{"unset variable", "storage:\n  path: ${NOPE}/x\n", []string{"braid.yaml:2: storage.path: environment variable NOPE is not set", "..."}},
		{"not a variable", "names: ['${1}']\n", []string{"braid.yaml:1: names[0]: ${1} is not a variable; write $${1} for the text itself"}},
		{"open reference", "names: ['${A']\n", []string{"braid.yaml:1: names[0]: ${ without }; write $$ for a dollar sign"}},
		{"tag", "names: [!!binary aGk=]\n", []string{"braid.yaml:1: names[0]: tag !!binary is not allowed"}},
		{"merge key", "storage:\n  <<: {path: x}\n", []string{"braid.yaml:2: storage.<<: merge keys are not supported"}},
		{"key that is a list", "[a]: 1\n", []string{"braid.yaml:1: a key must be a plain word"}},
		{"root is a list", "- a\n", []string{"braid.yaml:1: must be a section of keys, not a list"}},
		{"two documents", "ratio: 1\n---\nratio: 2\n", []string{"braid.yaml:2: a second document is not allowed"}},
		{"syntax", "ratio: 1\nx:\na: b: c\n", []string{"braid.yaml:3: mapping values are not allowed in this context"}},
		{"deep", "raw: " + deep, []string{"braid.yaml:1: raw[0]...", "..."}},
		{"alias bomb", bomb.String(), []string{"...is nested deeper than 64 levels or has more than 100000 values, aliases included"}},
		{"alias of itself", "raw: &a [*a]\n", []string{"braid.yaml:1: raw[0]..."}},
		{"too large", strings.Repeat("#", config.MaxBytes+1), []string{"braid.yaml: is larger than 1MiB"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := load(t, tt.in)
			require.Error(t, err)
			var e config.Errors
			require.ErrorAs(t, err, &e)
			lines := strings.Split(err.Error(), "\n")
			for i, want := range tt.want {
				if want == "..." {
					break
				}
				require.Less(t, i, len(lines), "missing: %s", want)
				prefix, open := strings.CutSuffix(want, "...")
				suffix, openLeft := strings.CutPrefix(want, "...")
				switch {
				case open:
					require.True(t, strings.HasPrefix(lines[i], prefix), lines[i])
				case openLeft:
					require.True(t, strings.HasSuffix(lines[i], suffix), lines[i])
				default:
					require.Equal(t, want, lines[i])
				}
			}
			if last := tt.want[len(tt.want)-1]; last != "..." {
				require.Len(t, lines, len(tt.want))
			}
		})
	}
}

func TestLoadManyMistakes(t *testing.T) {
	var b strings.Builder
	for i := range 60 {
		fmt.Fprintf(&b, "k%d: 1\n", i)
	}
	_, err := load(t, b.String())
	lines := strings.Split(err.Error(), "\n")
	require.Len(t, lines, 51)
	require.Equal(t, "braid.yaml: 10 more mistakes", lines[50])
}

func TestLoadDoesNotTouchDefaults(t *testing.T) {
	shared := map[string]tenant{"default": {Limit: 1}}
	c := conf{Tenants: shared, Storage: defaults().Storage}
	require.NoError(t, config.Load(strings.NewReader("tenants: {default: {limit: 2}}"), "x", &c))
	require.Equal(t, config.Size(1), shared["default"].Limit)
	require.Equal(t, config.Size(2), c.Tenants["default"].Limit)
}

func TestLoadFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.yaml")
	c := defaults()
	require.ErrorIs(t, config.LoadFile(path, &c), os.ErrNotExist)
	t.Setenv("BRAID_TEST_PATH", "/there")
	require.NoError(t, os.WriteFile(path, []byte("storage: {path: '${BRAID_TEST_PATH}'}"), 0o600))
	require.NoError(t, config.LoadFile(path, &c))
	require.Equal(t, "/there", c.Storage.Path)
}

func TestLoadWrongDestination(t *testing.T) {
	require.Error(t, config.Load(strings.NewReader(""), "x", conf{}))
	require.Error(t, config.Load(strings.NewReader(""), "x", (*conf)(nil)))
	require.Error(t, config.Validate(conf{}))
}

func TestValidate(t *testing.T) {
	c := defaults()
	require.NoError(t, config.Validate(&c))
	c.Storage.Path = ""
	require.EqualError(t, config.Validate(&c), "storage.path: must not be empty")
}

func TestField(t *testing.T) {
	require.NoError(t, config.Field("a", nil))
	require.NoError(t, config.Join(nil, nil))
	base := errors.New("is bad")
	tests := []struct {
		name string
		in   error
		want string
	}{
		{"plain", config.Field("a", base), "a: is bad"},
		{"nested", config.Field("a", config.Field("[1]", config.Field("b", base))), "a[1].b: is bad"},
		{"joined", config.Field("a", config.Join(base, config.Field("b", base))), "a: is bad\na.b: is bad"},
		{"std join", config.Field("a", errors.Join(base, nil, config.Field("b", base))), "a: is bad\na.b: is bad"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			require.EqualError(t, tt.in, tt.want)
			require.ErrorIs(t, tt.in, base)
		})
	}
}

func TestPrint(t *testing.T) {
	c := defaults()
	c.Auth = &auth{User: "u$1", Password: "hunter2"}
	c.Rules = []rule{{Name: "multi\nline", For: 90e9}}
	c.Names = []string{"true", "12", "", "null", "~", "a: b", "${X}"}
	var b bytes.Buffer
	require.NoError(t, config.Example(&b, &c))
	require.Contains(t, b.String(), "# Where to listen.\nlisten: 127.0.0.1:9090\n")
	require.NotContains(t, b.String(), "hunter2")
	require.Contains(t, b.String(), "retention: 30d")
	require.Contains(t, b.String(), "head: 64MiB")

	b.Reset()
	require.NoError(t, config.Print(&b, c))
	require.NotContains(t, b.String(), "#")
	got, err := load(t, b.String())
	require.NoError(t, err)
	c.Auth.Password = "***"
	c.Custom.words = []string{}
	require.Equal(t, c, got)
}

func TestKeys(t *testing.T) {
	require.Equal(t, []string{
		"listen", "storage.path", "storage.retention", "storage.head", "tenants", "rules", "names",
		"auth.user", "auth.password", "ratio", "workers", "offset", "raw", "debug",
	}, without(config.Keys(conf{}), "custom"))
}

func without(in []string, s string) []string {
	var out []string
	for _, x := range in {
		if x != s {
			out = append(out, x)
		}
	}
	return out
}

func TestSecret(t *testing.T) {
	c := struct {
		S config.Secret `json:"s" yaml:"s"`
	}{"hunter2"}
	j, err := json.Marshal(c)
	require.NoError(t, err)
	y, err := yaml.Marshal(c)
	require.NoError(t, err)
	var logs bytes.Buffer
	slog.New(slog.NewJSONHandler(&logs, nil)).Info("x", "secret", c.S, "conf", c)
	slog.New(slog.NewTextHandler(&logs, nil)).Info("x", "secret", c.S, "conf", c)
	all := string(j) + string(y) + logs.String() + fmt.Sprint(c, c.S) +
		fmt.Sprintf("%v %+v %#v %s %q %x %d", c, c, c, c.S, c.S, c.S, c.S)
	require.NotContains(t, all, "hunter2")
	require.NotContains(t, all, fmt.Sprintf("%x", "hunter2"))
	require.Equal(t, "hunter2", c.S.Reveal())
	require.Empty(t, config.Secret("").String())
}
