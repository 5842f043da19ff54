{{/*
Stops the release with a sentence per mistake that says what to write instead. Here is what the schema
can't say at all (how values depend on each other) or could only say as a regular expression. What it
says well (types, unknown keys, enums) is left to it.
*/}}
{{- define "keytide.validate" -}}
{{- $errors := concat
  (include "keytide.validate.vaults" . | fromYamlArray)
  (include "keytide.validate.identity" . | fromYamlArray)
  (include "keytide.validate.hints" . | fromYamlArray)
  (include "keytide.validate.daemon" . | fromYamlArray)
-}}
{{- with $errors -}}
{{- fail (printf "\n\n  * %s\n" (join "\n  * " .)) -}}
{{- end -}}
{{- end -}}

{{- define "keytide.validate.vaults" -}}
{{- $errors := list -}}
{{- $grants := dict -}}
{{- range $vault, $grant := .Values.vaults -}}
  {{- $at := printf "vaults.%s" $vault -}}
  {{- $host := lower $vault -}}
  {{- if contains "/" $vault -}}
    {{- $errors = append $errors (printf "%s: write the vault's name or its host, without https:// and without a path, such as %s" $at (regexReplaceAll "^https?://|/.*$" $host "" | default "contoso.vault.azure.net")) -}}
  {{- else if contains "." $vault -}}
    {{- if not (regexMatch `^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)+$` $host) -}}
      {{- $errors = append $errors (printf "%s is not a host: write the vault's name, such as contoso, or its host, such as contoso.%s" $at (first $.Values.vaultDnsSuffixes)) -}}
    {{- else -}}
      {{- $known := false -}}
      {{- range $.Values.vaultDnsSuffixes -}}
        {{- if hasSuffix (printf ".%s" (lower .)) $host -}}{{- $known = true -}}{{- end -}}
      {{- end -}}
      {{- if not $known -}}
        {{- $errors = append $errors (printf "%s: the daemon doesn't ask hosts outside vaultDnsSuffixes (%s): correct the host, or add its suffix there" $at (join ", " $.Values.vaultDnsSuffixes)) -}}
      {{- end -}}
    {{- end -}}
  {{- else if or (not (regexMatch "^[a-z][a-z0-9-]{1,22}[a-z0-9]$" $host)) (contains "--" $host) -}}
    {{- $errors = append $errors (printf "%s is not a Key Vault's name: one has 3 to 24 letters, digits and single dashes, begins with a letter and ends with a letter or digit" $at) -}}
  {{- end -}}
  {{- $name := include "keytide.grantName" (dict "root" $ "vault" $vault) -}}
  {{- if hasKey $grants $name -}}
    {{- $errors = append $errors (printf "vaults.%s and %s would both become the grant %s: write them as one, or create a KeyVaultGrant of your own for one of them" (get $grants $name) $at $name) -}}
  {{- end -}}
  {{- $_ := set $grants $name $vault -}}
  {{- $errors = concat $errors (include "keytide.validate.ids" (dict "at" $at "identity" $grant) | fromYamlArray) -}}
  {{- if and $grant.tenantId (not $grant.clientId) -}}
    {{- $errors = append $errors (printf "%s.tenantId is set without clientId: write the client ID of the identity in that tenant, or leave tenantId out" $at) -}}
  {{- end -}}
  {{- if not (or $grant.namespaces $grant.namespaceSelector) -}}
    {{- $errors = append $errors (printf "%s.namespaces is missing: write the namespaces that may mirror from this vault, such as namespaces: [runners], or a namespaceSelector. There is no default; [\"*\"] means every namespace" $at) -}}
  {{- end -}}
  {{- if and $grant.serviceAccounts $grant.clientId -}}
    {{- $errors = append $errors (printf "%s has both clientId and serviceAccounts: write one of them, since either the grant says who reads, or each mirror does" $at) -}}
  {{- end -}}
  {{- if and $grant.serviceAccounts (not $.Values.identity.serviceAccounts) -}}
    {{- $errors = append $errors (printf "%s.serviceAccounts needs identity.serviceAccounts: true, which gives the daemon the right to act as ServiceAccounts" $at) -}}
  {{- end -}}
  {{- if and $grant.allowConfigMap (not $.Values.targets.configMaps) -}}
    {{- $errors = append $errors (printf "%s.allowConfigMap needs targets.configMaps: true, which gives the daemon the right to write ConfigMaps" $at) -}}
  {{- end -}}
  {{- range $i, $name := $grant.allowConfigMap -}}
    {{- if not (regexMatch `^[a-zA-Z0-9*-]{1,127}$` $name) -}}
      {{- $errors = append $errors (printf "%s.allowConfigMap[%d] is %q, which no vault object can be called: use letters, digits and dashes, and * for any characters" $at $i $name) -}}
    {{- end -}}
  {{- end -}}
  {{- range $i, $namespace := $grant.namespaces -}}
    {{- if not (regexMatch `^[a-z0-9*]([a-z0-9*-]{0,61}[a-z0-9*])?$` $namespace) -}}
      {{- $errors = append $errors (printf "%s.namespaces[%d] is %q, which no namespace can be called: use small letters, digits and dashes, and * for any characters" $at $i $namespace) -}}
    {{- end -}}
  {{- end -}}
  {{- if not $grant.objects -}}
    {{- $errors = append $errors (printf "%s.objects is missing: write the vault objects that may be mirrored, such as objects: [{kind: secret, name: \"*\"}]" $at) -}}
  {{- end -}}
  {{- range $i, $object := $grant.objects -}}
    {{- if not (and $object.kind $object.name) -}}
      {{- $errors = append $errors (printf "%s.objects[%d] needs both kind and name, such as {kind: secret, name: \"*\"}" $at $i) -}}
    {{- else if not (regexMatch `^[a-zA-Z0-9*-]{1,127}$` $object.name) -}}
      {{- $errors = append $errors (printf "%s.objects[%d].name is %q, which no vault object can be called: use letters, digits and dashes, and * for any characters" $at $i $object.name) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- toYaml $errors -}}
{{- end -}}

{{/* clientId and tenantId of anything that has them. */}}
{{- define "keytide.validate.ids" -}}
{{- $errors := list -}}
{{- $uuid := `^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$` -}}
{{- with .identity.clientId -}}
  {{- if not (regexMatch $uuid .) -}}
    {{- $errors = append $errors (printf "%s.clientId is %q: write the identity's client ID (its application ID, not its name or resource ID), such as 01234567-89ab-cdef-0123-456789abcdef" $.at .) -}}
  {{- end -}}
{{- end -}}
{{- with .identity.tenantId -}}
  {{- if not (or (regexMatch $uuid .) (regexMatch `^[a-zA-Z0-9-]+(\.[a-zA-Z0-9-]+)+$` .)) -}}
    {{- $errors = append $errors (printf "%s.tenantId is %q: write the tenant's ID, such as 01234567-89ab-cdef-0123-456789abcdef, or its domain, such as contoso.onmicrosoft.com" $.at .) -}}
  {{- end -}}
{{- end -}}
{{- toYaml $errors -}}
{{- end -}}

{{- define "keytide.validate.identity" -}}
{{- $errors := include "keytide.validate.ids" (dict "at" "identity" "identity" .Values.identity) | fromYamlArray -}}
{{- with .Values.identity -}}
  {{- if .projectedToken -}}
    {{- if not (has .type (list "auto" "workloadIdentity")) -}}
      {{- $errors = append $errors (printf "identity.projectedToken is for workload identity, and identity.type is %s: write type: workloadIdentity, or leave projectedToken out" .type) -}}
    {{- end -}}
    {{- if not (and .clientId .tenantId) -}}
      {{- $errors = append $errors "identity.projectedToken needs identity.clientId and identity.tenantId, since no webhook is asked for them: write both" -}}
    {{- end -}}
    {{- if not (hasPrefix "https://" .authorityHost) -}}
      {{- $errors = append $errors (printf "identity.authorityHost is %q: write the Microsoft Entra endpoint with https://, such as https://login.microsoftonline.com/" .authorityHost) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- if not (or .Values.serviceAccount.create .Values.serviceAccount.name) -}}
  {{- $errors = append $errors "serviceAccount.create is false and serviceAccount.name is empty: write the name of a ServiceAccount. (The namespace's default one would share the daemon's rights with every Pod there.)" -}}
{{- end -}}
{{- toYaml $errors -}}
{{- end -}}

{{- define "keytide.validate.hints" -}}
{{- $errors := include "keytide.validate.ids" (dict "at" "hints" "identity" .Values.hints) | fromYamlArray -}}
{{- with .Values.hints -}}
  {{- $host := `https://[A-Za-z0-9][A-Za-z0-9.-]*[.]queue[.](core[.](windows[.]net|chinacloudapi[.]cn|usgovcloudapi[.]net)|storage[.]azure[.]net)` -}}
  {{- $queue := `[a-z0-9](-?[a-z0-9]){2,62}` -}}
  {{- if and .queueUrl (not (regexMatch (printf "^%s/%s$" $host $queue) .queueUrl)) -}}
    {{- /* Not quoted: it may hold a SAS. */ -}}
    {{- $errors = append $errors "hints.queueUrl is not the URL of a queue of Azure Storage: write https://, the account's host for queues and the queue's name, such as https://contoso.queue.core.windows.net/keytide, without a SAS" -}}
  {{- end -}}
  {{- if and .clientId (not .queueUrl) -}}
    {{- $errors = append $errors "hints.clientId is set and hints.queueUrl is empty: write the queue's URL, or leave both out" -}}
  {{- end -}}
  {{- if not (regexMatch `^([0-9]+(ms|s|m|h))+$` (toString .pause)) -}}
    {{- $errors = append $errors (printf "hints.pause is %q: write a number with its unit (ms, s, m or h), such as 1s" (toString .pause)) -}}
  {{- end -}}
{{- end -}}
{{- toYaml $errors -}}
{{- end -}}

{{- define "keytide.validate.daemon" -}}
{{- $errors := list -}}
{{- $durations := dict "minRefreshInterval" .Values.minRefreshInterval -}}
{{- range $name := list "settle" "minInterval" "deadline" "beforeExpiry" -}}
  {{- $value := toString (get $.Values.rotation $name) -}}
  {{- if or $value (ne $name "deadline") -}}
    {{- $_ := set $durations (printf "rotation.%s" $name) $value -}}
  {{- end -}}
{{- end -}}
{{- with .Values.rotation.canary -}}
  {{- if not .matchLabels -}}
    {{- $errors = append $errors "rotation.canary has no matchLabels: name the labels of the workloads that shall roll first, such as {tier: canary}" -}}
  {{- end -}}
  {{- with .soak -}}
    {{- $_ := set $durations "rotation.canary.soak" . -}}
  {{- end -}}
{{- end -}}
{{- range $name, $value := $durations -}}
  {{- if not (regexMatch `^([0-9]+(ms|s|m|h))+$` (toString $value)) -}}
    {{- $errors = append $errors (printf "%s is %q: write a number with its unit (ms, s, m or h), such as 10s or 1m30s" $name (toString $value)) -}}
  {{- end -}}
{{- end -}}
{{- range $i, $window := .Values.rotation.windows -}}
  {{- $at := printf "rotation.windows[%d]" $i -}}
  {{- if not (regexMatch `^([01][0-9]|2[0-3]):[0-5][0-9]$` (toString $window.from)) -}}
    {{- $errors = append $errors (printf "%s.from is %q: write hours and minutes in quotes, such as \"22:00\"" $at (toString $window.from)) -}}
  {{- end -}}
  {{- if not (regexMatch `^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$` (toString $window.to)) -}}
    {{- $errors = append $errors (printf "%s.to is %q: write hours and minutes in quotes, such as \"04:00\"" $at (toString $window.to)) -}}
  {{- end -}}
  {{- if eq (toString $window.from) (toString $window.to) -}}
    {{- $errors = append $errors (printf "%s has the same from and to, and would never be open: for the whole day write \"00:00\" and \"24:00\"" $at) -}}
  {{- end -}}
{{- end -}}
{{- range $i, $suffix := .Values.vaultDnsSuffixes -}}
  {{- if not (regexMatch `^[a-zA-Z0-9-]+(\.[a-zA-Z0-9-]+)+$` $suffix) -}}
    {{- $errors = append $errors (printf "vaultDnsSuffixes[%d] is %q: write what follows the first dot of a vault's host, such as vault.azure.net" $i $suffix) -}}
  {{- end -}}
{{- end -}}
{{- if and .Values.caBundle.configMap .Values.caBundle.secret -}}
  {{- $errors = append $errors "caBundle.configMap and caBundle.secret are both set: write one of them" -}}
{{- end -}}
{{- range $name := list "httpsProxy" "httpProxy" -}}
  {{- with get $.Values.proxy $name -}}
    {{- if not (regexMatch `^https?://[^/]` .) -}}
      {{- $errors = append $errors (printf "proxy.%s is %q: write the proxy with its scheme, such as http://proxy.example.com:3128" $name .) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- if and .Values.metrics.serviceMonitor.enabled (not (.Capabilities.APIVersions.Has "monitoring.coreos.com/v1/ServiceMonitor")) -}}
  {{- $errors = append $errors "metrics.serviceMonitor.enabled is true, and this cluster has no ServiceMonitor (monitoring.coreos.com/v1): install the Prometheus operator's definitions first, or leave it false. (helm template knows no cluster: add --api-versions monitoring.coreos.com/v1/ServiceMonitor)" -}}
{{- end -}}
{{- /* Twice the same name is refused by server-side apply, with a message about managed fields. */ -}}
{{- $names := dict -}}
{{- range include "keytide.env" . | fromYamlArray -}}
  {{- $_ := set $names .name "a value of its own" -}}
{{- end -}}
{{- range .Values.extraEnv -}}
  {{- if hasKey $names .name -}}
    {{- $errors = append $errors (printf "extraEnv sets %s, which is set by %s already: leave it out" .name (get $names .name)) -}}
  {{- end -}}
  {{- $_ := set $names .name "extraEnv" -}}
{{- end -}}
{{- toYaml $errors -}}
{{- end -}}
