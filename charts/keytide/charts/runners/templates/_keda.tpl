{{/* What KEDA's azure-pipelines scaler is told; all of it must be strings. Takes a pool. */}}
{{- define "runners.trigger" -}}
- type: azure-pipelines
  metadata:
    organizationURLFromEnv: AZP_URL
    {{- if .poolName }}
    poolName: {{ .poolName | quote }}
    {{- else }}
    poolID: {{ .poolID | quote }}
    {{- end }}
    {{- with include "runners.demands" . }}
    demands: {{ . | quote }}
    {{- end }}
    {{- with .scale.demandsMatch }}
    {{ . }}: "true"
    {{- end }}
    {{- if .scale.caseInsensitiveDemands }}
    caseInsensitiveDemandsProcessing: "true"
    {{- end }}
    {{- with include "runners.text" .scale.parent }}
    parent: {{ . | quote }}
    {{- end }}
    {{- if .scale.fetchUnfinishedJobsOnly }}
    fetchUnfinishedJobsOnly: "true"
    {{- end }}
    {{- with include "runners.text" .scale.jobsToFetch }}
    jobsToFetch: {{ . | quote }}
    {{- end }}
    {{- with include "runners.text" .scale.targetPipelinesQueueLength }}
    targetPipelinesQueueLength: {{ . | quote }}
    {{- end }}
    {{- with include "runners.text" .scale.activationTargetPipelinesQueueLength }}
    activationTargetPipelinesQueueLength: {{ . | quote }}
    {{- end }}
    scaleOnInFlight: {{ include "runners.text" .scale.scaleOnInFlight | default (ternary "false" "true" (eq .mode "job")) | quote }}
  authenticationRef:
    name: {{ .name | quote }}
{{- end -}}

{{- define "runners.demands" -}}
{{- if kindIs "slice" .scale.demands -}}
{{- $demands := list -}}
{{- range .scale.demands }}{{ $demands = append $demands (include "runners.text" .) }}{{ end -}}
{{- join "," $demands -}}
{{- else -}}
{{- include "runners.text" .scale.demands -}}
{{- end -}}
{{- end -}}
