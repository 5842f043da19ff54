#!/usr/bin/env bash
# Builds the pinned tools of the testbed into the cache and prints, last, the folder that
# holds them. `build.sh node` also builds what runs containers, `build.sh keda` that and KEDA.
# What is there already is reused; the folder's name is a hash of what goes in, so that
# another version never finds an older one's programs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

kubernetes=$(go list -m -f '{{.Version}}' k8s.io/kubernetes)
hash=$(cat go.sum containerd/go.sum keda/go.sum cmd/*/main.go | sha256sum | cut -c1-16)
tools="${XDG_CACHE_HOME:-$HOME/.cache}/keytide/$hash"
mkdir -p "$tools"
exec 9>"$tools/.lock"
flock 9

say() { printf 'tools: %-12s %s\n' "$1" "$2" >&2; }

# build TOOL PACKAGE [LDFLAGS [NOTE]]: written under another name first, so that an interrupted
# build leaves nothing that looks finished.
build() {
  local tool=$1 package=$2 ldflags=${3:-} note=${4:-} start=$SECONDS
  if [ -x "$tools/$tool" ]; then
    say "$tool" "ready"
    return
  fi
  say "$tool" "building, once a machine${note:+ ($note)}"
  CGO_ENABLED=0 go build -trimpath -ldflags "-s -w $ldflags" -o "$tools/$tool.new" "$package"
  mv "$tools/$tool.new" "$tools/$tool"
  say "$tool" "built in $((SECONDS - start)) s"
}

minor=${kubernetes#v*.}
version=k8s.io/component-base/version
versions="-X $version.gitVersion=$kubernetes -X $version.gitMajor=1 -X $version.gitMinor=${minor%%.*} -X $version.gitCommit=testbed -X $version.gitTreeState=clean"
build controlplane ./cmd/controlplane "$versions" "5 to 11 minutes on two cores"
for name in etcd kube-apiserver kube-controller-manager kube-scheduler kubectl; do
  ln -sf controlplane "$tools/$name"
done
build kwok sigs.k8s.io/kwok/cmd/kwok
build helm helm.sh/helm/v4/cmd/helm "-X helm.sh/helm/v4/internal/version.version=$(go list -m -f '{{.Version}}' helm.sh/helm/v4)"
build helm3 helm.sh/helm/v3/cmd/helm "-X helm.sh/helm/v3/internal/version.version=$(go list -m -f '{{.Version}}' helm.sh/helm/v3)"

# kwok's own description of how healthy nodes and Pods behave, from the same module.
kwok=$(go list -m -f '{{.Dir}}' sigs.k8s.io/kwok)
for stage in node/fast/node-initialize node/heartbeat-with-lease/node-heartbeat-with-lease pod/fast/pod-ready pod/fast/pod-complete pod/fast/pod-delete; do
  cat "$kwok/kustomize/stage/$stage.yaml"
  echo ---
done > "$tools/kwok-stages.yaml"

# KEDA's custom resource definitions, from its module and without building it.
keda=github.com/kedacore/keda/v2
if [ ! -d "$tools/keda-crds" ]; then
  module=$(cd keda && go mod download -json "$keda" | sed -nE 's/^\s*"Dir": "(.*)",$/\1/p')
  rm -rf "$tools/keda-crds.new"
  install -D --mode=644 --target-directory="$tools/keda-crds.new" "$module"/config/crd/bases/*.yaml
  mv "$tools/keda-crds.new" "$tools/keda-crds"
  say keda-crds "copied"
fi

if [[ ${1:-} =~ ^(node|keda)$ ]]; then
  build kubelet ./cmd/kubelet "$versions" "2 minutes"
  cd containerd
  containerd=github.com/containerd/containerd/v2
  for name in containerd containerd-shim-runc-v2 ctr; do
    GOFLAGS=-tags=no_btrfs,no_zfs,no_devmapper build "$name" "$containerd/cmd/$name" \
      "-X $containerd/version.Version=$(go list -m -f '{{.Version}}' "$containerd")"
  done
  cd ..
fi

if [ "${1:-}" = keda ]; then
  cd keda
  version=$(go list -m -f '{{.Version}}' "$keda")
  for name in operator adapter; do
    build "keda-$name" "$keda/cmd/$name" "-X $keda/version.Version=${version#v}" "10 minutes"
  done
fi

echo "$tools"
