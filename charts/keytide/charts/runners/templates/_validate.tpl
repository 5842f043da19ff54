{{/*
Stops the release with a sentence per mistake that says what to write instead. Here is what the schema can't say at all (how
values depend on each other) or could only say as a regular expression.
*/}}
{{- define "runners.validate" -}}
{{- $pools := (include "runners.pools" . | fromJson).pools -}}
{{- $errors := concat
  (include "runners.validate.keda" (dict "root" . "pools" $pools) | fromJsonArray)
  (include "runners.validate.together" $pools | fromJsonArray)
  (include "runners.validate.namespaces" . | fromJsonArray)
-}}
{{- range $pool := $pools -}}
  {{- range $part := list "name" "organization" "auth" "scale" "pod" -}}
    {{- $scope := dict "at" (printf "pools.%s" $pool.key) "pool" $pool -}}
    {{- $errors = concat $errors (include (printf "runners.validate.%s" $part) $scope | fromJsonArray) -}}
  {{- end -}}
{{- end -}}
{{- with $errors -}}
{{- fail (printf "\n\n  * %s\n" (join "\n  * " .)) -}}
{{- end -}}
{{- end -}}

{{- define "runners.validate.keda" -}}
{{- $scaled := list -}}
{{- range .pools }}{{ if .scaled }}{{ $scaled = append $scaled .key }}{{ end }}{{ end -}}
{{- $errors := list -}}
{{- if and $scaled .root.Values.keda.checkInstalled (not (.root.Capabilities.APIVersions.Has "keda.sh/v1alpha1")) -}}
  {{- $errors = append $errors (printf "pools.%s%s scaled by KEDA, and this cluster has no KEDA (keda.sh/v1alpha1): install KEDA 2.21 or newer first, or set scale.enabled: false for a fixed number of agents. Where manifests are rendered without a cluster, set keda.checkInstalled: false" (first $scaled) (ternary " is" (printf " and %d more are" (sub (len $scaled) 1)) (eq (len $scaled) 1))) -}}
{{- end -}}
{{- toJson $errors -}}
{{- end -}}

{{/* What pools may not have in common. */}}
{{- define "runners.validate.together" -}}
{{- $errors := list -}}
{{- $names := dict -}}
{{- $secrets := dict -}}
{{- $accounts := dict -}}
{{- range . -}}
  {{- $place := printf "%s/%s" .namespace .name -}}
  {{- if hasKey $names $place -}}
    {{- $errors = append $errors (printf "pools.%s and pools.%s would both be called %s in namespace %s: give one of them another name" (get $names $place) .key .name .namespace) -}}
  {{- end -}}
  {{- $_ := set $names $place .key -}}
  {{- if eq .authKind "pat" -}}
    {{- $place := printf "%s/%s" .namespace .secretName -}}
    {{- $pat := pick .auth.pat "vault" "object" "version" "serviceAccountName" | toJson -}}
    {{- $first := get $secrets $place | default (dict "key" .key "pat" $pat) -}}
    {{- if ne $first.pat $pat -}}
      {{- $errors = append $errors (printf "pools.%s and pools.%s mirror different PATs into the Secret %s of namespace %s: give one of them another secretName, or another namespace" $first.key .key .secretName .namespace) -}}
    {{- end -}}
    {{- $_ := set $secrets $place $first -}}
  {{- end -}}
  {{- if .serviceAccount.create -}}
    {{- $place := printf "%s/%s" .namespace .serviceAccountName -}}
    {{- $annotations := include "runners.accountAnnotations" . -}}
    {{- $first := get $accounts $place | default (dict "key" .key "annotations" $annotations) -}}
    {{- if ne $first.annotations $annotations -}}
      {{- $errors = append $errors (printf "pools.%s and pools.%s have different identities or annotations for the ServiceAccount %s of namespace %s: give one of them another serviceAccount.name" $first.key .key .serviceAccountName .namespace) -}}
    {{- end -}}
    {{- $_ := set $accounts $place $first -}}
  {{- end -}}
{{- end -}}
{{- toJson $errors -}}
{{- end -}}

{{- define "runners.validate.name" -}}
{{- $errors := list -}}
{{- $dns := `^[a-z0-9]([a-z0-9-]*[a-z0-9])?$` -}}
{{- if not (regexMatch $dns .pool.key) -}}
  {{- $errors = append $errors (printf "%s: Kubernetes objects are named after it, so use small letters, digits and dashes, and write what the pool is called in Azure DevOps to poolName" .at) -}}
{{- else if not (regexMatch $dns .pool.name) -}}
  {{- $errors = append $errors (printf "%s.name is %q: use small letters, digits and dashes" .at .pool.name) -}}
{{- end -}}
{{- if not (regexMatch `^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$` .pool.namespace) -}}
  {{- $errors = append $errors (printf "%s.namespace is %q, which no namespace can be called: use at most 63 small letters, digits and dashes" .at .pool.namespace) -}}
{{- end -}}
{{- $errors = concat $errors (include "runners.validate.costs" (dict "at" .at "of" .pool) | fromJsonArray) -}}
{{- toJson $errors -}}
{{- end -}}

{{/* Cost labels of a pool or a namespace. */}}
{{- define "runners.validate.costs" -}}
{{- $errors := list -}}
{{- range $field := list "team" "costCenter" -}}
  {{- $value := include "runners.text" (get $.of $field) -}}
  {{- if not (regexMatch `^([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?$` $value) -}}
    {{- $errors = append $errors (printf "%s.%s is %q, and becomes a label: use at most 63 letters, digits, dashes, dots and underscores, with a letter or digit at both ends" $.at $field $value) -}}
  {{- end -}}
{{- end -}}
{{- toJson $errors -}}
{{- end -}}

{{- define "runners.validate.organization" -}}
{{- $errors := list -}}
{{- $url := .pool.organizationUrl -}}
{{- if not $url -}}
  {{- $errors = append $errors (printf "%s.organizationUrl is missing: write the organization's URL, such as https://dev.azure.com/contoso" .at) -}}
{{- else if contains "@" $url -}}
  {{- /* What stands before the @ may be a token, so it isn't repeated. */ -}}
  {{- $errors = append $errors (printf "%s.organizationUrl has an @ in it: write the URL without a user or token, such as https://dev.azure.com/contoso" .at) -}}
{{- else if not (regexMatch `^https?://[^/\s?#]+(/[^\s?#]+)?$` $url) -}}
  {{- $errors = append $errors (printf "%s.organizationUrl is %q: write a URL with https:// and nothing behind its path, such as https://dev.azure.com/contoso or https://azuredevops.example.com/DefaultCollection" .at $url) -}}
{{- else if regexMatch `^https?://(dev\.azure\.com|[^/]*\.visualstudio\.com)(/|$)` (lower $url) -}}
  {{- if not (regexMatch `^https://dev\.azure\.com/[^/]+$` $url) -}}
    {{- $errors = append $errors (printf "%s.organizationUrl is %q: write the organization's URL without a project or page, such as https://dev.azure.com/contoso" .at $url) -}}
  {{- end -}}
{{- end -}}
{{- if and .pool.poolName .pool.poolID -}}
  {{- $errors = append $errors (printf "%s.poolName (%q) and %s.poolID (%s) are both set: write one of them" .at .pool.poolName .at .pool.poolID) -}}
{{- else if not (or .pool.poolName .pool.poolID) -}}
  {{- $errors = append $errors (printf "%s has no agent pool: write its name to poolName, or its number (poolId in the address of its page) to poolID" .at) -}}
{{- else if and .pool.poolID (not (regexMatch `^[1-9][0-9]*$` .pool.poolID)) -}}
  {{- $errors = append $errors (printf "%s.poolID is %q: write the pool's number, or its name to poolName" .at .pool.poolID) -}}
{{- end -}}
{{- toJson $errors -}}
{{- end -}}

{{- define "runners.validate.auth" -}}
{{- $errors := list -}}
{{- $auth := .pool.auth | default dict -}}
{{- $kinds := .pool.authKinds -}}
{{- $uuid := `^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$` -}}
{{- if not $kinds -}}
  {{- $errors = append $errors (printf "%s.auth is missing: write auth.pat (vault and object) for a PAT from a Key Vault, auth.existingSecret for a Secret that is there, or auth.workloadIdentity.clientId" .at) -}}
{{- else if gt (len $kinds) 1 -}}
  {{- $errors = append $errors (printf "%s.auth has %s: write one of them" .at (join " and " $kinds)) -}}
{{- else if eq .pool.authKind "pat" -}}
  {{- $object := include "runners.text" $auth.pat.object -}}
  {{- if not (and $auth.pat.vault $object) -}}
    {{- $errors = append $errors (printf "%s.auth.pat needs both vault and object, such as {vault: youradorunnerskv, object: ado-pat}" .at) -}}
  {{- else -}}
    {{- if not (regexMatch `^[a-zA-Z0-9]([a-zA-Z0-9.-]*[a-zA-Z0-9])$` $auth.pat.vault) -}}
      {{- $errors = append $errors (printf "%s.auth.pat.vault is %q: write the vault's name or its host, without https:// and without a path" .at $auth.pat.vault) -}}
    {{- end -}}
    {{- if not (regexMatch `^[a-zA-Z0-9-]{1,127}$` $object) -}}
      {{- $errors = append $errors (printf "%s.auth.pat.object is %q, which no vault object can be called: use letters, digits and dashes" .at $object) -}}
    {{- end -}}
  {{- end -}}
  {{- if not .pool.secretName -}}
    {{- $errors = append $errors (printf "%s.secretName is empty: write the name of the Secret that the PAT is mirrored into, such as adopat" .at) -}}
  {{- end -}}
{{- else if eq .pool.authKind "workloadIdentity" -}}
  {{- range $field := list "clientId" "kedaClientId" -}}
    {{- $id := get $auth.workloadIdentity $field -}}
    {{- if and $id (not (regexMatch $uuid $id)) -}}
      {{- $errors = append $errors (printf "%s.auth.workloadIdentity.%s is %q: write the identity's client ID (its application ID, not its name or resource ID), such as 01234567-89ab-cdef-0123-456789abcdef" $.at $field $id) -}}
    {{- end -}}
  {{- end -}}
  {{- if and $auth.workloadIdentity.projectedToken (not $auth.workloadIdentity.tenantId) -}}
    {{- $errors = append $errors (printf "%s.auth.workloadIdentity.projectedToken needs tenantId, since no webhook is asked for it" .at) -}}
  {{- end -}}
  {{- if not (or .pool.serviceAccount.create .pool.serviceAccount.name) -}}
    {{- $errors = append $errors (printf "%s.serviceAccount.create is false and serviceAccount.name is empty: write the ServiceAccount that the identity trusts" .at) -}}
  {{- end -}}
{{- end -}}
{{- toJson $errors -}}
{{- end -}}

{{- define "runners.validate.scale" -}}
{{- $errors := list -}}
{{- $pool := .pool -}}
{{- $scale := $pool.scale -}}
{{- if and (eq $pool.mode "job") (not $scale.enabled) -}}
  {{- $errors = append $errors (printf "%s.scale.enabled is false in mode job, whose Pods only KEDA makes: leave it true, or write mode: deployment" .at) -}}
{{- end -}}
{{- if $pool.scaled -}}
  {{- if lt (int64 $pool.max) 1 -}}
    {{- $errors = append $errors (printf "%s.scale.max is 0: write the most agents that there may be, at least 1" .at) -}}
  {{- else if gt (int64 $pool.min) (int64 $pool.max) -}}
    {{- $errors = append $errors (printf "%s.scale.min is %d and scale.max is %d: the least can't be more than the most" .at (int64 $pool.min) (int64 $pool.max)) -}}
  {{- end -}}
{{- end -}}
{{- if include "runners.text" $scale.jobsToFetch -}}
  {{- if $scale.fetchUnfinishedJobsOnly -}}
    {{- $errors = append $errors (printf "%s.scale.jobsToFetch and scale.fetchUnfinishedJobsOnly are both set, which KEDA refuses: leave one of them out" .at) -}}
  {{- end -}}
  {{- if include "runners.text" $scale.parent -}}
    {{- $errors = append $errors (printf "%s.scale.jobsToFetch and scale.parent are both set, which KEDA refuses: leave one of them out" .at) -}}
  {{- end -}}
{{- end -}}
{{- toJson $errors -}}
{{- end -}}

{{- define "runners.validate.pod" -}}
{{- $errors := list -}}
{{- $pool := .pool -}}
{{- if and $pool.rotateAfter (not (regexMatch `^([0-9]{1,6}(h|m|s)){1,3}$` $pool.rotateAfter)) -}}
  {{- $errors = append $errors (printf "%s.rotateAfter is %q: write a number with its unit (s, m or h), such as 2m" .at $pool.rotateAfter) -}}
{{- end -}}
{{- if and $pool.caBundle.configMap $pool.caBundle.secret -}}
  {{- $errors = append $errors (printf "%s.caBundle.configMap and caBundle.secret are both set: write one of them" .at) -}}
{{- end -}}
{{- if and $pool.toolCache.volume $pool.toolCache.claim.create -}}
  {{- $errors = append $errors (printf "%s.toolCache.volume and toolCache.claim.create are both set: write one of them" .at) -}}
{{- end -}}
{{- range $name := list "httpsProxy" "httpProxy" -}}
  {{- with get $pool.proxy $name -}}
    {{- if not (regexMatch `^https?://[^/]` .) -}}
      {{- $errors = append $errors (printf "%s.proxy.%s is %q: write the proxy with its scheme, such as http://proxy.example.com:3128" $.at $name .) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- range $field, $path := dict "work.path" $pool.work.path "toolCache.path" $pool.toolCache.path -}}
  {{- if not (hasPrefix "/" $path) -}}
    {{- $errors = append $errors (printf "%s.%s is %q: write an absolute path" $.at $field $path) -}}
  {{- end -}}
{{- end -}}
{{- $taken := dict "AZP_PLACEHOLDER" "the chart" "AZP_AGENT_NAME" "the chart" -}}
{{- range include "runners.ownEnv" $pool | fromYamlArray -}}
  {{- $_ := set $taken .name "a field of its own" -}}
{{- end -}}
{{- range $field := list "capabilities" "env" -}}
  {{- range $name, $_ := get $pool $field | default dict -}}
    {{- if not (regexMatch `^[-._a-zA-Z][-._a-zA-Z0-9]*$` $name) -}}
      {{- $errors = append $errors (printf "%s.%s has %q, which no environment variable can be called: use letters, digits, dashes, dots and underscores" $.at $field $name) -}}
    {{- end -}}
    {{- if hasKey $taken $name -}}
      {{- $errors = append $errors (printf "%s.%s sets %s, which is set by %s already: leave it out" $.at $field $name (get $taken $name)) -}}
    {{- end -}}
    {{- $_ := set $taken $name $field -}}
  {{- end -}}
{{- end -}}
{{- toJson $errors -}}
{{- end -}}

{{- define "runners.validate.namespaces" -}}
{{- $errors := list -}}
{{- $used := list -}}
{{- range (include "runners.pools" . | fromJson).pools }}{{ $used = append $used .namespace }}{{ end -}}
{{- range $name, $home := .Values.namespaces -}}
  {{- $at := printf "namespaces.%s" $name -}}
  {{- if not (regexMatch `^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$` $name) -}}
    {{- $errors = append $errors (printf "%s: no namespace can be called so: use at most 63 small letters, digits and dashes" $at) -}}
  {{- else if not (has $name $used) -}}
    {{- $errors = append $errors (printf "%s: no pool has this namespace: write namespace: %s in a pool, or leave it out here" $at $name) -}}
  {{- end -}}
  {{- if and ($home.limitRange).enabled (not ($home.limitRange).limits) -}}
    {{- $errors = append $errors (printf "%s.limitRange.limits is missing: write a list such as [{type: Container, defaultRequest: {cpu: 100m, memory: 128Mi}}]" $at) -}}
  {{- end -}}
  {{- $errors = concat $errors (include "runners.validate.costs" (dict "at" $at "of" $home) | fromJsonArray) -}}
{{- end -}}
{{- toJson $errors -}}
{{- end -}}
