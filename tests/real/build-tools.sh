#!/usr/bin/env bash
# Installs what the build needs besides a Rust toolchain and a C compiler: cmake for zlib-ng, make and perl for OpenSSL.
set -euo pipefail
missing=()
for tool in cmake make perl gcc; do
  command -v "$tool" >/dev/null || missing+=("$tool")
done
[ ${#missing[@]} -eq 0 ] && exit 0
if ! command -v apt-get >/dev/null; then
  echo "the build needs ${missing[*]}: install them with this system's package manager, then try again" >&2
  exit 1
fi
root=()
[ "$(id -u)" -eq 0 ] || root=(sudo)
"${root[@]}" apt-get update -qq
"${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" libc6-dev
