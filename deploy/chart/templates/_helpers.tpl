{{- /* SPDX-License-Identifier: Apache-2.0 */ -}}
{{- define "shoal.name" -}}
{{- if contains "shoal" .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-shoal" .Release.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "shoal.selector" -}}
app.kubernetes.io/name: shoal
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "shoal.labels" -}}
{{ include "shoal.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "shoal.secret" -}}
{{ .Values.clusterSecret.existingSecret | default (printf "%s-cluster-secret" (include "shoal.name" .)) }}
{{- end }}

{{- define "shoal.image" -}}
{{ printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) }}
{{- end }}

{{- /* Bytes of memory: the tier over the disk, or in memory mode the cache itself. */ -}}
{{- define "shoal.memory" -}}
{{- if eq .Values.p2p.v2.cache.mode "memory" }}{{ .Values.optionBlockSize | default (mul (int64 (.Values.memoryCacheCapacityGB | default 8)) 1073741824) | int64 }}
{{- else }}{{ .Values.optionBlockSize | default 67108864 | int64 }}{{ end }}
{{- end }}

{{- /* Values that contradict each other: none of them could be right. */ -}}
{{- define "shoal.verify" -}}
{{- $port := dict "p2p.port" (int64 .Values.p2p.port) "p2p.v2.p2pPort" (int64 .Values.p2p.v2.p2pPort) "exporter.port" (int64 .Values.exporter.port) }}
{{- if .Values.prefetch.enable }}{{ $with := mergeOverwrite $port (dict "prefetch.port" (int64 .Values.prefetch.port)) }}{{ end }}
{{- range $name, $one := $port }}{{ range $other, $two := $port }}
{{- if and (ne $name $other) (eq $one $two) }}{{ fail (printf "%s and %s are both %d: each needs a port of its own" $name $other $one) }}{{ end }}
{{- end }}{{ end }}
{{- if and (eq .Values.p2p.v2.cache.mode "memory") .Values.optionBlockSize .Values.memoryCacheCapacityGB }}
{{- if ne (int64 .Values.optionBlockSize) (mul (int64 .Values.memoryCacheCapacityGB) 1073741824) }}
{{- fail "optionBlockSize and memoryCacheCapacityGB say two sizes of the memory cache: set one of them" }}
{{- end }}
{{- end }}
{{- if and .Values.accessKey (not .Values.accessKeySecret) }}{{ fail "accessKey is set but accessKeySecret is not" }}{{ end }}
{{- if and .Values.accessKeySecret (not .Values.accessKey) }}{{ fail "accessKeySecret is set but accessKey is not" }}{{ end }}
{{- if and .Values.accessKey .Values.rrsa.enable }}{{ fail "accessKey and rrsa.enable are both set: choose one" }}{{ end }}
{{- if and .Values.startupTaint (not .Values.runtime.configure) }}{{ fail "startupTaint needs runtime.configure: its container takes the taint off" }}{{ end }}
{{- if and .Values.prefetch.enable (not .Values.prefetch.existingSecret) }}{{ fail "prefetch.enable needs prefetch.existingSecret: a Secret with the token that orders must carry" }}{{ end }}
{{- if and .Values.podMonitor.enable (not .Values.exporter.enable) }}{{ fail "podMonitor.enable needs exporter.enable: the metrics are on loopback otherwise" }}{{ end }}
{{- end }}

{{- /* What the values say, as shoal.yaml; large numbers are quoted, or they would come out as 4e+09. */ -}}
{{- define "shoal.derived" -}}
clusterId: {{ .Values.clusterId | quote }}
clusterSecretFile:
{{- range .Values.clusterSecret.keys }}
  - {{ printf "/etc/shoal-cluster-secret/%s" . | quote }}
{{- end }}
dataDir: /var/lib/shoal
{{- if .Values.contentStore }}
contentStore: /host/content
{{- end }}
listen:
  client: "127.0.0.1:{{ .Values.p2p.port | int64 }}"
  mesh: "[::]:{{ .Values.p2p.v2.p2pPort | int64 }}"
  admin: "{{ if .Values.exporter.enable }}0.0.0.0{{ else }}127.0.0.1{{ end }}:{{ .Values.exporter.port | int64 }}"
{{- if .Values.prefetch.enable }}
  prefetch: "[::]:{{ .Values.prefetch.port | int64 }}"
prefetch:
  tokenFile: {{ printf "/etc/shoal-prefetch/%s" .Values.prefetch.key | quote }}
{{- end }}
bootstrap:
  - {{ printf "%s-mesh.%s.svc.%s:%d" (include "shoal.name" .) .Release.Namespace .Values.clusterDomain (int64 .Values.p2p.v2.p2pPort) | quote }}
{{- range .Values.bootstrap }}
  - {{ . | quote }}
{{- end }}
topology:
  vswitchLabel: {{ .Values.topology.vswitchLabel | quote }}
{{- if .Values.topology.podLabels }}
  labelsFile: /etc/podinfo/labels
{{- end }}
cache:
  mode: {{ .Values.p2p.v2.cache.mode }}
{{- if eq .Values.p2p.v2.cache.mode "disk" }}
  capacity: {{ if kindIs "invalid" .Values.capacity }}"4294967296"{{ else }}{{ .Values.capacity | int64 | quote }}{{ end }}
{{- else if .Values.capacity }}
  capacity: {{ .Values.capacity | int64 | quote }}
{{- end }}
  memory: {{ include "shoal.memory" . | quote }}
blocksize: {{ .Values.blocksize | int64 | quote }}
limits:
  parallelRequests: {{ min (int64 .Values.DeployConfig.proxyFsParallels) (int64 .Values.p2p.v2.proxyConcurrencyLimit) }}
  connectTimeout: {{ printf "%ds" (int64 .Values.AgentConfig.connectTimeout) | quote }}
  transferTimeout: {{ printf "%ds" (int64 .Values.AgentConfig.transferTimeout) | quote }}
  uploadMbit: {{ mul (int64 .Values.throttleLimitMB) 8 }}
log:
  format: json
  audit: {{ .Values.logAudit }}
{{- if .Values.acrInstances }}
acrInstances: {{ .Values.acrInstances | toJson }}
region: {{ .Values.region | quote }}
vpcId: {{ .Values.vpcId | quote }}
{{- if .Values.accessKey }}
accessKeyFile: /etc/shoal-access-key/pair
{{- end }}
rrsa:
  enable: {{ .Values.rrsa.enable }}
{{- if .Values.rrsa.enable }}
  rrsaRoleARN: {{ .Values.rrsa.rrsaRoleARN | quote }}
  rrsaOIDCProviderRoleARN: {{ .Values.rrsa.rrsaOIDCProviderRoleARN | quote }}
  assumeRoleARN: {{ .Values.rrsa.assumeRoleARN | quote }}
  expireDuration: {{ printf "%ds" (int64 .Values.rrsa.expireDuration) | quote }}
{{- end }}
{{- end }}
{{- if .Values.registries }}
registries:
  {{- toYaml .Values.registries | nindent 2 }}
{{- end }}
{{- end }}

{{- define "shoal.config" -}}
{{ toYaml (mergeOverwrite (include "shoal.derived" . | fromYaml) (deepCopy .Values.config)) }}
{{- end }}

{{- /* What the runtime's container must know: the port and the names. No secret is named in it, since it has none. */ -}}
{{- define "shoal.runtimeConfig" -}}
{{- $config := include "shoal.config" . | fromYaml -}}
listen:
  client: {{ $config.listen.client | quote }}
{{- if hasKey $config "builtinRegistries" }}
builtinRegistries: {{ $config.builtinRegistries }}
{{- end }}
{{- if or $config.registries .Values.acrInstances }}
registries:
{{- range $config.registries }}
  - {{ omit . "ca" "clientCertificate" "clientKey" "credentials" "shared" "realmHosts" "storage" "proxy" "tags" "p2p" "copies" "connections" "rateMbit" | toJson }}
{{- end }}
{{- if .Values.acrInstances }}
  - {"name": "*.cr.aliyuncs.com"}
{{- end }}
{{- end }}
{{- end }}

{{- define "shoal.runtimePaths" -}}
{{- $usual := dict "containerd" "/etc/containerd" "podman" "/etc/containers" "docker" "/etc/docker" -}}
paths: {{ .Values.runtime.hostPaths | default (list (get $usual .Values.runtime.kind)) | toJson }}
{{- end }}
