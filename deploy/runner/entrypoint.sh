#!/usr/bin/env bash
# Runs one Azure Pipelines agent, and never cuts its job: registers it, lets it take jobs, and on TERM sees to it that no
# further job comes, waits for the one that runs, and unregisters the agent.
#
# The agent itself ends its job on a signal, and takes another between two jobs. So it runs in a session of its own, which
# the signals for this script don't reach, and is told to stop only when it is disabled and idle.
set -euo pipefail
umask 077

log() {
  printf 'keytide-runner: %s\n' "$*"
}

die() {
  printf 'keytide-runner: error: %s.\n' "${*%.}" >&2
  exit 1
}

# What a process was started with, everyone of its user can read for as long as it runs. So a token that came by the
# environment is handed on through a pipe, to this script started anew without it.
if [ -n "${AZP_TOKEN:-}" ]; then
  exec {token_fd}< <(printf '%s' "$AZP_TOKEN")
  exec env --unset=AZP_TOKEN KEYTIDE_TOKEN_FD="$token_fd" bash "${BASH_SOURCE[0]}" "$@"
fi
env_token=''
if [ -n "${KEYTIDE_TOKEN_FD:-}" ]; then
  env_token=$(cat <&"$KEYTIDE_TOKEN_FD")
  exec {KEYTIDE_TOKEN_FD}<&-
fi
unset AZP_TOKEN KEYTIDE_TOKEN_FD

state=$(mktemp --directory)
trap 'rm -rf "$state"' EXIT

# Why the last thing that failed did so, and whether trying again is of no use.
problem='' lasting=0

# shellcheck source-path=SCRIPTDIR source=azure-devops.sh
source "$(dirname "${BASH_SOURCE[0]}")/azure-devops.sh"

# Signals are counted, and each wait looks whether one came.
signals=0
trap 'signals=$((signals + 1))' TERM INT

is_stopping() {
  [ "$signals" -gt 0 ]
}

# pause SECONDS: sleeps, until the first signal at the longest.
pause() {
  local sleeper
  sleep "$1" &
  sleeper=$!
  wait "$sleeper" || kill "$sleeper" 2>/dev/null || true
}

# await PROCESS: waits for it through all signals, and returns its status.
# shellcheck disable=SC2329 # persist's command calls it
await() {
  local before status
  while :; do
    before=$signals status=0
    wait "$1" || status=$?
    [ "$signals" -ne "$before" ] || return "$status"
  done
}

is_number() {
  [[ $1 =~ ^[0-9]+$ ]]
}

# setting NAME DEFAULT: the value of a variable that must be a whole number.
setting() {
  local value=${!1:-$2}
  is_number "$value" || die "$1 is '$value'; it must be a whole number of seconds"
  printf '%s' "$value"
}

read_settings() {
  agent_home=${AZP_AGENT_HOME:-/opt/azure-pipelines-agent}
  [ -x "$agent_home/config.sh" ] || die "there is no agent in $agent_home; set AZP_AGENT_HOME to the folder with its config.sh"
  AZP_URL=${AZP_URL:-}
  while [[ $AZP_URL == */ ]]; do AZP_URL=${AZP_URL%/}; done
  [[ $AZP_URL =~ ^https?://[^/[:space:]?#@]+(/[^[:space:]?#]*)?$ ]] ||
    die "AZP_URL is '$AZP_URL'; it must be the organization's URL, such as https://dev.azure.com/contoso"
  if [ -n "${AZP_POOL_ID:-}" ]; then
    is_number "$AZP_POOL_ID" || die "AZP_POOL_ID is '$AZP_POOL_ID'; it must be a number, as in the pool's URL"
  elif [ -z "${AZP_POOL:-}" ]; then
    die "neither AZP_POOL nor AZP_POOL_ID is set; set one of them to the agent pool's name or number"
  fi
  AZP_AGENT_NAME=${AZP_AGENT_NAME:-$(uname --nodename)}
  AZP_AUTH=${AZP_AUTH:-pat}
  token_file=${AZP_TOKEN_FILE:-}
  case $AZP_AUTH in
    pat)
      [ -n "$env_token" ] || [ -n "$token_file" ] ||
        die "there is no token: set AZP_TOKEN_FILE or AZP_TOKEN, or AZP_AUTH=workload-identity"
      ;;
    workload-identity)
      local name
      for name in AZURE_CLIENT_ID AZURE_TENANT_ID AZURE_FEDERATED_TOKEN_FILE; do
        [ -n "${!name:-}" ] ||
          die "$name is not set: label the Pod azure.workload.identity/use=true and annotate its ServiceAccount with azure.workload.identity/client-id"
      done
      ;;
    *) die "AZP_AUTH is '$AZP_AUTH'; it must be pat or workload-identity" ;;
  esac
  retry_seconds=$(setting AZP_RETRY_SECONDS 300)
  drain_interval=$(setting AZP_DRAIN_INTERVAL_SECONDS 5)
  cleanup_seconds=$(setting AZP_CLEANUP_SECONDS 3600)
}

is_true() {
  [[ ${1,,} == true || $1 == 1 ]]
}

# Trust what AZP_CA_BUNDLE holds besides the public authorities: curl, the agent (.NET), git, Node and Python each have a
# variable of their own for that.
trust_bundle() {
  [ -n "${AZP_CA_BUNDLE:-}" ] || return 0
  grep --quiet 'BEGIN CERTIFICATE' "$AZP_CA_BUNDLE" 2>/dev/null ||
    die "AZP_CA_BUNDLE is '$AZP_CA_BUNDLE', which is no file with certificates in PEM"
  cat /etc/ssl/certs/ca-certificates.crt "$AZP_CA_BUNDLE" >"$state/ca.pem" 2>/dev/null || cp "$AZP_CA_BUNDLE" "$state/ca.pem"
  export SSL_CERT_FILE=$state/ca.pem CURL_CA_BUNDLE=$state/ca.pem GIT_SSL_CAINFO=$state/ca.pem \
    REQUESTS_CA_BUNDLE=$state/ca.pem NODE_EXTRA_CA_CERTS=$AZP_CA_BUNDLE
}

# The agent reads http_proxy and no_proxy, in lower case, for all that it asks.
use_proxy() {
  local proxy=${https_proxy:-${HTTPS_PROXY:-${http_proxy:-${HTTP_PROXY:-}}}} bypass=${no_proxy:-${NO_PROXY:-}}
  [ -n "$proxy" ] || return 0
  export https_proxy=$proxy http_proxy=${http_proxy:-${HTTP_PROXY:-$proxy}} no_proxy=$bypass
}

# docker buildx and buildctl build on the BuildKit that BUILDKIT_HOST names; there is no Docker daemon here.
use_buildkit() {
  [ -n "${BUILDKIT_HOST:-}" ] || return 0
  export BUILDX_BUILDER=keytide
  docker buildx inspect keytide >/dev/null 2>&1 ||
    docker buildx create --name keytide --driver remote "$BUILDKIT_HOST" >/dev/null ||
    log "docker buildx can't be set up for $BUILDKIT_HOST; buildctl works"
}

# persist MODE WHAT COMMAND...: tries again, ever more rarely, until it works or time is up; `problem` then says why. MODE is
# `starting`, which ends at a signal and at a fault that lasts, or `ending`, which does not.
persist() {
  local mode=$1 what=$2 delay=1 end=$((SECONDS + retry_seconds))
  shift 2
  until "$@"; do
    if [ "$mode" = starting ] && { is_stopping || [ "$lasting" -eq 1 ]; }; then
      return 1
    fi
    [ "$SECONDS" -lt "$end" ] || return 1
    log "$what: $problem; trying again in $delay s"
    pause "$delay"
    delay=$((delay < 16 ? delay * 2 : 30))
  done
}

# In the background only: becomes a program of the agent, in a session of its own whose number is this process's. What it is
# given of our environment becomes the agent's capabilities, so what only we need is left out.
become() {
  local ignored=AZP_TOKEN,AZP_TOKEN_FILE,VSTS_AGENT_INPUT_TOKEN,AZURE_FEDERATED_TOKEN_FILE,VSO_AGENT_IGNORE
  exec env --unset=AZP_TOKEN_FILE VSO_AGENT_IGNORE="$ignored${VSO_AGENT_IGNORE:+,$VSO_AGENT_IGNORE}" setsid "$@" </dev/null
}

# shellcheck disable=SC2329 # persist calls it
configure_agent() {
  local result=0 options=(--unattended --acceptTeeEula --replace --auth pat
    --url "$AZP_URL" --pool "$pool_name" --agent "$AZP_AGENT_NAME" --work "${AZP_WORK:-_work}")
  [ -z "${AZP_CA_BUNDLE:-}" ] || options+=(--sslcacert "$AZP_CA_BUNDLE")
  lasting=0
  read_token || return 1
  # It takes an Entra token where a PAT is. The variable ends with this process, which is gone before a job comes.
  VSTS_AGENT_INPUT_TOKEN=$token become ./config.sh "${options[@]}" >"$state/config-log" 2>&1 &
  token=''
  await $! || result=$?
  cat "$state/config-log"
  [ "$result" -ne 0 ] || return 0
  problem="the agent can't be registered; what it says about that stands above"
  if grep --quiet --ignore-case 'access denied\|not authorized' "$state/config-log"; then
    lasting=1
    problem="the agent can't be registered: the token needs the scope 'Agent Pools (read, manage)', and its owner the role Administrator on the pool '$pool_name'"
  fi
  return 1
}

register() {
  cd "$agent_home"
  # A container that starts again in its Pod may find what the one before it left.
  rm -f .agent .credentials .credentials_rsaparams
  persist starting "registering" configure_agent || is_stopping || die "$problem"
}

clean_leftovers() {
  local id name
  [ -n "${AZP_CLEANUP_PREFIX:-}" ] || return 0
  find_leftovers || {
    log "leftovers are not cleaned up: $problem"
    return 0
  }
  while read -r id name; do
    [ -n "$id" ] || continue
    if request DELETE "distributedtask/pools/$pool_id/agents/$id"; then
      log "removed the leftover agent $name"
    else
      log "the leftover agent $name stays: $problem"
    fi
  done <<<"$leftovers"
}

is_running() {
  kill -0 "$agent" 2>/dev/null
}

# The worker is the process that runs a job. It is in the agent's session.
has_worker() {
  pgrep --session "$agent" --exact Agent.Worker >/dev/null
}

has_listener() {
  pgrep --session "$agent" --exact Agent.Listener >/dev/null
}

# Returns when the agent has ended, or has no job and gets none.
drain() {
  local disabled=0 end=$((SECONDS + retry_seconds)) said=''
  log "told to stop: no further job is taken"
  while is_running; do
    problem=''
    if [ "$disabled" -eq 0 ] && disable_agent; then disabled=1; fi
    if has_worker; then
      end=$((SECONDS + retry_seconds))
    # Asked after it was disabled, so a job that came just before is seen.
    elif [ "$disabled" -eq 1 ] && is_idle; then
      return
    elif [ "$SECONDS" -ge "$end" ]; then
      log "the agent is stopped now, since no job is seen to run"
      return
    fi
    if [ "$problem" != "$said" ]; then
      said=$problem
      log "draining goes on: ${problem:-the agent is disabled}"
    fi
    pause "$drain_interval"
  done
}

# Ends the agent, which has no job.
stop_agent() {
  local end=$((SECONDS + 30))
  kill -TERM -- "-$agent" 2>/dev/null || true
  while has_listener && [ "$SECONDS" -lt "$end" ]; do pause 0.2; done
  kill -KILL -- "-$agent" 2>/dev/null || true
}

unregister() {
  # A token that is refused may be replaced in its file at any moment.
  if persist ending "unregistering" delete_agent; then
    log "unregistered the agent $AZP_AGENT_NAME"
  else
    log "the agent $AZP_AGENT_NAME stays registered, offline: $problem. Remove it in the pool's settings, or leave it to the next agent that cleans up"
  fi
}

# Returns with the agent's status, or with 0 when it was told to stop.
run_agent() {
  local options=() looker
  ! is_true "${AZP_ONCE:-}" || options+=(--once)
  become ./run-docker.sh "${options[@]}" &
  agent=$!
  # A signal ends the wait, but one that comes just before the wait does not: hence a look every few seconds.
  until is_stopping || ! is_running; do
    sleep 5 &
    looker=$!
    wait -n "$agent" "$looker" || true
    kill "$looker" 2>/dev/null || true
  done
  if is_stopping; then
    drain
    stop_agent
    return 0
  fi
  wait "$agent"
}

main() {
  local result=0
  read_settings
  trust_bundle
  use_proxy
  if ! persist starting "looking for the agent pool" find_pool && ! is_stopping; then
    die "$problem"
  fi
  is_stopping || clean_leftovers
  ! is_stopping || exit 0
  use_buildkit
  register
  if is_true "${AZP_PLACEHOLDER:-}"; then
    persist starting "disabling the placeholder" disable_agent || die "$problem"
    log "the placeholder $AZP_AGENT_NAME is registered"
    exit 0
  fi
  if ! is_stopping; then
    run_agent || result=$?
  fi
  unregister
  exit "$result"
}

main
