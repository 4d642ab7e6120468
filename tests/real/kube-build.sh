# Sourced by setup.sh: builds what is missing of a real kube-apiserver, a kubectl and the tests' own node (node/*.go), from
# Debian's own source package with Debian's Go, once; about 5 minutes of two cores for all, 4 for the node alone, and 2.5 GB
# until it is done. No network but apt's: every Go dependency is vendored in the package.
# Debian's own kubectl package is no use here: it has the old reflect2 (see below) and crashes when it writes JSON.
if [ "$(. /etc/os-release; echo "${VERSION_CODENAME:-}")" != bookworm ]; then
  echo "only Debian 12 has the source package that is built here; put kube-apiserver, kubectl (1.20) and kube-node into $cache/bin" >&2
  exit 1
fi
work=$cache/kube
root=$work/root
mkdir -p "$root"
fetch golang-1.19-go golang-1.19-src golang-github-modern-go-reflect2-dev patch xz-utils
PATH=$PATH:$root/usr/bin
export GOROOT=$root/usr/lib/go-1.19 GOPATH=$work/gopath GOCACHE=$work/gocache GO111MODULE=off CGO_ENABLED=0
tree=$GOPATH/src/k8s.io/kubernetes

if [ ! -e "$work/unpacked" ]; then
  rm -rf "$tree"
  mkdir -p "$tree"
  (cd "$work" && apt-get -qq source --download-only kubernetes)
  tar -xf "$work"/kubernetes_*.orig.tar.* -C "$tree" --strip-components 1
  tar -xf "$work"/kubernetes_*.debian.tar.* -C "$tree"
  grep -Ev '^(#|$)' "$tree/debian/patches/series" | while read -r patch _; do
    patch -d "$tree" -p1 -s < "$tree/debian/patches/$patch"
  done
  # The vendored reflect2 reads Go's maps by an old layout and crashes from Go 1.18 on; Debian's package is a later one.
  reflect2=$tree/vendor/github.com/modern-go/reflect2
  rm -rf "$reflect2"
  cp -rL "$root/usr/share/gocode/src/github.com/modern-go/reflect2" "$reflect2"
  rm -f "$reflect2/go.mod"
  touch "$work/unpacked"
fi

cd "$tree"
go=$GOROOT/bin/go
jobs=${VESTIBULE_BUILD_JOBS:-$(nproc)}
# One part of the server's source is generated and not in the package: the OpenAPI definitions of every annotated folder.
if [ ! -x "$cache/bin/kube-apiserver" ]; then
  nice -n 10 "$go" build -p "$jobs" -o "$work/openapi-gen" ./vendor/k8s.io/kube-openapi/cmd/openapi-gen
  folders=$(grep -rl --include='*.go' '+k8s:openapi-gen=' pkg cmd staging/src/k8s.io \
    | grep -Ev 'code-generator|sample-apiserver|_examples|/test' | xargs -n 1 dirname | sort -u \
    | sed -E 's#^staging/src/#vendor/#; s#^#k8s.io/kubernetes/#' | paste -sd,)
  "$work/openapi-gen" -i "$folders" -p k8s.io/kubernetes/pkg/generated/openapi --output-file-base zz_generated.openapi \
    -h hack/boilerplate/boilerplate.generatego.txt -r "$work/openapi-violations"
fi
# The node is a program of ours, built where the kubelet's packages are.
rm -rf cmd/kube-node
cp -r "$here/node" cmd/kube-node

# Without these the server calls itself v0.0.0 and clients refuse it.
version=
for package in component-base/version client-go/pkg/version; do
  at=k8s.io/kubernetes/vendor/k8s.io/$package
  version="$version -X $at.gitVersion=v1.20.2 -X $at.gitMajor=1 -X $at.gitMinor=20"
done
for name in kube-apiserver kubectl kube-node; do
  [ -x "$cache/bin/$name" ] && continue
  nice -n 10 "$go" build -p "$jobs" -ldflags "-s -w $version" -o "$work/$name" "./cmd/$name"
  mv "$work/$name" "$cache/bin/$name"
done
cat "$here"/node/*.go | sha256sum > "$cache/kube-node.sources"
cd "$here"
rm -rf "$work"
