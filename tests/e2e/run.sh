#!/usr/bin/env bash
# Runs Keytide's image in real containers (see main.rs beside this). Exits with 77 where the
# machine can't; with E2E_INSTALL=1, root installs the Debian packages that are missing first.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

if [ "${E2E_INSTALL:-}" = 1 ] && [ "$(id -u)" = 0 ]; then
  tests/e2e/packages.sh "${1:-}"
fi
cargo build --quiet --all-features --bins --example e2e
exec "${CARGO_TARGET_DIR:-target}/debug/examples/e2e" "$@"
