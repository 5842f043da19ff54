#!/usr/bin/env bash
# Runs Microsoft's Python SDK against the dev vault: tests/conformance/run.sh PATH-OF-KEYTIDE [pytest arguments]
#
# The binary must be built with the feature `dev-vault`. The virtual environment lies outside the checkout and is
# reused until requirements.txt changes.
set -euo pipefail

if [[ $# -lt 1 || ! -x $1 ]]; then
    echo "usage: $0 PATH-OF-KEYTIDE [pytest arguments]: the binary must exist and be executable" >&2
    exit 2
fi
keytide=$(realpath "$1")
shift
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

hash=$(sha256sum "$here/requirements.txt" | cut -c1-16)
venv=${XDG_CACHE_HOME:-$HOME/.cache}/keytide/conformance-$hash
if [[ ! -e $venv/complete ]]; then
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --requirement "$here/requirements.txt"
    touch "$venv/complete"
fi

work=$(mktemp -d)
vault=
# shellcheck disable=SC2329 # the trap calls it
stop() {
    if [[ -n $vault ]]; then
        kill -TERM "$vault" 2>/dev/null || true
        wait "$vault" || true
    fi
    rm -rf "$work"
}
trap stop EXIT

"$keytide" dev-vault --seed "$here/seed.yaml" --ca-out "$work/ca.pem" >"$work/ready" 2>"$work/log" &
vault=$!
for _ in $(seq 100); do
    [[ -s $work/ready ]] && break
    if ! kill -0 "$vault" 2>/dev/null; then
        break
    fi
    sleep 0.1
done
if [[ ! -s $work/ready ]]; then
    echo "$0: the dev vault didn't start:" >&2
    cat "$work/log" >&2
    exit 1
fi
proxy=$("$venv/bin/python" -c 'import json, sys; print(json.load(sys.stdin)["proxy"])' <"$work/ready")

# Whatever proxy and trust settings pip needed end here: the tests see the dev vault and nothing else. No credential
# of the caller's may be found by an SDK either.
for name in $(compgen -e | grep -E '^(AZURE_|IDENTITY_|IMDS_|MSI_)' || true); do
    unset "$name"
done
unset ALL_PROXY all_proxy NO_PROXY no_proxy SSL_CERT_DIR CURL_CA_BUNDLE
status=0
HTTPS_PROXY=$proxy https_proxy=$proxy HTTP_PROXY=$proxy http_proxy=$proxy \
    SSL_CERT_FILE=$work/ca.pem REQUESTS_CA_BUNDLE=$work/ca.pem KEYTIDE_DEV_VAULT=$proxy \
    PYTHONDONTWRITEBYTECODE=1 \
    "$venv/bin/python" -m pytest -p no:cacheprovider --rootdir "$here" "$here" "$@" || status=$?
if ((status != 0)); then
    echo "--- the dev vault's log" >&2
    tail -n 50 "$work/log" >&2
fi
exit "$status"
