#!/usr/bin/env bash
# Register, ask for the secret, refresh, log out and be refused: examples/curl.sh [http://127.0.0.1:8000]
set -euo pipefail
api=${1:-http://127.0.0.1:8000}

# Bodies come from standard input, because other users of the machine can read command lines.
post() { curl -fsS -H 'Content-Type: application/json' --data @- "$api$1"; }
field() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p"; }
with_token() { curl -sS -o /dev/stderr -w '%{http_code}\n' -H @<(echo "Authorization: Bearer $1") "${@:3}" "$api$2"; }

name=curl-$RANDOM$RANDOM
password=$(head -c 24 /dev/urandom | od -An -v -tx1 | tr -d ' \n')

tokens=$(post /users/registration <<<"{\"username\": \"$name\", \"password\": \"$password\"}")
echo "registered $name"
with_token "$(field access_token <<<"$tokens")" /tests/secret

# The old refresh token is worth nothing any more: keep the new one.
tokens=$(post /auth/refresh <<<"{\"refresh_token\": \"$(field refresh_token <<<"$tokens")\"}")
echo "refreshed"
token=$(field access_token <<<"$tokens")
with_token "$token" /tests/secret

with_token "$token" /auth/logout -X POST
echo "logged out"
sleep 2 # the worker that did it knows at once, every other one within REVOCATION_POLL_SECONDS
with_token "$token" /tests/secret
