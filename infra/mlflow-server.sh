#!/bin/sh
# MLflow's server with a login, its users in MLFLOW_AUTH_DATABASE_URI, which MLflow reads from a file
# only. All other settings come by MLflow's own variables; no secret is on its command line. A login
# counts for a minute: to check a password takes longer than most answers, and a version is kept in
# hundreds of requests.
set -eu
umask 077
config="$(mktemp)"
cat >"$config" <<INI
[mlflow]
default_permission = READ
database_uri = $MLFLOW_AUTH_DATABASE_URI
auth_cache_ttl_seconds = 60
INI
export MLFLOW_AUTH_CONFIG_PATH="$config"
exec python -m mlflow server --app-name basic-auth "$@"
