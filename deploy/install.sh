#!/usr/bin/env bash
# Puts the programs, as `make build` left them, and the libraries that the worker loads into a folder:
#
#   deploy/install.sh PREFIX                 with libtorch's CPU part only
#   deploy/install.sh --cuda SITE PREFIX     with CUDA: SITE is a folder that holds PyTorch 2.11.0 for CUDA 13 and
#                                            NVIDIA's wheels (`pip install --target SITE torch==2.11.0`)
#
#   PREFIX/bin                     fovea, fovea-coordinator, fovea-worker
#   PREFIX/lib/fovea/torch/lib     libtorch; the worker looks for it there, beside its own folder
#   PREFIX/lib/fovea/nvidia        CUDA's libraries, in the layout of the wheels
#   PREFIX/share/doc/fovea         the documentation, which begins with README.md, and the example files of deploy/
#
# Nothing else is needed to run them but glibc 2.36 and libstdc++, as Debian 12 and later have. A new PREFIX takes its
# place at once, so that a half-copied one is never used; an old one is replaced.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
RELEASE=${RELEASE:-$ROOT/target/release}

fail() {
  printf 'install.sh: %s\n' "$1" >&2
  shift
  for line in "$@"; do printf '  %s\n' "$line" >&2; done
  exit 2
}

cuda=
if [[ ${1:-} == --cuda ]]; then
  cuda=${2:-}
  [[ -d $cuda/torch/lib && -d $cuda/nvidia ]] ||
    fail "--cuda ${cuda:-(nothing)} does not hold torch/lib and nvidia" \
      "make one with: pip install --target SITE torch==2.11.0"
  shift 2
fi
[[ $# == 1 && -n $1 && $1 != -* ]] || fail "usage: deploy/install.sh [--cuda SITE] PREFIX"
prefix=${1%/}
[[ -n $prefix ]] || fail "PREFIX is the root folder; name one of Fovea's own, such as /opt/fovea"
if [[ -e $prefix && -n $(ls -A "$prefix") && ! -x $prefix/bin/fovea-worker ]]; then
  fail "$prefix holds something that is not Fovea" "name a folder of its own, such as /opt/fovea"
fi

for program in fovea fovea-coordinator fovea-worker; do
  [[ -x $RELEASE/$program ]] || fail "$RELEASE/$program is not built" "build it with: make build"
done
site=${cuda:-$ROOT/.libtorch/site}
if [[ -z $cuda && -n ${LIBTORCH:-} ]]; then
  # .libtorch/link, or a link to another checkout's
  site=$(cd "$LIBTORCH/../site" 2>/dev/null && pwd) || site=$ROOT/.libtorch/site
fi
[[ -f $site/torch/lib/libtorch_cpu.so ]] || fail "$site holds no libtorch" "fetch it with: make libtorch"

mkdir -p "$(dirname "$prefix")"
half=$(mktemp -d "$prefix.half-XXXXXX")
trap 'rm -rf "$half"' EXIT
chmod 755 "$half"
mkdir -p "$half/bin" "$half/lib/fovea/torch/lib"
for program in fovea fovea-coordinator fovea-worker; do
  install -m 755 "$RELEASE/$program" "$half/bin/$program"
done
if [[ -n $cuda ]]; then
  cp -RL --reflink=auto "$site/torch/lib/." "$half/lib/fovea/torch/lib/"
  cp -RL --reflink=auto "$site/nvidia" "$half/lib/fovea/nvidia"
else
  for library in libtorch.so libtorch_cpu.so libc10.so libgomp.so.1; do
    cp -L --reflink=auto "$site/torch/lib/$library" "$half/lib/fovea/torch/lib/"
  done
  # What libtorch_cpu.so asks for when it is loaded; no GPU is needed.
  mkdir -p "$half/lib/fovea/nvidia/cu13/lib"
  for library in libcudart.so.13 libcupti.so.13; do
    cp -L --reflink=auto "$site/nvidia/cu13/lib/$library" "$half/lib/fovea/nvidia/cu13/lib/"
  done
fi
mkdir -p "$half/share/doc/fovea"
(cd "$ROOT" && cp -R --parents ./*.md docs deploy bench proto/fovea python/README.md python/examples "$half/share/doc/fovea/")
chmod -R u=rwX,go=rX "$half"
rm -rf "$prefix"
mv "$half" "$prefix"
trap - EXIT
"$prefix/bin/fovea-worker" --version >/dev/null || fail "$prefix/bin/fovea-worker does not start" "see the message above"
du -sh "$prefix" | awk '{ print "install.sh: " $2 " (" $1 "): " }' | tr -d '\n'
"$prefix/bin/fovea" --version
