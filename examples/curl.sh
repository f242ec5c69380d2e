#!/usr/bin/env bash
# Register, request the secret, refresh, log out, and show that the token is then rejected:
# examples/curl.sh [http://127.0.0.1:8000]
set -euo pipefail
api=${1:-http://127.0.0.1:8000}

# Pass bodies by standard input, because other users of the machine can read command lines.
post() { curl -fsS -H 'Content-Type: application/json' --data @- "$api$1"; }
field() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p"; }
with_token() { curl -sS -o /dev/stderr -w '%{http_code}\n' -H @<(echo "Authorization: Bearer $1") "${@:3}" "$api$2"; }

name=curl-$RANDOM$RANDOM
password=$(head -c 24 /dev/urandom | od -An -v -tx1 | tr -d ' \n')

tokens=$(post /users/registration <<<"{\"username\": \"$name\", \"password\": \"$password\"}")
echo "registered $name"
with_token "$(field access_token <<<"$tokens")" /tests/secret

# A refresh replaces the refresh token: keep the new one.
tokens=$(post /auth/refresh <<<"{\"refresh_token\": \"$(field refresh_token <<<"$tokens")\"}")
echo "refreshed"
token=$(field access_token <<<"$tokens")
with_token "$token" /tests/secret

with_token "$token" /auth/logout -X POST
echo "logged out"
sleep 2 # the worker that ended the session rejects its tokens at once, all others within REVOCATION_POLL_SECONDS
with_token "$token" /tests/secret
