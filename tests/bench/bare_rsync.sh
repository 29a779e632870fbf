#!/bin/sh
# What a move is measured beside: bare rsync with a key of its own. It prints the milliseconds that it took.
# bare_rsync.sh KEY DESTINATION SOURCE…
set -eu
key=$1 destination=$2
shift 2
shell="ssh -i $key -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
code=0 begun=$(date +%s%3N)
rsync --archive --hard-links --acls --xattrs --sparse --numeric-ids --rsh "$shell" "$@" "$destination" || code=$?
echo $(($(date +%s%3N) - begun))
[ "$code" -eq 24 ] || exit "$code" # 24: a file of the running stack has vanished
