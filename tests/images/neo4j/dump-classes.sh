#!/usr/bin/env bash
# At build time: start the server once, stop it, and keep what it loaded as a class data archive. Starts take a third.
set -euo pipefail
archive=$NEO4J_HOME/neo4j.jsa
NEO4J_AUTH=none NEO4J_server_jvm_additional="-XX:ArchiveClassesAtExit=$archive" /startup/docker-entrypoint.sh neo4j &
server=$!
ready=
for _ in $(seq 240); do
  if wget -qO /dev/null http://127.0.0.1:7474/; then ready=yes; break; fi
  sleep 0.5
done
if [[ -z $ready ]]; then
  echo "neo4j did not start while the image was built" >&2
  exit 1
fi
wget -qO /dev/null --header='Content-Type: application/json' \
  --post-data='{"statement":"CREATE (n:Warm {id: 1}) WITH n MATCH (m:Warm {id: 1}) RETURN count(m)"}' \
  http://127.0.0.1:7474/db/neo4j/query/v2
kill "$server"
wait "$server" || true
test -s "$archive"
chmod 0444 "$archive"
echo "-XX:SharedArchiveFile=$archive" >> "$NEO4J_HOME/java.options"
rm -rf /data/* /logs/* "$NEO4J_HOME/conf/neo4j.conf"
