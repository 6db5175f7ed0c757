#!/usr/bin/env bash
# Installs ditrun on machines that have nothing but Node.js: Debian in a chroot. Needs root, debootstrap, and Node.js with npm here.
#   test/fresh-machine.sh release    tarballs of release/, on Debian 11 (glibc 2.31), without a compiler and without scripts
#   test/fresh-machine.sh clone      npm ci and the main job, on Debian 12 with the compilers that the README names
#   test/fresh-machine.sh tests      the same, and npm test
# FRESH_FOLDER is where the machines are made [/tmp/ditrun-fresh]; they are kept for the next time. FRESH_NODE is a Node.js to try.
set -euo pipefail
cd "$(dirname "$0")/.."

kind=${1:-}
case $kind in
  release) suite=bullseye ;;
  clone | tests) suite=bookworm ;;
  *) sed -n '2,6s/^# *//p' "$0" >&2; exit 2 ;;
esac
machine=${FRESH_FOLDER:-/tmp/ditrun-fresh}/$suite
main_job="ditrun --nproc 8 --cp 4 --tp 2 profile"

if [ ! -e "$machine/complete" ]; then
  mkdir -p "$machine"
  debootstrap --variant=minbase "$suite" "$machine" >"$machine.log"
  touch "$machine/complete"
fi
node=${FRESH_NODE:-$(readlink -f "$(command -v node)")}
npm=$(dirname "$(dirname "$(readlink -f "$(command -v npm)")")")
rm -rf "$machine/usr/local/lib/npm" "$machine/root/try"
mkdir -p "$machine/root/try" "$machine/etc/ssl/certs"
cp "$node" "$machine/usr/local/bin/node"
cp -r "$npm" "$machine/usr/local/lib/npm"
for program in npm npx; do
  printf '#!/bin/sh\nexec node /usr/local/lib/npm/bin/%s-cli.js "$@"\n' "$program" >"$machine/usr/local/bin/$program"
  chmod 755 "$machine/usr/local/bin/$program"
done
cp /etc/resolv.conf "$machine/etc/resolv.conf"
if [ -n "${NODE_EXTRA_CA_CERTS:-}" ]; then cp "$NODE_EXTRA_CA_CERTS" "$machine/etc/ssl/certs/extra.crt"; fi

mount -t proc proc "$machine/proc"
mount -t tmpfs tmpfs "$machine/dev"
trap 'umount "$machine/proc" "$machine/dev"' EXIT
mkdir "$machine/dev/shm"
mknod -m 666 "$machine/dev/null" c 1 3
mknod -m 666 "$machine/dev/urandom" c 1 9

inside() {
  chroot "$machine" /usr/bin/env -i PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 CI="${CI:-}" \
    NODE_EXTRA_CA_CERTS=/etc/ssl/certs/extra.crt DEBIAN_FRONTEND=noninteractive bash -euc "$1"
}

inside 'echo "Node.js $(node --version), $(ldd --version | head -1)"'
if [ "$kind" = release ]; then
  cp release/*.tgz "$machine/root/try/"
  inside "! command -v cc && ! command -v cmake && cd /root/try && mkdir here && cd here
    npm install --ignore-scripts --no-audit --no-fund ../*.tgz
    npx $main_job
    npx ditrun wan --model tiny generate --prompt 'A red car'
    npm install --global --ignore-scripts --no-audit --no-fund ../*.tgz
    cd / && $main_job"
else
  git archive HEAD | tar x -C "$machine/root/try"
  inside "apt-get update -qq && apt-get install -y -qq --no-install-recommends cmake g++ make >/dev/null
    cd /root/try && npm ci --no-audit --no-fund && npx $main_job"
  if [ "$kind" = tests ]; then inside "cd /root/try && npm test"; fi
fi
echo "fresh-machine: $kind works on Debian $(cat "$machine/etc/debian_version")."
