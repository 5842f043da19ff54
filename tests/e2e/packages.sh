#!/usr/bin/env bash
# Installs the Debian packages that the end-to-end run needs; it names them if they are missing. `packages.sh keda` installs
# also those for the runners' image.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive

packages=(binutils buildah busybox-static ca-certificates containernetworking-plugins iproute2 runc util-linux)
[ "${1:-}" != keda ] || packages+=(curl jq procps)
missing=()
for package in "${packages[@]}"; do
  dpkg-query --show --showformat='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0
apt-get update --quiet=2
apt-get install --yes --quiet=2 --no-install-recommends "${missing[@]}"
