# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # entrypoint.sh sets what is read here, and reads what is set
# What the entrypoint asks Azure DevOps and Entra, and how it signs in. Sourced by entrypoint.sh.
#
# A token goes from where it is kept to a request header and nowhere else: through pipes, never as an argument, never in
# the environment of a process that a job can look at. It is read anew for each request, so that a rotated one is used.

# The resource that tokens for Azure DevOps are asked for, in all clouds:
# https://learn.microsoft.com/azure/devops/integrate/get-started/authentication/service-principal-managed-identity
readonly DEVOPS_SCOPE=499b84ac-1321-427f-aa17-267ca6975798/.default

# Where curl says what went wrong.
curl_error=$state/curl-error

# read_token: sets `token`, or fails with a sentence in `problem`.
read_token() {
  token=''
  case $AZP_AUTH in
    workload-identity) exchange_token ;;
    *)
      if [ -n "$token_file" ] && [ -s "$token_file" ]; then
        token=$(<"$token_file")
      else
        token=$env_token
      fi
      token=${token//[$' \t\r\n']/}
      if [ -z "$token" ]; then
        problem="there is no token: ${token_file:+$token_file is empty or missing and }AZP_TOKEN is not set"
        return 1
      fi
      ;;
  esac
}

# Has Entra give a token for the ServiceAccount's one: a client assertion, as documented in "Microsoft identity platform and
# the OAuth 2.0 client credentials flow".
exchange_token() {
  local authority=${AZURE_AUTHORITY_HOST:-https://login.microsoftonline.com} answer description
  if ! [ -s "$AZURE_FEDERATED_TOKEN_FILE" ]; then
    problem="the ServiceAccount's token $AZURE_FEDERATED_TOKEN_FILE is empty or missing"
    return 1
  fi
  if ! answer=$(curl --silent --show-error --max-time 30 --connect-timeout 10 \
    --data-urlencode grant_type=client_credentials \
    --data-urlencode "client_id=$AZURE_CLIENT_ID" \
    --data-urlencode "scope=$DEVOPS_SCOPE" \
    --data-urlencode client_assertion_type=urn:ietf:params:oauth:client-assertion-type:jwt-bearer \
    --data-urlencode "client_assertion@$AZURE_FEDERATED_TOKEN_FILE" \
    "${authority%/}/$AZURE_TENANT_ID/oauth2/v2.0/token" 2>"$curl_error"); then
    problem="Entra can't be reached: $(<"$curl_error")"
    return 1
  fi
  token=$(jq --raw-output '.access_token // empty' <<<"$answer" 2>/dev/null) || token=''
  if [ -z "$token" ]; then
    description=$(jq --raw-output '.error_description // empty' <<<"$answer" 2>/dev/null) || description=''
    problem="Entra gives no token for client $AZURE_CLIENT_ID: ${description:-it answered with something else than JSON}"
    return 1
  fi
}

header() {
  case $AZP_AUTH in
    workload-identity) printf 'Authorization: Bearer %s\n' "$token" ;;
    *) printf 'Authorization: Basic %s\n' "$(printf ':%s' "$token" | base64 --wrap=0)" ;;
  esac
}

# request METHOD PATH [JSON]: asks the organization. True for an answer of 2xx, which is then in `answer`; else `problem`
# says what to do, `status` is the HTTP status or 0, and `lasting` is 1 if trying again changes nothing.
request() {
  local method=$1 path=$2 output
  local options=(--silent --show-error --max-time 30 --connect-timeout 10 --request "$method" --header @- --write-out '\n%{http_code}')
  [ $# -lt 3 ] || options+=(--header 'Content-Type: application/json' --data-binary "$3")
  status=0 lasting=0 answer=''
  read_token || return 1
  if ! output=$(header | curl "${options[@]}" "$AZP_URL/_apis/$path" 2>"$curl_error"); then
    problem="$AZP_URL can't be reached: $(<"$curl_error")"
    return 1
  fi
  status=${output##*$'\n'}
  answer=${output%$'\n'*}
  case $status in
    203 | 302 | 401)
      lasting=1
      problem="$AZP_URL refuses the token (status $status): it is wrong, expired, revoked or of another organization"
      ;;
    2*) return 0 ;;
    3*)
      lasting=1
      problem="$AZP_URL sends us elsewhere (status $status): give AZP_URL as the browser shows it"
      ;;
    403)
      lasting=1
      problem="$AZP_URL forbids this (status 403): the token needs the scope 'Agent Pools (read, manage)', and its owner the role Administrator on the pool"
      ;;
    404)
      lasting=1
      problem="$AZP_URL has no such thing (status 404): check AZP_URL and the pool"
      ;;
    *) problem="$AZP_URL answers with status $status: $(message)" ;;
  esac
  return 1
}

# What Azure DevOps says of an error.
message() {
  jq --raw-output '.message // empty | split("\n")[0]' <<<"$answer" 2>/dev/null || true
}

# field FILTER: a value of the last answer, empty if it isn't there.
field() {
  jq --raw-output "$1 // empty" <<<"$answer" 2>/dev/null
}

encode() {
  jq --null-input --raw-output --arg text "$1" '$text | @uri'
}

# find_pool: sets `pool_id` and `pool_name`, whichever of them was given.
find_pool() {
  if [ -n "${AZP_POOL_ID:-}" ]; then
    request GET "distributedtask/pools/$AZP_POOL_ID" || {
      [ "$status" -ne 404 ] || problem="$AZP_URL has no agent pool with the ID $AZP_POOL_ID: create it, or correct AZP_POOL_ID"
      return 1
    }
    pool_id=$AZP_POOL_ID
    pool_name=$(field .name)
  else
    request GET "distributedtask/pools?poolName=$(encode "$AZP_POOL")" || return 1
    pool_id=$(field '.value[0].id')
    pool_name=$AZP_POOL
    if [ -z "$pool_id" ]; then
      lasting=1
      problem="$AZP_URL has no agent pool named '$AZP_POOL': create it, or correct AZP_POOL"
      return 1
    fi
  fi
}

# find_agent: sets `agent_id`, empty if none of this name is registered.
find_agent() {
  request GET "distributedtask/pools/$pool_id/agents?agentName=$(encode "$AZP_AGENT_NAME")" || return 1
  agent_id=$(field '.value[0].id')
}

# disable_agent: no job is given to it any more; the one that it has goes on.
disable_agent() {
  find_agent || return 1
  [ -n "$agent_id" ] || return 0
  request PATCH "distributedtask/pools/$pool_id/agents/$agent_id" "{\"id\": $agent_id, \"enabled\": false}"
}

# is_idle: whether the organization says that the agent has no job, also none that it was given and hasn't begun.
is_idle() {
  [ -n "$agent_id" ] || return 0
  request GET "distributedtask/pools/$pool_id/agents/$agent_id?includeAssignedRequest=true" || return 1
  [ -z "$(field .assignedRequest.requestId)" ]
}

# delete_agent: true also if there is none.
delete_agent() {
  find_agent || return 1
  [ -n "$agent_id" ] || return 0
  request DELETE "distributedtask/pools/$pool_id/agents/$agent_id" || [ "$status" -eq 404 ]
}

# find_leftovers: sets `leftovers` to lines with the ID and name of agents that were killed before they could unregister: of
# this pool and our prefix, offline for so long that they come back no more, without a job, and no placeholders.
find_leftovers() {
  request GET "distributedtask/pools/$pool_id/agents?includeCapabilities=true&includeAssignedRequest=true" || return 1
  leftovers=$(jq --raw-output --arg prefix "$AZP_CLEANUP_PREFIX" --arg self "$AZP_AGENT_NAME" --argjson age "$cleanup_seconds" '
    def seconds: sub("\\.[0-9]+"; "") | fromdateiso8601;
    .value[]
    | select(.status == "offline" and .assignedRequest == null)
    | select(.name != $self and (.name | startswith($prefix)))
    | select((.systemCapabilities.AZP_PLACEHOLDER // "" | ascii_downcase) as $is | $is != "true" and $is != "1")
    | select(((.statusChangedOn // .createdOn) | seconds) < now - $age)
    | "\(.id) \(.name)"' <<<"$answer" 2>"$curl_error") || {
    problem="the list of agents can't be read: $(<"$curl_error")"
    return 1
  }
}
