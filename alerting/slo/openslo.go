package slo

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// openslo collects the documents of OpenSLO v1 in a file (https://github.com/openslo/openslo): objectives, and the
// indicators that they refer to. Of the specification it takes ratio metrics with Prometheus queries and rolling
// periods by occurrences; alert policies, targets and data sources are left to the server, which has its own.
type openslo struct {
	file       *file
	objectives []openDoc[openSLO]
	indicators map[string]openDoc[openSLI]
}

type openDoc[T any] struct {
	node *yaml.Node
	doc  T
}

type openMeta struct {
	Name        string               `yaml:"name"`
	DisplayName string               `yaml:"displayName"`
	Labels      map[string]yaml.Node `yaml:"labels"`
	Annotations map[string]string    `yaml:"annotations"`
}

type openSLO struct {
	Metadata openMeta `yaml:"metadata"`
	Spec     struct {
		Description     string    `yaml:"description"`
		Service         string    `yaml:"service"`
		Indicator       *openSLI  `yaml:"indicator"`
		IndicatorRef    string    `yaml:"indicatorRef"`
		BudgetingMethod string    `yaml:"budgetingMethod"`
		TimeWindow      []openWin `yaml:"timeWindow"`
		Objectives      []struct {
			DisplayName   string   `yaml:"displayName"`
			Target        *float64 `yaml:"target"`
			TargetPercent *float64 `yaml:"targetPercent"`
		} `yaml:"objectives"`
	} `yaml:"spec"`
}

type openWin struct {
	Duration  string `yaml:"duration"`
	IsRolling bool   `yaml:"isRolling"`
	Calendar  any    `yaml:"calendar"`
}

type openSLI struct {
	Metadata openMeta `yaml:"metadata"`
	Spec     struct {
		Threshold any `yaml:"thresholdMetric"`
		Ratio     *struct {
			Counter bool        `yaml:"counter"`
			Good    *openMetric `yaml:"good"`
			Bad     *openMetric `yaml:"bad"`
			Total   *openMetric `yaml:"total"`
		} `yaml:"ratioMetric"`
	} `yaml:"spec"`
}

type openMetric struct {
	MetricSource struct {
		Type string `yaml:"type"`
		Spec struct {
			Query string `yaml:"query"`
		} `yaml:"spec"`
	} `yaml:"metricSource"`
}

// add takes one document.
func (o *openslo) add(n *yaml.Node) {
	f := o.file
	if v := child(n, "apiVersion"); v.Value != "openslo/v1" {
		f.mistake(n, []string{"apiVersion"}, fmt.Errorf("apiVersion %q is not supported; openslo/v1 is", v.Value))
		return
	}
	kind := ""
	if k := child(n, "kind"); k != nil {
		kind = k.Value
	}
	switch kind {
	case "SLO":
		d := openDoc[openSLO]{node: n}
		if err := n.Decode(&d.doc); err != nil {
			f.yaml(err)
			return
		}
		o.objectives = append(o.objectives, d)
	case "SLI":
		d := openDoc[openSLI]{node: n}
		if err := n.Decode(&d.doc); err != nil {
			f.yaml(err)
			return
		}
		if o.indicators == nil {
			o.indicators = make(map[string]openDoc[openSLI])
		}
		o.indicators[d.doc.Metadata.Name] = d
	case "AlertPolicy", "AlertCondition", "AlertNotificationTarget", "DataSource", "Service":
	default:
		f.mistake(n, []string{"kind"}, fmt.Errorf("kind %q is not known to OpenSLO v1", kind))
	}
}

// slos returns the objectives. An objective document with several objectives is several, with a number behind the name.
func (o *openslo) slos() []SLO {
	var out []SLO
	for i := range o.objectives {
		out = append(out, o.slo(&o.objectives[i])...)
	}
	return out
}

func (o *openslo) slo(d *openDoc[openSLO]) []SLO {
	f, n, doc := o.file, d.node, &d.doc
	base := SLO{
		Name: doc.Metadata.Name, Service: doc.Spec.Service, Description: doc.Spec.Description, Annotations: doc.Metadata.Annotations,
		File: f.name, Line: n.Line, Labels: make(map[string]string),
	}
	for k, v := range doc.Metadata.Labels {
		base.Labels[k] = labelText(&v)
	}
	if m := doc.Spec.BudgetingMethod; m != "" && m != "Occurrences" {
		f.mistake(n, []string{"spec", "budgetingMethod"}, fmt.Errorf("budgetingMethod %q is not supported; Occurrences is", m))
	}
	switch w := doc.Spec.TimeWindow; {
	case len(w) != 1:
		f.mistake(n, []string{"spec", "timeWindow"}, errors.New("there must be exactly one timeWindow"))
	case !w[0].IsRolling || w[0].Calendar != nil:
		f.mistake(n, []string{"spec", "timeWindow", "0"}, errors.New("windows of the calendar are not supported; isRolling: true is"))
	default:
		var err error
		if base.Period, err = period(w[0].Duration); err != nil {
			f.mistake(n, []string{"spec", "timeWindow", "0", "duration"}, err)
		}
	}
	base.SLI.Metrics = o.indicator(d)
	if len(doc.Spec.Objectives) == 0 {
		f.mistake(n, []string{"spec", "objectives"}, errors.New("there must be an objective"))
	}
	var out []SLO
	for i, obj := range doc.Spec.Objectives {
		s := base
		at := []string{"spec", "objectives", strconv.Itoa(i)}
		switch {
		case (obj.Target == nil) == (obj.TargetPercent == nil):
			f.mistake(n, at, errors.New("exactly one of target and targetPercent must be given"))
			continue
		case obj.Target != nil:
			s.Objective = *obj.Target
		default:
			s.Objective = *obj.TargetPercent / 100
		}
		if i > 0 {
			s.Name = fmt.Sprintf("%s-%d", base.Name, i+1)
		}
		f.common(n, &s, []string{"metadata", "name"}, at, []string{"metadata", "labels"})
		out = append(out, s)
	}
	return out
}

// indicator returns what an objective counts.
func (o *openslo) indicator(d *openDoc[openSLO]) *MetricSLI {
	f, n := o.file, d.node
	at := []string{"spec", "indicator"}
	ind := d.doc.Spec.Indicator
	if ref := d.doc.Spec.IndicatorRef; ref != "" {
		other, ok := o.indicators[ref]
		if !ok {
			f.mistake(n, []string{"spec", "indicatorRef"}, fmt.Errorf("there is no SLI %q in this file", ref))
			return nil
		}
		n, at, ind = other.node, nil, &other.doc
	}
	if ind == nil {
		f.mistake(n, []string{"spec"}, errors.New("there must be an indicator or an indicatorRef"))
		return nil
	}
	if ind.Spec.Threshold != nil {
		f.mistake(n, append(at, "spec", "thresholdMetric"), errors.New("thresholdMetric is not supported; ratioMetric is"))
		return nil
	}
	r := ind.Spec.Ratio
	if r == nil {
		f.mistake(n, append(at, "spec"), errors.New("there must be a ratioMetric with good or bad, and total"))
		return nil
	}
	at = append(at, "spec", "ratioMetric")
	paths := make(map[string][]string)
	query := func(name string, m *openMetric) string {
		paths[name] = append(append([]string{}, at...), name)
		if m == nil {
			return ""
		}
		if t := m.MetricSource.Type; t != "" && !strings.EqualFold(t, "prometheus") && !strings.EqualFold(t, "braid") {
			f.mistake(n, append(paths[name], "metricSource", "type"), fmt.Errorf("metric source %q is not supported; Prometheus is", t))
		}
		return m.MetricSource.Spec.Query
	}
	out := &MetricSLI{Good: query("good", r.Good), Bad: query("bad", r.Bad), Total: query("total", r.Total)}
	f.metrics(n, out, paths)
	return out
}

// labelText returns a label of OpenSLO, which may be a list, as text.
func labelText(n *yaml.Node) string {
	if n.Kind == yaml.ScalarNode {
		return n.Value
	}
	var list []string
	if n.Decode(&list) == nil {
		return strings.Join(list, ",")
	}
	var any any
	if n.Decode(&any) != nil {
		return ""
	}
	b, err := json.Marshal(any)
	if err != nil {
		return ""
	}
	return string(b)
}
