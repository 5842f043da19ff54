{{/*
The pools as they are rendered, as a JSON object {"pools": […]} in the order of their keys. Every template takes its pools
from here, so that none has to know which field came from where.
*/}}
{{- define "runners.pools" -}}
{{- $pools := list -}}
{{- range $key, $own := .Values.pools -}}
{{- /* One that is null was taken away by a later values file. */ -}}
{{- if not (kindIs "invalid" $own) -}}
{{- $pools = append $pools (include "runners.pool" (dict "root" $ "key" $key "own" $own) | fromJson) -}}
{{- end -}}
{{- end -}}
{{- dict "pools" $pools | toJson -}}
{{- end -}}

{{/* One pool: its own fields over the defaults, and what follows from them. Takes (dict "root" "key" "own"). */}}
{{- define "runners.pool" -}}
{{- $root := .root -}}
{{- $own := .own -}}
{{- $pool := include "runners.pruned" (mergeOverwrite (deepCopy $root.Values.defaults) (deepCopy $own)) | fromJson -}}

{{- /* What the pool says itself takes the place of another kind of the same in the defaults. */ -}}
{{- $kinds := include "runners.authKinds" $own | fromJsonArray -}}
{{- if $kinds -}}
  {{- range $kind := list "pat" "existingSecret" "workloadIdentity" -}}
    {{- if not (has $kind $kinds) -}}{{- $_ := unset $pool.auth $kind -}}{{- end -}}
  {{- end -}}
{{- end -}}
{{- $poolName := include "runners.text" $own.poolName -}}
{{- $poolID := include "runners.text" $own.poolID -}}
{{- if or $poolName $poolID -}}
  {{- if not $poolName -}}{{- $_ := unset $pool "poolName" -}}{{- end -}}
  {{- if not $poolID -}}{{- $_ := unset $pool "poolID" -}}{{- end -}}
{{- end -}}

{{- $namespace := $pool.namespace | default $root.Release.Namespace -}}
{{- $home := get $root.Values.namespaces $namespace | default dict -}}
{{- $scaled := or $pool.scale.enabled (eq $pool.mode "job") -}}
{{- $scale := $pool.scale -}}
{{- $min := include "runners.text" $scale.min | default (ternary "0" "5" (eq $pool.mode "job")) | int64 -}}
{{- $max := include "runners.text" $scale.max | default "20" | int64 -}}
{{- $replicas := include "runners.text" $pool.replicas | default (toString $min) | int64 -}}
{{- $authKinds := include "runners.authKinds" $pool | fromJsonArray -}}
{{- $auth := first (append $authKinds "none") -}}
{{- $secret := dict -}}
{{- if eq $auth "pat" -}}
  {{- $secret = dict "name" $pool.secretName "key" "token" -}}
{{- else if eq $auth "existingSecret" -}}
  {{- $secret = dict "name" $pool.auth.existingSecret "key" ($pool.auth.existingSecretKey | default "token") -}}
{{- end -}}
{{- $toZero := and $scaled (eq $min 0) -}}
{{- $placeholder := ternary $toZero (eq (toString $pool.placeholder.enabled) "true") (eq (toString $pool.placeholder.enabled) "auto") -}}
{{- /* An agent of mode job is ready when it has its job: until then KEDA takes it for one that is to come. */ -}}
{{- $probe := dict -}}
{{- if eq $pool.mode "job" -}}
  {{- $probe = dict "exec" (dict "command" (list "pgrep" "--exact" "Agent.Worker")) "periodSeconds" 5 -}}
{{- end -}}
{{- $name := include "runners.name" (dict "root" $root "key" .key "own" $own) -}}
{{- range $field, $value := dict
  "key" .key
  "name" $name
  "namespace" $namespace
  "organizationUrl" (include "runners.organizationUrl" (include "runners.text" $pool.organizationUrl))
  "poolName" (include "runners.text" $pool.poolName)
  "poolID" (include "runners.text" $pool.poolID)
  "authKinds" $authKinds
  "authKind" $auth
  "secret" $secret
  "scaled" $scaled
  "min" $min
  "max" $max
  "replicas" $replicas
  "rotateAfter" (ternary (include "runners.text" $pool.rotateAfter) "" (and $pool.rotate (eq $pool.mode "deployment") (eq $auth "pat")))
  "most" (ternary $max $replicas $scaled)
  "placeholderWanted" $placeholder
  "readinessProbe" ($pool.readinessProbe | default $probe)
  "serviceAccountName" ($pool.serviceAccount.name | default (ternary $name "default" $pool.serviceAccount.create))
  "team" (include "runners.text" $pool.team | default (include "runners.text" $home.team))
  "costCenter" (include "runners.text" $pool.costCenter | default (include "runners.text" $home.costCenter))
-}}
{{- $_ := set $pool $field $value -}}
{{- end -}}
{{- toJson $pool -}}
{{- end -}}

{{/* Which kinds of `auth` a pool has, as a JSON array. */}}
{{- define "runners.authKinds" -}}
{{- $auth := .auth | default dict -}}
{{- $pat := $auth.pat | default dict -}}
{{- $identity := $auth.workloadIdentity | default dict -}}
{{- $kinds := list -}}
{{- if or $pat.vault $pat.object -}}{{- $kinds = append $kinds "pat" -}}{{- end -}}
{{- if $auth.existingSecret -}}{{- $kinds = append $kinds "existingSecret" -}}{{- end -}}
{{- if $identity.clientId -}}{{- $kinds = append $kinds "workloadIdentity" -}}{{- end -}}
{{- toJson $kinds -}}
{{- end -}}

{{/* A value without what is null in it, at any depth: null takes a default away. As JSON. */}}
{{- define "runners.pruned" -}}
{{- if kindIs "map" . -}}
  {{- $kept := dict -}}
  {{- range $name, $value := . -}}
    {{- if not (kindIs "invalid" $value) -}}
      {{- if kindIs "map" $value -}}
        {{- $_ := set $kept $name (include "runners.pruned" $value | fromJson) -}}
      {{- else -}}
        {{- $_ := set $kept $name $value -}}
      {{- end -}}
    {{- end -}}
  {{- end -}}
  {{- toJson $kept -}}
{{- else -}}
  {{- toJson . -}}
{{- end -}}
{{- end -}}

{{/*
An organization's URL as KEDA and the agent want it: no slash at the end (KEDA takes the organization's name from what follows
the last one), the cloud's two kinds of addresses as one, and a server's with its collection. What it can't be is for the
validation to say.
*/}}
{{- define "runners.organizationUrl" -}}
{{- $url := trim . | trimAll "/" -}}
{{- $url = regexReplaceAll `^(?i)https?://dev\.azure\.com/+` $url "https://dev.azure.com/" -}}
{{- $url = regexReplaceAll `^(?i)https?://([a-z0-9-]+)\.visualstudio\.com(?:/+defaultcollection)?$` $url "https://dev.azure.com/${1}" -}}
{{- $url -}}
{{- end -}}

{{/* The annotations of a pool's ServiceAccount, as JSON. Takes a pool. */}}
{{- define "runners.accountAnnotations" -}}
{{- $annotations := dict -}}
{{- if eq .authKind "workloadIdentity" -}}
{{- $_ := set $annotations "azure.workload.identity/client-id" .auth.workloadIdentity.clientId -}}
{{- with .auth.workloadIdentity.tenantId }}{{ $_ := set $annotations "azure.workload.identity/tenant-id" . }}{{ end -}}
{{- end -}}
{{- mergeOverwrite $annotations (include "runners.texts" .serviceAccount.annotations | fromJson) | toJson -}}
{{- end -}}
