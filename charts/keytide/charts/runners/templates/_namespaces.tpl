{{/* The labels of what is in a team's namespace and of it. Takes (dict "root" "home"). */}}
{{- define "runners.namespaceLabels" -}}
{{- include "runners.releaseLabels" .root -}}
{{- include "runners.costLabels" (dict "team" (include "runners.text" .home.team) "costCenter" (include "runners.text" .home.costCenter)) }}
{{- end -}}

{{/*
What a namespace's quota must leave room for, as JSON: each pool twice, since Pods that finish their job count until they are
gone, and its placeholder. Requests and limits are in it where every container of the Pods says them.
Takes (dict "root" "namespace").
*/}}
{{- define "runners.quota" -}}
{{- $pods := 0 -}}
{{- $sums := dict "requests.cpu" 0 "requests.memory" 0 "limits.cpu" 0 "limits.memory" 0 -}}
{{- range (include "runners.pools" .root | fromJson).pools -}}
{{- if eq .namespace $.namespace -}}
  {{- $most := add (mul 2 (int64 .most)) (ternary 1 0 .placeholderWanted) -}}
  {{- $pods = add $pods $most -}}
  {{- $containers := concat (list .) (.sidecars | default list) (.initContainers | default list) -}}
  {{- if .buildkit.enabled -}}{{- $containers = append $containers .buildkit -}}{{- end -}}
  {{- range $resource := keys $sums -}}
    {{- $path := splitList "." $resource -}}
    {{- range $containers -}}
      {{- $quantity := include "runners.text" (dig (first $path) (last $path) "" (.resources | default dict)) -}}
      {{- if not $quantity -}}
        {{- $_ := unset $sums $resource -}}
      {{- else if hasKey $sums $resource -}}
        {{- $_ := set $sums $resource (add (get $sums $resource) (mul $most (include "runners.amount" $quantity | int64))) -}}
      {{- end -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- end -}}
{{- $hard := dict "pods" (toString $pods) -}}
{{- range $resource, $thousandths := $sums -}}
  {{- $unit := ternary (dict "size" 1 "suffix" "m") (dict "size" 1048576000 "suffix" "Mi") (hasSuffix "cpu" $resource) -}}
  {{- $_ := set $hard $resource (printf "%d%s" (div (add $thousandths (sub $unit.size 1)) $unit.size) $unit.suffix) -}}
{{- end -}}
{{- toJson $hard -}}
{{- end -}}

{{/* A quantity of Kubernetes in thousandths. */}}
{{- define "runners.amount" -}}
{{- $number := regexFind `^[0-9.]+` . -}}
{{- $factor := get (dict
  "m" 1 "" 1000 "k" 1000000 "M" 1000000000 "G" 1000000000000 "T" 1000000000000000
  "Ki" 1024000 "Mi" 1048576000 "Gi" 1073741824000 "Ti" 1099511627776000
) (trimPrefix $number .) -}}
{{- printf "%.0f" (mulf (float64 $number) (float64 ($factor | default 1000)) | ceil) -}}
{{- end -}}
