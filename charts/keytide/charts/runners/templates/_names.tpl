{{/*
A name that was cut to `max` characters: the beginning, and a hash of the whole, so that two long names that begin alike
don't become one. Takes (dict "name" "max").
*/}}
{{- define "runners.cut" -}}
{{- if le (len .name) .max -}}
{{- .name -}}
{{- else -}}
{{- printf "%s-%s" (.name | trunc (int (sub .max 9)) | trimSuffix "-") (.name | sha256sum | trunc 8) -}}
{{- end -}}
{{- end -}}

{{/*
What a pool's objects are named after. At most 42 characters, so that the names of its Pods are never cut: agents are called
as their Pods are, and their leftovers are found by how they begin. Takes (dict "root" "key" "own").
*/}}
{{- define "runners.name" -}}
{{- include "runners.cut" (dict "name" (.own.name | default (printf "%s-%s" .root.Release.Name .key)) "max" 42) -}}
{{- end -}}

{{- define "runners.selectorLabels" -}}
app.kubernetes.io/name: {{ .root.Chart.Name | quote }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
keytide.dev/pool: {{ include "runners.cut" (dict "name" .pool.key "max" 63) | quote }}
{{- end -}}

{{- define "runners.releaseLabels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/name: {{ .Chart.Name | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: keytide
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{/* What Kubecost and OpenCost add costs up by. */}}
{{- define "runners.costLabels" -}}
{{- with .team }}
team: {{ . | quote }}
{{- end }}
{{- with .costCenter }}
cost-center: {{ . | quote }}
{{- end }}
{{- end -}}

{{/* The labels of a pool's objects. Takes (dict "root" "pool"). */}}
{{- define "runners.labels" -}}
{{- $chart := merge
  (include "runners.selectorLabels" . | fromYaml)
  (include "runners.releaseLabels" .root | fromYaml)
  (include "runners.costLabels" .pool | fromYaml)
-}}
{{- toYaml (merge $chart (include "runners.texts" .pool.labels | fromJson)) -}}
{{- end -}}

{{/* The labels of its Pods: none that change with the chart's version, since that would replace every agent. */}}
{{- define "runners.podLabels" -}}
{{- $chart := merge
  (include "runners.selectorLabels" . | fromYaml)
  (include "runners.costLabels" .pool | fromYaml)
  (dict "app.kubernetes.io/part-of" "keytide")
-}}
{{- if .placeholder -}}
{{- /* A Deployment, a budget and a network policy must not take it for one of theirs. */ -}}
{{- $_ := set $chart "keytide.dev/placeholder-of" (get $chart "keytide.dev/pool") -}}
{{- $_ := unset $chart "keytide.dev/pool" -}}
{{- end -}}
{{- if and (eq .pool.authKind "workloadIdentity") (not .pool.auth.workloadIdentity.projectedToken) -}}
{{- $_ := set $chart "azure.workload.identity/use" "true" -}}
{{- end -}}
{{- toYaml (merge $chart (include "runners.texts" .pool.podLabels | fromJson) (include "runners.texts" .pool.labels | fromJson)) -}}
{{- end -}}

{{/*
A string of what may have been written as a number: Helm has numbers of a values file as floats, which print large ones with an
exponent.
*/}}
{{- define "runners.text" -}}
{{- if kindIs "float64" . -}}
{{- if eq . (floor .) }}{{ printf "%.0f" . }}{{ else }}{{ toString . }}{{ end -}}
{{- else if not (kindIs "invalid" .) -}}
{{- toString . | trim -}}
{{- end -}}
{{- end -}}

{{/* The same for each value of a map, as JSON. */}}
{{- define "runners.texts" -}}
{{- $texts := dict -}}
{{- range $name, $value := . }}{{ $_ := set $texts $name (include "runners.text" $value) }}{{ end -}}
{{- toJson $texts -}}
{{- end -}}

{{/* An integer of what may have been written as a string. */}}
{{- define "runners.int" -}}
{{- include "runners.text" . | int64 -}}
{{- end -}}
