#!/bin/sh
# Makes a CA in /certs and a certificate for each name given, unless they are there and good for another day.
set -eu
cd /certs
if [ -f ca.crt ] && openssl x509 -checkend 86400 -noout -in ca.crt; then exit 0; fi

ca=$(mktemp -d)
trap 'rm -rf "$ca"' EXIT # the CA's key is forgotten with it
umask 077
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365 -subj '/CN=Vestibule compose CA' \
  -keyout "$ca/key" -out "$ca/crt"
for name in "$@"; do
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$name" -keyout "$name.key" -out "$ca/csr"
  printf 'subjectAltName=DNS:%s\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n' "$name" > "$ca/ext"
  openssl x509 -req -in "$ca/csr" -CA "$ca/crt" -CAkey "$ca/key" -CAcreateserial -days 365 -extfile "$ca/ext" \
    -out "$name.crt"
done
# Last, because it says that the rest is done. The gateway runs as another user: it reads this file and no key.
cp "$ca/crt" ca.crt
chmod 644 ca.crt
