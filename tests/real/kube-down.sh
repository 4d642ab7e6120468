#!/bin/bash
# Ends what kube-up.sh started in a folder, and waits until it is gone.
# usage: kube-down.sh FOLDER
set -euo pipefail
for name in node apiserver etcd; do
  file=$1/$name.pid
  [ -e "$file" ] || continue
  pid=$(cat "$file")
  if kill "$pid" 2>/dev/null; then timeout 15 tail --pid "$pid" -f /dev/null || kill -9 "$pid" || true; fi
  rm -f "$file"
done
