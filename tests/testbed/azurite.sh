#!/usr/bin/env bash
# Installs the pinned Azurite, Microsoft's double of Azure Storage, into the cache and prints, last, its program for
# queues. What is there already is reused; another version has another folder.
set -euo pipefail

# 3.36 and later need Node 21.
version=3.35.0
folder=${XDG_CACHE_HOME:-$HOME/.cache}/keytide/azurite-$version
mkdir -p "$folder"
exec 9>"$folder/.lock"
flock 9

if [[ ! -e $folder/complete ]]; then
    echo "azurite: installing $version, once a machine" >&2
    npm install --prefix "$folder" --no-audit --no-fund --ignore-scripts --loglevel=error "azurite@$version" >&2
    touch "$folder/complete"
fi
echo "$folder/node_modules/azurite/dist/src/queue/main.js"
