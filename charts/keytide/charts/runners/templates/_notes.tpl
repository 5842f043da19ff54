{{/* What an installation prints, here and in the notes of a Keytide release. */}}
{{- define "runners.notes" -}}
{{- $pools := (include "runners.pools" . | fromJson).pools -}}
{{- if not $pools -}}
No runner pool is defined yet: write one to `pools`, with organizationUrl, poolName and auth.
{{- else -}}
Runner pools of release {{ .Release.Name }}:
{{ range $pools }}
  {{ .key }}: {{ include "runners.size" . }} in namespace {{ .namespace }}, for agent pool {{ .poolName | default .poolID }} of {{ .organizationUrl }}
{{- end }}
{{- $wanted := dict }}
{{- $namespaces := dict }}
{{- range $pools }}
{{- if eq .authKind "pat" }}
{{- $_ := set $namespaces .namespace true }}
{{- $_ := set $wanted (printf "secret %s of vault %s into namespace %s" (include "runners.text" .auth.pat.object) .auth.pat.vault .namespace) true }}
{{- end }}
{{- end }}
{{- with keys $wanted | sortAlpha }}

Keytide mirrors their PAT where a grant allows it (`vaults` of the Keytide chart):
{{ range . }}
  {{ . }}
{{- end }}

Until a mirror is Ready, agents wait for their Secret:
{{ range keys $namespaces | sortAlpha }}
  kubectl get keyvaultmirrors --namespace {{ . }}
{{- end }}
{{- end }}
{{- include "runners.kedaWarning" (dict "root" $ "pools" $pools) }}
{{- end }}
{{- end -}}

{{/* How many agents of which kind. Takes a pool. */}}
{{- define "runners.size" -}}
{{- if not .scaled -}}
{{ int64 .replicas }} agents of Deployment {{ .name }}
{{- else if eq .mode "job" -}}
{{ int64 .min }} to {{ int64 .max }} agents of ScaledJob {{ .name }}
{{- else -}}
{{ int64 .min }} to {{ int64 .max }} agents of Deployment {{ .name }}
{{- end -}}
{{- end -}}

{{/* Takes (dict "root" "pools"). */}}
{{- define "runners.kedaWarning" -}}
{{- $scaled := false -}}
{{- range .pools }}{{ if .scaled }}{{ $scaled = true }}{{ end }}{{ end -}}
{{- $version := "" -}}
{{- if $scaled }}{{ $version = include "runners.kedaVersion" .root }}{{ end -}}
{{- if $version -}}
{{- if semverCompare "<2.21.0-0" $version }}

WARNING: this cluster has KEDA {{ $version }}, which doesn't know scaleOnInFlight. In 2.20 it counts only jobs that no agent has
taken, so it scales busy agents of a Deployment down: they finish their job, but the pool is too small meanwhile. Before 2.20
it counts all unfinished jobs, so mode job gets more Pods than there are jobs. Upgrade KEDA to 2.21 or newer.
{{- end }}
{{- end }}
{{- end -}}

{{/* The version of KEDA's operator, or nothing: a rendering without a cluster finds none. */}}
{{- define "runners.kedaVersion" -}}
{{- $found := "" -}}
{{- range .Values.keda.operatorNamespaces -}}
{{- if not $found -}}
{{- $operator := lookup "apps/v1" "Deployment" . $.Values.keda.operatorName -}}
{{- if $operator -}}
{{- $label := dig "metadata" "labels" "app.kubernetes.io/version" "" $operator -}}
{{- $image := (first $operator.spec.template.spec.containers).image | default "" -}}
{{- range list $label (regexFind `:[^:/@]+` (regexReplaceAll `^.*/` $image "") | trimPrefix ":") -}}
{{- if and (not $found) (regexMatch `^v?[0-9]+\.[0-9]+\.[0-9]+` .) -}}{{- $found = trimPrefix "v" . -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $found -}}
{{- end -}}
