#!/bin/bash
# Builds the image, runs docker/compose.yaml and checks what README.md promises of both. Takes its own project, port and
# copy of conf/, and leaves nothing running. COMPOSE is the compose command, PORT the port on this machine.
set -euo pipefail
cd "$(dirname "$0")"

read -ra compose <<< "${COMPOSE:-docker-compose} -p vestibule-test -f compose.yaml"
export VESTIBULE_PORT=${PORT:-18080} DOCKER_BUILDKIT=${DOCKER_BUILDKIT:-1} COMPOSE_DOCKER_CLI_BUILD=1
VESTIBULE_CONF=$(mktemp -d)
export VESTIBULE_CONF
url=http://127.0.0.1:$VESTIBULE_PORT

fail() { echo "FAIL: $*" >&2; exit 1; }

finish() {
  status=$?
  [ $status = 0 ] || "${compose[@]}" logs --tail=40 >&2 || true
  "${compose[@]}" down -v --remove-orphans > /dev/null 2>&1 || true
  rm -rf "$VESTIBULE_CONF"
}
trap finish EXIT

# Until `/` answers 200, at most 30 s.
ready() {
  local end=$((SECONDS + 30))
  until curl -sf -o /dev/null --max-time 2 "$url/"; do
    [ $SECONDS -lt $end ] || fail "no answer from $url/"
    sleep 0.01
  done
}

# answers PATH TEXT: the body of PATH through the gateway, tried again while the upstream's name is being looked up.
answers() {
  local got
  got=$(curl -sS --fail --retry 5 --retry-all-errors --retry-delay 1 --max-time 5 "$url$1") || fail "$1: curl $?"
  [ "$got" = "$2" ] || fail "$1: expected \`$2\`, got \`$got\`"
  echo "ok   $1 -> $got"
}

# handshake WORKS|FAILS UPSTREAM OPTION...: with an upstream itself, from inside its network.
handshake() {
  local expected=$1 upstream=$2 got=WORKS
  "${compose[@]}" run -T --rm --no-deps certs openssl s_client -connect "$upstream:8443" -CAfile /certs/ca.crt \
    -verify_return_error -verify_hostname "$upstream" "${@:3}" < /dev/null > /dev/null 2>&1 || got=FAILS
  [ $got = "$expected" ] || fail "handshake with $upstream ${*:3}: $got, not $expected"
  echo "ok   handshake with $upstream ${*:3}: $got"
}

milliseconds() { echo $(($(date +%s%N) / 1000000)); }

chmod 755 "$VESTIBULE_CONF" # read by the gateway's user
cp ../conf/gateway.yaml ../conf/routes.yaml "$VESTIBULE_CONF"
"${compose[@]}" build gateway blue green certs
"${compose[@]}" build wrk
"${compose[@]}" up -d gateway
ready
gateway=$("${compose[@]}" ps -q gateway)

handshake WORKS blue -servername blue
handshake FAILS blue -noservername
handshake FAILS blue -servername green

answers "/blue/a?b=%20c" "blue /a?b=%20c"
answers /green/ "green /"
answers /app/ "blue /"
sed -e 's/blue, weight: 100/blue, weight: 0/' -e 's/green, weight: 0 /green, weight: 100 /' \
  "$VESTIBULE_CONF/routes.yaml" > "$VESTIBULE_CONF/new"
mv "$VESTIBULE_CONF/new" "$VESTIBULE_CONF/routes.yaml"
end=$((SECONDS + 10))
until "${compose[@]}" logs gateway 2>&1 | grep -q 'reload by files: applied'; do
  [ $SECONDS -lt $end ] || fail "the replaced file was not noticed"
  sleep 0.1
done
answers /app/ "green /"

[ "$(docker image inspect -f '{{.Config.User}}' vestibule)" = 65532:65532 ] || fail "the image's user is not 65532"
[ "$(docker top "$gateway" -eo uid,pid | awk 'NR > 1 {print $1}')" = 65532 ] || fail "the process is not of user 65532"
echo "ok   runs as 65532"
[ "$(docker inspect -f '{{.HostConfig.ReadonlyRootfs}}' "$gateway")" = true ] || fail "the root is writable"
echo "ok   runs on a read-only root"
status=0
docker run --rm --entrypoint /bin/sh vestibule -c true > /dev/null 2>&1 || status=$?
[ $status = 127 ] || fail "/bin/sh in the image: status $status, not 127"
# Docker adds mount points of its own, which are empty.
programs=$(docker export "$gateway" | tar -tv | awk '/^-..x/ && $3 > 0 {print $NF}')
[ "$programs" = vestibule ] || fail "programs in the image: $programs"
echo "ok   no shell, and no program but vestibule"

load=$("${compose[@]}" run -T --rm --no-deps wrk -t2 -c64 -d5s --latency http://gateway:8080/blue/)
echo "$load"
! grep -qE 'Socket errors|Non-2xx' <<< "$load" || fail "wrk saw errors"

begin=$(milliseconds)
docker stop -t 30 "$gateway" > /dev/null
stopped=$(($(milliseconds) - begin))
[ "$(docker inspect -f '{{.State.ExitCode}}' "$gateway")" = 0 ] || fail "SIGTERM: exit status is not 0"
[ $stopped -lt 5000 ] || fail "SIGTERM when idle: $stopped ms"

begin=$(milliseconds)
docker start "$gateway" > /dev/null
ready
answered=$(milliseconds)
started=$(($(date -d "$(docker inspect -f '{{.State.StartedAt}}' "$gateway")" +%s%N) / 1000000))
echo "image: $(docker image inspect -f '{{.Size}}' vestibule | awk '{printf "%.1f MB", $1 / 1e6}')"
echo "docker start to first 200: $((answered - begin)) ms, of which the process $((answered - started)) ms"
echo "docker stop when idle: $stopped ms"
echo PASS
