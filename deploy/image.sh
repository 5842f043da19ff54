#!/usr/bin/env bash
# Builds the daemon's image without a registry and without root's help from a service.
#
#   image.sh stage BINARY FOLDER                lays out the folder that the Dockerfile copies from
#   image.sh build FOLDER TAG ARCHIVE [ARG=VALUE...]   builds it into an OCI archive
#
# BUILDER is buildah or docker; the default is the first of them that is there.
set -euo pipefail

fail() {
  echo "image: $*" >&2
  exit 1
}

# Certificates of public authorities, as distributions have them.
authorities() {
  local file
  for file in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/cert.pem; do
    if [ -s "$file" ]; then
      echo "$file"
      return
    fi
  done
  fail "no certificates of public authorities are installed; install ca-certificates"
}

stage() {
  local binary=$1 folder=$2 root=$2/rootfs library
  rm -rf "$folder"
  mkdir -p "$root/etc/ssl/certs"
  cp "$(dirname "${BASH_SOURCE[0]}")/Dockerfile" "$folder/Dockerfile"
  strip -o "$root/keytide" "$binary"
  cp "$(authorities)" "$root/etc/ssl/certs/ca-certificates.crt"
  # A test build is not static: it gets the libraries that it asks for.
  if ldd "$binary" >/dev/null 2>&1; then
    for library in $(ldd "$binary" | grep -oE '/[^ ]+'); do
      install -D "$library" "$root$library"
    done
  fi
}

build() {
  local folder=$1 tag=$2 archive=$3 builder=${BUILDER:-} argument arguments=()
  shift 3
  for argument in "$@"; do
    arguments+=(--build-arg "$argument")
  done
  if [ -z "$builder" ]; then
    builder=$(basename "$(command -v buildah || command -v docker || fail "install buildah or docker")")
  fi
  rm -f "$archive"
  case $builder in
    buildah)
      # Mounts of its own, so that those that its storage makes end with it.
      export STORAGE_DRIVER=vfs BUILDAH_ISOLATION=chroot
      # shellcheck disable=SC2016 # the inner bash expands it
      unshare --mount --propagation private bash -euc '
        storage=$(mktemp -d)
        trap "rm -rf \"$storage\"" EXIT
        image() { buildah --root "$storage/root" --runroot "$storage/run" "$@"; }
        folder=$1 tag=$2 archive=$3
        shift 3
        image build --quiet --format oci --tag "$tag" "$@" "$folder" >/dev/null
        image push --quiet "$tag" "oci-archive:$archive:$tag"
      ' build "$folder" "$tag" "$archive" "${arguments[@]}"
      ;;
    docker)
      docker buildx build --quiet --tag "$tag" --output "type=oci,dest=$archive" "${arguments[@]}" "$folder"
      ;;
    *)
      fail "BUILDER is '$builder'; set it to buildah or docker"
      ;;
  esac
}

case ${1:-} in
  stage) [ $# -eq 3 ] || fail "usage: image.sh stage BINARY FOLDER" ;;
  build) [ $# -ge 4 ] || fail "usage: image.sh build FOLDER TAG ARCHIVE [ARG=VALUE...]" ;;
  *) fail "usage: image.sh stage|build ..." ;;
esac
"$@"
