#!/usr/bin/env bash
# One round of log → drift → refit → promote, for cron or a systemd timer. Never changes an artifact in place.
#
#   POLYFUSE_RUNS   folder of artifacts; `current` in it is a symbolic link to the one that is served
#   POLYFUSE_LOG    the request log (polyfuse serve --log)
#   POLYFUSE_DAYS   days of rows that are looked at for drift; 7
#   POLYFUSE_LEARN  days of labelled rows that are learned from; 30
#   POLYFUSE_LEAST  rows, and labelled rows, below which nothing is done; 200
#   POLYFUSE_KEEP   earlier artifacts that are kept beside the new one; 5
#
# Exit codes: 0 nothing to do, or a better model was promoted (then $POLYFUSE_RUNS/promoted names it);
# 3 drift without a better model: look at drift.html and refit.json; anything else is a failure.
set -euo pipefail

runs=${POLYFUSE_RUNS:?name the folder of artifacts}
log=${POLYFUSE_LOG:?name the request log}
least=${POLYFUSE_LEAST:-200}
keep=${POLYFUSE_KEEP:-5}

exec 9>"$runs/.refresh.lock"
flock --nonblock 9 || { echo "another round is under way" >&2; exit 0; }
work=$(mktemp --directory)
trap 'rm -rf "$work"' EXIT

# since DAYS: so many days ago, or when the model that is served was made: what it has learned from is not new.
since() {
  local first made
  first=$(date --date "$1 days ago" +%s)
  made=$(stat --dereference --format %Y "$runs/current/artifact.json")
  date --utc --date "@$((first > made ? first : made))" +%FT%TZ
}

# written TABLE SINCE [--labelled]: writes the log to TABLE and prints how many rows it has.
written() {
  polyfuse log "$log" --out "$1" --since "${@:2}" --json | sed --quiet 's/^ *"written": \([0-9]*\).*/\1/p'
}

begin=$(since "${POLYFUSE_DAYS:-7}")
rows=$(written "$work/new.parquet" "$begin")
if ((rows < least)); then
  echo "$rows rows since $begin, fewer than $least: nothing is done" >&2
  exit 0
fi

code=0
polyfuse drift "$runs/current" "$work/new.parquet" --html "$runs/drift.html" --json >"$runs/drift.json" || code=$?
case $code in
  0) echo "no drift in $rows rows" >&2; exit 0 ;;
  3) echo "drift in $rows rows: see $runs/drift.html" >&2 ;;
  *) exit "$code" ;;
esac

begin=$(since "${POLYFUSE_LEARN:-30}")
labelled=$(written "$work/labelled.parquet" "$begin" --labelled)
if ((labelled < least)); then
  echo "$labelled rows since $begin have feedback, fewer than $least: POST /feedback is what a refit learns from" >&2
  exit 3
fi

new=$runs/$(date --utc +%Y%m%d-%H%M%S)
code=0
polyfuse refit "$runs/current" "$work/labelled.parquet" --out "$new" --promote "$runs/current" --json \
  >"$runs/refit.json" || code=$?
if ((code == 0)); then
  echo "$new" >"$runs/promoted"
  echo "promoted $new: restart the server" >&2
  # The oldest go; what `current` names is the newest of all.
  find "$runs" -mindepth 1 -maxdepth 1 -type d -name '????????-??????' | sort | head --lines="-$((keep + 1))" |
    xargs --no-run-if-empty rm -rf
fi
exit "$code"
