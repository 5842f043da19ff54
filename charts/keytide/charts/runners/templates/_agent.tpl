{{/* The folder that the agent's Secret is mounted at; its file `token` is what is read anew when the PAT was rotated. */}}
{{- define "runners.tokenFolder" -}}
/var/run/secrets/keytide.dev/ado
{{- end -}}

{{/* The environment that the chart sets itself. Takes a pool, and so do all of the templates below. */}}
{{- define "runners.ownEnv" -}}
- name: AZP_URL
  value: {{ .organizationUrl | quote }}
- name: AZP_POOL
  value: {{ .poolName | default .poolID | quote }}
{{- if not .poolName }}
# The agent looks its name up.
- name: AZP_POOL_ID
  value: {{ .poolID | quote }}
{{- end }}
- name: AZP_AUTH
  value: {{ ternary "workload-identity" "pat" (eq .authKind "workloadIdentity") }}
{{- with .secret }}
- name: AZP_TOKEN
  valueFrom:
    secretKeyRef:
      name: {{ .name | quote }}
      key: {{ .key | quote }}
- name: AZP_TOKEN_FILE
  value: {{ include "runners.tokenFolder" . }}/token
{{- end }}
- name: AZP_CLEANUP_PREFIX
  value: {{ printf "%s-" .name | quote }}
- name: AZP_WORK
  value: {{ .work.path | quote }}
- name: AZP_ONCE
  value: {{ ternary "true" "false" (eq .mode "job") | quote }}
{{- if include "runners.hasToolCache" . }}
- name: AGENT_TOOLSDIRECTORY
  value: {{ .toolCache.path | quote }}
{{- end }}
{{- if and (eq .authKind "workloadIdentity") .auth.workloadIdentity.projectedToken }}
- name: AZURE_CLIENT_ID
  value: {{ .auth.workloadIdentity.clientId | quote }}
- name: AZURE_TENANT_ID
  value: {{ .auth.workloadIdentity.tenantId | quote }}
- name: AZURE_FEDERATED_TOKEN_FILE
  value: /var/run/secrets/azure/tokens/azure-identity-token
- name: AZURE_AUTHORITY_HOST
  value: {{ .auth.workloadIdentity.authorityHost | quote }}
{{- end }}
{{- with include "runners.proxyEnv" . | trim }}
{{ . }}
{{- end }}
{{- if include "runners.hasCaBundle" . }}
- name: AZP_CA_BUNDLE
  value: /etc/keytide/ca/bundle.pem
{{- end }}
{{- if .buildkit.enabled }}
- name: BUILDKIT_HOST
  value: unix:///run/buildkit/buildkitd.sock
{{- end }}
{{- end -}}

{{- define "runners.proxyEnv" -}}
{{- with .proxy.httpsProxy }}
- name: HTTPS_PROXY
  value: {{ . | quote }}
{{- end }}
{{- with .proxy.httpProxy }}
- name: HTTP_PROXY
  value: {{ . | quote }}
{{- end }}
{{- if or .proxy.httpsProxy .proxy.httpProxy .proxy.noProxy }}
{{- $direct := list "169.254.169.254" "localhost" "127.0.0.1" "kubernetes.default.svc" "$(KUBERNETES_SERVICE_HOST)" }}
- name: NO_PROXY
  value: {{ join "," (concat (compact (list (trimAll ", " .proxy.noProxy))) $direct) | quote }}
{{- end }}
{{- end -}}

{{/* Capabilities and further variables: to an agent, every variable of its environment is a capability. */}}
{{- define "runners.furtherEnv" -}}
{{- range $name, $value := .capabilities }}
- name: {{ $name | quote }}
  value: {{ include "runners.text" $value | quote }}
{{- end }}
{{- range $name, $value := .env }}
- name: {{ $name | quote }}
  {{- if kindIs "map" $value }}
  {{- toYaml $value | nindent 2 }}
  {{- else }}
  value: {{ include "runners.text" $value | quote }}
  {{- end }}
{{- end }}
{{- end -}}

{{- define "runners.hasToolCache" -}}
{{- if or .toolCache.volume .toolCache.claim.create }}true{{ end -}}
{{- end -}}

{{- define "runners.hasCaBundle" -}}
{{- if or .caBundle.configMap .caBundle.secret }}true{{ end -}}
{{- end -}}

{{/* repository:tag, and with a digest repository:tag@digest. Takes (dict "root" "image"). */}}
{{- define "runners.image" -}}
{{- $tag := include "runners.text" .image.tag -}}
{{- if and .image.digest (not $tag) -}}
{{- printf "%s@%s" .image.repository .image.digest -}}
{{- else -}}
{{- printf "%s:%s" .image.repository ($tag | default .root.Chart.AppVersion) -}}
{{- with .image.digest }}@{{ . }}{{ end -}}
{{- end -}}
{{- end -}}

{{/* The agent's container. Takes (dict "root" "pool" "placeholder"). */}}
{{- define "runners.agent" -}}
{{- $pool := .pool -}}
name: agent
image: {{ include "runners.image" (dict "root" .root "image" $pool.image) | quote }}
imagePullPolicy: {{ $pool.image.pullPolicy | quote }}
env:
  {{- include "runners.ownEnv" $pool | nindent 2 }}
  {{- if .placeholder }}
  - name: AZP_PLACEHOLDER
    value: "true"
  # Always the same, and none that is cleaned up.
  - name: AZP_AGENT_NAME
    value: {{ printf "placeholder-%s" $pool.name | quote }}
  {{- else }}
  - name: AZP_AGENT_NAME
    valueFrom:
      fieldRef:
        fieldPath: metadata.name
  {{- end }}
  {{- with include "runners.furtherEnv" $pool | trim }}
  {{- . | nindent 2 }}
  {{- end }}
{{- with $pool.envFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
resources:
  {{- toYaml $pool.resources | nindent 2 }}
{{- with $pool.securityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $pool.readinessProbe }}
readinessProbe:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $pool.lifecycle }}
lifecycle:
  {{- toYaml . | nindent 2 }}
{{- end }}
volumeMounts:
  - name: work
    mountPath: {{ $pool.work.path | quote }}
  {{- if $pool.secret }}
  - name: token
    mountPath: {{ include "runners.tokenFolder" . }}
    readOnly: true
  {{- end }}
  {{- if include "runners.hasToolCache" $pool }}
  - name: tool-cache
    mountPath: {{ $pool.toolCache.path | quote }}
  {{- end }}
  {{- if include "runners.hasCaBundle" $pool }}
  - name: ca-bundle
    mountPath: /etc/keytide/ca
    readOnly: true
  {{- end }}
  {{- if and (eq $pool.authKind "workloadIdentity") $pool.auth.workloadIdentity.projectedToken }}
  - name: azure-identity-token
    mountPath: /var/run/secrets/azure/tokens
    readOnly: true
  {{- end }}
  {{- if $pool.buildkit.enabled }}
  - name: buildkit-socket
    mountPath: /run/buildkit
  {{- end }}
  {{- with $pool.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}
