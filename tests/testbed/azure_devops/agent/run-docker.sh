#!/usr/bin/env bash
# Stands in for the agent's run-docker.sh: run.sh that would start the agent again after an update.
set -uo pipefail
folder=$(dirname "${BASH_SOURCE[0]}")

if [ "$(id -u)" -eq 0 ] && [ -z "${AGENT_ALLOW_RUNASROOT:-}" ]; then
  echo "Must not run interactively with sudo"
  exit 1
fi
"$folder/bin/Agent.Listener" run --startuptype service "$@"
status=$?
echo "Agent exit code $status"
exit "$status"
