{{/* What the objects are named after. At most 52 characters, so that every suffix fits into 63. */}}
{{- define "keytide.fullname" -}}
{{- $name := .Values.nameOverride | default .Chart.Name -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "keytide.selectorLabels" -}}
app.kubernetes.io/name: {{ .Values.nameOverride | default .Chart.Name | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "keytide.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "keytide.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: keytide
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "keytide.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (include "keytide.fullname" .) -}}
{{- end -}}

{{/* repository:tag, and with a digest repository:tag@digest (no tag of ours where only a digest is set). */}}
{{- define "keytide.image" -}}
{{- $image := .Values.image -}}
{{- if and $image.digest (not $image.tag) -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository ($image.tag | default .Chart.AppVersion) -}}
{{- with $image.digest }}@{{ . }}{{ end -}}
{{- end -}}
{{- end -}}

{{/* "true" where the workload identity webhook is to see the Pod: not where we mount the token ourselves. */}}
{{- define "keytide.workloadIdentityWebhook" -}}
{{- if and (has .Values.identity.type (list "auto" "workloadIdentity")) (not .Values.identity.projectedToken) -}}
true
{{- end -}}
{{- end -}}

{{/* An identity's type as the daemon's --credential spells it. */}}
{{- define "keytide.credential" -}}
{{- if .Values.identity.projectedToken -}}
workload-identity
{{- else -}}
{{- .Values.identity.type | kebabcase -}}
{{- end -}}
{{- end -}}

{{/* A grant's name: of the release and the vault, without the dots of a host. */}}
{{- define "keytide.grantName" -}}
{{- printf "%s-%s" (include "keytide.fullname" .root) (.vault | lower | replace "." "-") -}}
{{- end -}}

{{- define "keytide.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "keytide.securityContext" -}}
runAsNonRoot: true
runAsUser: 65532
readOnlyRootFilesystem: true
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
{{- end -}}

{{/* Where Pods of this release may run, the daemon's and the hook's. */}}
{{- define "keytide.scheduling" -}}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
