#!/usr/bin/env bash
# Makes the certificates of the tests anew, with OpenSSL: a root, an intermediate, a leaf with an RSA key and one with a key on
# P-256, in the encodings that a vault can have.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
days=36500

ca() { printf 'basicConstraints=critical,CA:true\nkeyUsage=keyCertSign\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n'; }
leaf() { printf 'basicConstraints=CA:false\nsubjectAltName=DNS:web.example\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n'; }
sign() { # NAME ISSUER EXTENSIONS
    openssl req -new -key "$1.key" -subj "/CN=$1" -out "$work/$1.csr"
    openssl x509 -req -in "$work/$1.csr" -CA "$2.crt" -CAkey "$2.key" -days "$days" -extfile <("$3") -out "$1.crt" 2>/dev/null
}

openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out root.key
openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out intermediate.key
openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out ec.key
openssl genpkey -quiet -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out rsa.key
openssl req -x509 -new -key root.key -subj /CN=root -days "$days" -out root.crt
sign intermediate root ca
sign rsa intermediate leaf
sign ec intermediate leaf
openssl rsa -in rsa.key -traditional -out rsa.pkcs1.key 2>/dev/null
openssl ec -in ec.key -out ec.sec1.key 2>/dev/null
openssl pkcs8 -topk8 -in ec.key -passout pass:changeit -out ec.encrypted.key

cat root.crt intermediate.crt >"$work/chain"
pfx() { # NAME [OPTION...]
    openssl pkcs12 -export -out "$work/pfx" "${@:2}"
    base64 --wrap=0 "$work/pfx" >"$1.pfx"
}
pfx modern -inkey rsa.key -in rsa.crt -certfile "$work/chain" -passout pass:
pfx legacy -legacy -certpbe PBE-SHA1-RC2-40 -keypbe PBE-SHA1-3DES -inkey rsa.key -in rsa.crt -certfile "$work/chain" -passout pass:
pfx nokey -nokeys -in rsa.crt -certfile "$work/chain" -passout pass:
pfx password -inkey ec.key -in ec.crt -passout pass:changeit
rm root.key intermediate.key
