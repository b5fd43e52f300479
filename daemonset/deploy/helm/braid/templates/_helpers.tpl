{{/* Names. "comp" is agent or server. */}}
{{- define "braid.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- define "braid.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains (include "braid.name" .) .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "braid.name" .) | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "braid.namespace" -}}
{{- default .Release.Namespace .Values.namespaceOverride }}
{{- end }}

{{/* The server has the plain name: it is what people type. */}}
{{- define "braid.server.fullname" -}}
{{- include "braid.fullname" . }}
{{- end }}

{{- define "braid.agent.fullname" -}}
{{- include "braid.fullname" . }}-agent
{{- end }}

{{- define "braid.selectorLabels" -}}
app.kubernetes.io/name: {{ include "braid.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .comp }}
{{- end }}

{{- define "braid.labels" -}}
{{ include "braid.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: braid
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "braid.metadata" -}}
name: {{ .name }}
namespace: {{ include "braid.namespace" .root }}
labels:
  {{- include "braid.labels" . | nindent 2 }}
{{- end }}

{{- define "braid.serviceAccountName" -}}
{{- $v := index .root.Values .comp }}
{{- if $v.serviceAccount.create }}
{{- default (include (printf "braid.%s.fullname" .comp) .root) $v.serviceAccount.name }}
{{- else }}
{{- default "default" $v.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "braid.image" -}}
{{- $image := (index .root.Values .comp).image }}
{{- $registry := default $image.registry .root.Values.global.imageRegistry }}
{{- $name := $image.repository }}
{{- if $registry }}{{ $name = printf "%s/%s" $registry $name }}{{ end }}
{{- if $image.digest }}
{{- printf "%s@%s" $name $image.digest }}
{{- else }}
{{- printf "%s:%s" $name (default .root.Chart.AppVersion $image.tag) }}
{{- end }}
{{- end }}

{{/* 80 % of a quantity of memory, in bytes; nothing for none. */}}
{{- define "braid.memoryLimit" -}}
{{- $q := toString . }}
{{- $unit := regexFind "[A-Za-z]*$" $q }}
{{- $factors := dict "" 1 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 }}
{{- if not (hasKey $factors $unit) }}
{{- fail (printf "resources.limits.memory: %s is no quantity such as 256Mi" $q) }}
{{- end }}
{{- mulf (trimSuffix $unit $q | float64) (get $factors $unit | float64) 0.8 | int64 }}
{{- end }}

{{- define "braid.gomemlimit" -}}
{{- if and .useGOMEMLIMIT .resources.limits .resources.limits.memory }}
- name: GOMEMLIMIT
  value: {{ include "braid.memoryLimit" .resources.limits.memory | quote }}
{{- end }}
{{- end }}

{{/* Refuses settings that the chart owns. */}}
{{- define "braid.owned" -}}
{{- $root := . }}
{{- range $path, $instead := .owned }}
{{- $at := $root.config }}
{{- $found := true }}
{{- range splitList "." $path }}
{{- if and $found (kindIs "map" $at) (hasKey $at .) }}
{{- $at = get $at . }}
{{- else }}
{{- $found = false }}
{{- end }}
{{- end }}
{{- if $found }}
{{- fail (printf "%s.config.%s: the chart sets it; use %s" $root.comp $path $instead) }}
{{- end }}
{{- end }}
{{- end }}

{{- define "braid.agent.endpoint" -}}
{{- if .Values.agent.endpoint }}
{{- .Values.agent.endpoint }}
{{- else if .Values.server.enabled }}
{{- printf "http://%s.%s.svc:%d" (include "braid.server.fullname" .) (include "braid.namespace" .) (int .Values.server.ports.otlpHttp) }}
{{- else }}
{{- fail "agent.endpoint: must be given when server.enabled is false" }}
{{- end }}
{{- end }}

{{- define "braid.agent.config" -}}
{{- $v := .Values.agent }}
{{- include "braid.owned" (dict "comp" "agent" "config" $v.config "owned" (dict
  "state" "agent.stateDir" "cluster" "cluster" "kubernetes.node" "nothing: it is the pod's node" "backend.endpoint" "agent.endpoint"
  "server.http" "agent.ports.http" "server.otlp_grpc" "agent.ports.otlpGrpc" "server.otlp_http" "agent.ports.otlpHttp")) }}
{{- $defaults := dict
  "state" $v.stateDir
  "cluster" .Values.cluster
  "server" (dict "http" (printf "0.0.0.0:%d" (int $v.ports.http)) "otlp_grpc" (printf "0.0.0.0:%d" (int $v.ports.otlpGrpc)) "otlp_http" (printf "0.0.0.0:%d" (int $v.ports.otlpHttp)))
  "backend" (dict "endpoint" (include "braid.agent.endpoint" .))
  "kubernetes" (dict "node" "${NODE_NAME}")
  "scrape" (dict "kubelet" "https://${NODE_IP}:10250")
  "self" (dict "format" "json") }}
{{- mustMergeOverwrite $defaults (deepCopy $v.config) | toYaml }}
{{- end }}

{{- define "braid.server.config" -}}
{{- $v := .Values.server }}
{{- include "braid.owned" (dict "comp" "server" "config" $v.config "owned" (dict
  "data" "server.persistence" "storage.cluster" "cluster"
  "server.http" "server.ports.http" "server.otlp_grpc" "server.ports.otlpGrpc" "server.otlp_http" "server.ports.otlpHttp")) }}
{{- $alerting := dict }}
{{- if $v.rules }}{{ $_ := set $alerting "rules" (list "/etc/braid/rules/*") }}{{ end }}
{{- if $v.slos }}{{ $_ := set $alerting "slos" (list "/etc/braid/slos/*") }}{{ end }}
{{- $defaults := dict
  "data" "/var/lib/braid"
  "storage" (dict "cluster" .Values.cluster)
  "server" (dict "http" (printf "0.0.0.0:%d" (int $v.ports.http)) "otlp_grpc" (printf "0.0.0.0:%d" (int $v.ports.otlpGrpc)) "otlp_http" (printf "0.0.0.0:%d" (int $v.ports.otlpHttp)))
  "self" (dict "format" "json") }}
{{- if $alerting }}{{ $_ := set $defaults "alerting" $alerting }}{{ end }}
{{- mustMergeOverwrite $defaults (deepCopy $v.config) | toYaml }}
{{- end }}

{{/* Files of a ConfigMap, each as text or as YAML. */}}
{{- define "braid.files" -}}
{{- range $name, $content := . }}
{{ $name }}: |
  {{- if kindIs "string" $content }}
  {{- $content | trimSuffix "\n" | nindent 2 }}
  {{- else }}
  {{- toYaml $content | nindent 2 }}
  {{- end }}
{{- end }}
{{- end }}
