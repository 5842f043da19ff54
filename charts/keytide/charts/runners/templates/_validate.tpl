{{- define "runners.validate" -}}{{- end -}}
