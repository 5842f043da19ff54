#!/usr/bin/env bash
# Stands in for the agent's config.sh: registers an agent, or with "remove" removes it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

if [ "$(id -u)" -eq 0 ] && [ -z "${AGENT_ALLOW_RUNASROOT:-}" ]; then
  echo "Must not run with sudo"
  exit 1
fi
if [ "${1:-}" = remove ]; then
  exec bin/Agent.Listener "$@"
fi
exec bin/Agent.Listener configure "$@"
