#!/bin/sh
# Starts a process of the deployment. An instance's own dagster.yaml is kept; without one it gets
# the one beside this file.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
: "${ONEREC_HOME:?name the directory of the state}"
case "${ONEREC_POSTGRES_URL:-}" in *@*@*)
  echo "ONEREC_POSTGRES_URL: holds more than one @, so that its host is not what it should be; write %40" \
    "for an @ of the password, or choose another POSTGRES_PASSWORD: openssl rand -hex 24" >&2
  exit 2 ;;
esac
export DAGSTER_HOME="${DAGSTER_HOME:-$ONEREC_HOME/${ONEREC_DATASET:-simulated}/dagster}"
# a range of days is recorded in one transaction for each asset
export DAGSTER_EVENT_BATCH_SIZE="${DAGSTER_EVENT_BATCH_SIZE:-1000}"
mkdir -p "$DAGSTER_HOME"
[ -e "$DAGSTER_HOME/dagster.yaml" ] || cp "$here/dagster.yaml" "$DAGSTER_HOME/dagster.yaml"
PATH="$here/../.venv/bin:$PATH"
exec "$@"
