#!/bin/bash
# Starts etcd, a kube-apiserver and a node (see node/) on 127.0.0.1 and returns when all are ready (about 5 s).
# usage: kube-up.sh FOLDER PORT ETCD_PORT ETCD_PEER_PORT NODE_PORT
# FOLDER gets ca.{crt,key}, {admin,alice,gateway,front-proxy}.{crt,key}, tokens.csv, admin.kubeconfig, logs and pid files.
# alice (also with the bearer token in `token`) and gateway may do nothing until a role is bound to them or to a group.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
folder=$(realpath -m "$1") port=$2 etcd=$3 peer=$4 node=$5
cache=$(realpath -m "${VESTIBULE_REAL:-$PWD/.cache/real}")
PATH=$cache/bin:$PATH
mkdir -p "$folder"
cd "$folder"

new_key=(-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes)
openssl req -x509 "${new_key[@]}" -days 2 -subj /CN=kube-ca -keyout ca.key -out ca.crt 2>/dev/null
leaf() { # NAME SUBJECT EXTENSION...
  local name=$1 subject=$2; shift 2
  openssl req "${new_key[@]}" -subj "$subject" -keyout "$name.key" -out "$name.csr" 2>/dev/null
  openssl x509 -req -in "$name.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 \
    -extfile <(printf '%s\n' "$@") -out "$name.crt" 2>/dev/null
  cat "$name.crt" "$name.key" > "$name.pem"
}
leaf server /CN=kube-apiserver extendedKeyUsage=serverAuth \
  subjectAltName=DNS:kubernetes,DNS:kubernetes.default.svc,DNS:localhost,IP:127.0.0.1
leaf admin /O=system:masters/CN=admin extendedKeyUsage=clientAuth
leaf alice /O=devs/CN=alice extendedKeyUsage=clientAuth
leaf gateway /CN=gateway extendedKeyUsage=clientAuth
leaf kubelet-client /O=system:masters/CN=kubelet-client extendedKeyUsage=clientAuth
leaf node /O=system:nodes/CN=system:node:node extendedKeyUsage=serverAuth,clientAuth subjectAltName=IP:127.0.0.1
leaf front-proxy /CN=front-proxy extendedKeyUsage=clientAuth
openssl genrsa -out accounts.key 2048 2>/dev/null
openssl rand -hex 16 > token
echo "$(cat token),alice,alice-uid,devs" > tokens.csv

etcd --data-dir etcd --unsafe-no-fsync --name one --initial-cluster "one=http://127.0.0.1:$peer" \
  --listen-client-urls "http://127.0.0.1:$etcd" --advertise-client-urls "http://127.0.0.1:$etcd" \
  --listen-peer-urls "http://127.0.0.1:$peer" --initial-advertise-peer-urls "http://127.0.0.1:$peer" > etcd.log 2>&1 &
echo $! > etcd.pid
kube-apiserver --bind-address 127.0.0.1 --advertise-address 127.0.0.1 --secure-port "$port" --insecure-port 0 \
  --etcd-servers "http://127.0.0.1:$etcd" --endpoint-reconciler-type none --service-cluster-ip-range 10.254.0.0/24 \
  --tls-cert-file server.crt --tls-private-key-file server.key --client-ca-file ca.crt --token-auth-file tokens.csv \
  --authorization-mode RBAC --disable-admission-plugins ServiceAccount \
  --service-account-issuer https://kubernetes.default.svc --service-account-key-file accounts.key \
  --service-account-signing-key-file accounts.key --requestheader-client-ca-file ca.crt \
  --requestheader-allowed-names front-proxy --requestheader-username-headers X-Remote-User \
  --requestheader-group-headers X-Remote-Group --requestheader-extra-headers-prefix X-Remote-Extra- \
  --kubelet-certificate-authority ca.crt --kubelet-client-certificate kubelet-client.crt \
  --kubelet-client-key kubelet-client.key --kubelet-preferred-address-types InternalIP > apiserver.log 2>&1 &
echo $! > apiserver.pid

cat > admin.kubeconfig <<CONFIG
apiVersion: v1
kind: Config
clusters: [{ name: real, cluster: { server: "https://127.0.0.1:$port", certificate-authority: $folder/ca.crt } }]
users: [{ name: admin, user: { client-certificate: $folder/admin.crt, client-key: $folder/admin.key } }]
contexts: [{ name: real, context: { cluster: real, user: admin } }]
current-context: real
CONFIG
# The client retries a refused connection itself, so that the wait is on the server and not on a clock.
curl -sSf --retry 200 --retry-delay 1 --retry-all-errors --retry-max-time 90 --cacert ca.crt --cert admin.crt --key admin.key \
  "https://127.0.0.1:$port/readyz" >/dev/null 2>&1 \
  || { "$here/kube-down.sh" "$folder"; tail -n 20 apiserver.log >&2; exit 1; }

# It listens before it makes itself known, so that it is ready once the API server knows where it is.
kube-node --port "$node" --cert node.crt --key node.key --client-ca ca.crt --kubeconfig admin.kubeconfig --folder node \
  > node.log 2>&1 &
echo $! > node.pid
for _ in $(seq 300); do
  known=$(kubectl --kubeconfig admin.kubeconfig get node node -o 'jsonpath={.status.addresses[0].address}' 2>/dev/null || true)
  [ -z "$known" ] || exit 0
  sleep 0.2
done
"$here/kube-down.sh" "$folder"
tail -n 20 node.log >&2
exit 1
