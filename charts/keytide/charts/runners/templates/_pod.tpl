{{/*
The Pod of an agent. Takes (dict "root" "pool" "placeholder"), and so do the templates below.

What runs beside the agent is a sidecar of Kubernetes' own kind (an init container that is always restarted): it starts before
the agent, outlives it while that finishes its job, and doesn't keep a Job from being complete.
*/}}
{{- define "runners.pod" -}}
{{- $pool := .pool -}}
metadata:
  labels:
    {{- include "runners.podLabels" . | nindent 4 }}
  {{- $annotations := dict }}
  {{- if not $pool.safeToEvict }}
  {{- $_ := set $annotations "cluster-autoscaler.kubernetes.io/safe-to-evict" "false" }}
  {{- $_ := set $annotations "karpenter.sh/do-not-disrupt" "true" }}
  {{- end }}
  {{- with mergeOverwrite $annotations (include "runners.texts" $pool.podAnnotations | fromJson) }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ $pool.serviceAccountName | quote }}
  automountServiceAccountToken: {{ $pool.serviceAccount.automountToken }}
  enableServiceLinks: false
  {{- if or .placeholder (eq $pool.mode "job") }}
  restartPolicy: {{ ternary "OnFailure" "Never" (not (not .placeholder)) }}
  {{- end }}
  terminationGracePeriodSeconds: {{ include "runners.int" $pool.terminationGracePeriodSeconds }}
  {{- with $pool.runtimeClassName }}
  runtimeClassName: {{ . | quote }}
  {{- end }}
  {{- with $pool.priorityClassName }}
  priorityClassName: {{ . | quote }}
  {{- end }}
  {{- with $pool.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- $security := deepCopy ($pool.podSecurityContext | default dict) }}
  {{- if $pool.buildkit.enabled }}
  {{- /* The socket belongs to the group of the user that BuildKit runs as. */}}
  {{- $_ := set $security "supplementalGroups" (append ($security.supplementalGroups | default list) 1000 | uniq) }}
  {{- end }}
  {{- with $security }}
  securityContext:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if or $pool.initContainers $pool.sidecars $pool.buildkit.enabled }}
  initContainers:
    {{- with $pool.initContainers }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- if $pool.buildkit.enabled }}
    - {{ include "runners.buildkit" . | nindent 6 | trim }}
    {{- end }}
    {{- range $pool.sidecars }}
    {{- toYaml (list (merge (dict "restartPolicy" "Always") .)) | nindent 4 }}
    {{- end }}
  {{- end }}
  containers:
    - {{ include "runners.agent" . | nindent 6 | trim }}
  volumes:
    - name: work
      {{- with $pool.work.volume }}
      {{- toYaml . | nindent 6 }}
      {{- else }}
      emptyDir:
        {{- with include "runners.text" $pool.work.sizeLimit }}
        sizeLimit: {{ . | quote }}
        {{- else }} {}
        {{- end }}
      {{- end }}
    {{- with $pool.secret }}
    - name: token
      secret:
        secretName: {{ .name | quote }}
        items:
          - key: {{ .key | quote }}
            path: token
    {{- end }}
    {{- if include "runners.hasToolCache" $pool }}
    - name: tool-cache
      {{- with $pool.toolCache.volume }}
      {{- toYaml . | nindent 6 }}
      {{- else }}
      persistentVolumeClaim:
        claimName: {{ printf "%s-tool-cache" $pool.name | quote }}
      {{- end }}
    {{- end }}
    {{- if $pool.caBundle.configMap }}
    - name: ca-bundle
      configMap:
        name: {{ $pool.caBundle.configMap | quote }}
        items:
          - key: {{ $pool.caBundle.key | quote }}
            path: bundle.pem
    {{- else if $pool.caBundle.secret }}
    - name: ca-bundle
      secret:
        secretName: {{ $pool.caBundle.secret | quote }}
        items:
          - key: {{ $pool.caBundle.key | quote }}
            path: bundle.pem
    {{- end }}
    {{- if and (eq $pool.authKind "workloadIdentity") $pool.auth.workloadIdentity.projectedToken }}
    - name: azure-identity-token
      projected:
        sources:
          - serviceAccountToken:
              audience: api://AzureADTokenExchange
              expirationSeconds: 3600
              path: azure-identity-token
    {{- end }}
    {{- if $pool.buildkit.enabled }}
    - name: buildkit-socket
      emptyDir: {}
    - name: buildkit-state
      {{- with $pool.buildkit.volume }}
      {{- toYaml . | nindent 6 }}
      {{- else }}
      emptyDir: {}
      {{- end }}
    {{- end }}
    {{- with $pool.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with include "runners.texts" $pool.nodeSelector | fromJson }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $pool.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $pool.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $pool.topologySpreadConstraints }}
  topologySpreadConstraints:
    {{- range . }}
    {{- $constraint := . }}
    {{- if not $constraint.labelSelector }}
    {{- $labels := include "runners.selectorLabels" (dict "root" $.root "pool" $pool) | fromYaml }}
    {{- $constraint = set (deepCopy .) "labelSelector" (dict "matchLabels" $labels) }}
    {{- end }}
    {{- toYaml (list $constraint) | nindent 4 }}
    {{- end }}
  {{- end }}
  {{- with $pool.dnsConfig }}
  dnsConfig:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $pool.hostAliases }}
  hostAliases:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{/*
BuildKit without root. It needs system calls and mounts that the runtime's default profiles forbid, and its helpers newuidmap
and newgidmap gain privileges, inside the Pod's own user only.
https://github.com/moby/buildkit/blob/master/docs/rootless.md
*/}}
{{- define "runners.buildkit" -}}
{{- $buildkit := .pool.buildkit -}}
{{- $proxy := include "runners.proxyEnv" .pool | trim -}}
{{- $ca := include "runners.hasCaBundle" .pool -}}
name: buildkit
image: {{ $buildkit.image | quote }}
imagePullPolicy: {{ .pool.image.pullPolicy | quote }}
restartPolicy: Always
args:
  - --addr
  - unix:///run/buildkit/buildkitd.sock
  - --oci-worker-no-process-sandbox
  {{- range $buildkit.args }}
  - {{ . | quote }}
  {{- end }}
{{- if or $proxy $ca }}
env:
  {{- with $proxy }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- if $ca }}
  # Go adds what is in these folders to the file of public authorities.
  - name: SSL_CERT_DIR
    value: /etc/ssl/certs:/etc/keytide/ca
  {{- end }}
{{- end }}
startupProbe:
  exec:
    command: [buildctl, --addr, unix:///run/buildkit/buildkitd.sock, debug, workers]
  periodSeconds: 2
  timeoutSeconds: 10
  failureThreshold: 30
resources:
  {{- toYaml $buildkit.resources | nindent 2 }}
securityContext:
  runAsNonRoot: true
  runAsUser: 1000
  runAsGroup: 1000
  allowPrivilegeEscalation: true
  seccompProfile:
    type: Unconfined
  {{- if $buildkit.appArmorUnconfined }}
  appArmorProfile:
    type: Unconfined
  {{- end }}
volumeMounts:
  - name: buildkit-socket
    mountPath: /run/buildkit
  - name: buildkit-state
    mountPath: /home/user/.local/share/buildkit
  {{- if $ca }}
  - name: ca-bundle
    mountPath: /etc/keytide/ca
    readOnly: true
  {{- end }}
{{- end -}}
