{{/* The daemon's flags, as environment variables. */}}
{{- define "keytide.env" -}}
- name: KEYTIDE_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
- name: KEYTIDE_LISTEN
  value: 0.0.0.0:8080
- name: KEYTIDE_DIGEST_KEY_SECRET
  value: {{ .Values.digestKeySecret | default (printf "%s-digest-key" (include "keytide.fullname" .)) | quote }}
- name: KEYTIDE_LEADER_ELECT_RESOURCE_NAME
  value: {{ include "keytide.fullname" . | quote }}
- name: KEYTIDE_VAULT_DNS_SUFFIX
  value: {{ join "," .Values.vaultDnsSuffixes | quote }}
- name: KEYTIDE_CREDENTIAL
  value: {{ include "keytide.credential" . }}
- name: KEYTIDE_SERVICE_ACCOUNTS
  value: {{ .Values.identity.serviceAccounts | quote }}
- name: KEYTIDE_AKV2K8S
  value: {{ .Values.akv2k8s.enabled | quote }}
- name: KEYTIDE_CONFIG_MAPS
  value: {{ .Values.targets.configMaps | quote }}
- name: KEYTIDE_MIN_REFRESH_INTERVAL
  value: {{ .Values.minRefreshInterval | quote }}
{{- with .Values.hints.queueUrl }}
- name: KEYTIDE_HINTS_QUEUE
  value: {{ . | quote }}
{{- with $.Values.hints.clientId }}
- name: KEYTIDE_HINTS_CLIENT_ID
  value: {{ . | quote }}
{{- end }}
- name: KEYTIDE_HINTS_PAUSE
  value: {{ $.Values.hints.pause | quote }}
{{- end }}
- name: KEYTIDE_ROTATION_POLICY
  value: {{ include "keytide.rotationPolicy" . | quote }}
- name: KEYTIDE_MAX_ROTATIONS
  value: {{ .Values.rotation.clusterMaxConcurrent | quote }}
- name: KEYTIDE_ROTATION_WATCH
  value: {{ .Values.rotation.watch }}
- name: KEYTIDE_ROTATION_COMPATIBILITY
  value: {{ .Values.rotation.compatibility | quote }}
- name: KEYTIDE_LOG_FORMAT
  value: {{ .Values.log.format }}
- name: KEYTIDE_LOG_FILTER
  value: {{ .Values.log.filter | quote }}
{{- if or .Values.caBundle.configMap .Values.caBundle.secret }}
- name: KEYTIDE_CA_BUNDLE
  value: /etc/keytide/ca/bundle.pem
{{- end }}
{{- /* The webhook keeps what is set already, so these hold with it and without it. */}}
{{- with .Values.identity.clientId }}
- name: AZURE_CLIENT_ID
  value: {{ . | quote }}
{{- end }}
{{- with .Values.identity.tenantId }}
- name: AZURE_TENANT_ID
  value: {{ . | quote }}
{{- end }}
{{- if .Values.identity.projectedToken }}
- name: AZURE_FEDERATED_TOKEN_FILE
  value: /var/run/secrets/azure/tokens/azure-identity-token
- name: AZURE_AUTHORITY_HOST
  value: {{ .Values.identity.authorityHost | quote }}
{{- end }}
{{- if or .Values.proxy.httpsProxy .Values.proxy.httpProxy .Values.proxy.noProxy }}
{{- with .Values.proxy.httpsProxy }}
- name: HTTPS_PROXY
  value: {{ . | quote }}
{{- end }}
{{- with .Values.proxy.httpProxy }}
- name: HTTP_PROXY
  value: {{ . | quote }}
{{- end }}
{{- $direct := list "169.254.169.254" "localhost" "127.0.0.1" "kubernetes" "kubernetes.default" "kubernetes.default.svc" "kubernetes.default.svc.cluster.local" "$(KUBERNETES_SERVICE_HOST)" }}
- name: NO_PROXY
  value: {{ join "," (concat (compact (list (trimAll ", " .Values.proxy.noProxy))) $direct) | quote }}
{{- end }}
{{- end -}}

{{/* The cluster's default RotationPolicy, in JSON. What is empty is left out; no windows are always. */}}
{{- define "keytide.rotationPolicy" -}}
{{- $policy := dict "windows" .Values.rotation.windows -}}
{{- range $name := list "settle" "minInterval" "deadline" "beforeExpiry" "maxConcurrent" "canary" "onFailure" "on" -}}
  {{- with get $.Values.rotation $name -}}
    {{- $_ := set $policy $name . -}}
  {{- end -}}
{{- end -}}
{{- toJson $policy -}}
{{- end -}}
