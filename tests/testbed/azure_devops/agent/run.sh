#!/usr/bin/env bash
# Stands in for the agent's run.sh: takes jobs, with --once a single one.
set -uo pipefail
folder=$(dirname "${BASH_SOURCE[0]}")

if [ "$(id -u)" -eq 0 ] && [ -z "${AGENT_ALLOW_RUNASROOT:-}" ]; then
  echo "Must not run interactively with sudo"
  exit 1
fi
# A child, as in the original: a signal to this script alone doesn't reach the agent.
"$folder/bin/Agent.Listener" run "$@"
exit $?
