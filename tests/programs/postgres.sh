#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# A PostgreSQL server of its own in DIR, with its shared memory in System V segments.
#
#   postgres.sh DIR PORT up            make a cluster and start it
#   postgres.sh DIR PORT load WHERE    transactions until told to end; WHERE: a host, or the folder of the Unix socket
#   postgres.sh DIR PORT mark N        commit a mark
#   postgres.sh DIR PORT marks         all marks, in order
#   postgres.sh DIR PORT check         answers, on both kinds of socket; sums, tables and indexes are right
#   postgres.sh DIR PORT down|again    a clean shutdown; a start after it
#   postgres.sh DIR PORT keep|back N   copy the files of the database away; put copy N in place of them
set -euo pipefail
dir=$1 port=$2 verb=$3
bin=/usr/lib/postgresql/15/bin
data=$dir/data
export PGPORT=$port PGUSER=postgres PGDATABASE=postgres PGHOST=${PGHOST:-$dir} PGCONNECT_TIMEOUT=20
[ -x $bin/postgres ] || { echo "PostgreSQL 15 is missing: scripts/install-deps check" >&2; exit 1; }
cd "$dir"

as_postgres() { setpriv --reuid=postgres --regid=postgres --clear-groups "$@"; }
start() { as_postgres $bin/pg_ctl -s -D "$data" -l "$dir/log" -w start; }
sql() { timeout 60 $bin/psql -XAtqc "$1"; }

up() {
	chmod 755 .
	chown postgres .
	as_postgres $bin/initdb -D "$data" -U postgres -A trust -E UTF8 --locale=C >initdb.log
	cat >>"$data/postgresql.conf" <<-E
		shared_memory_type = sysv
		dynamic_shared_memory_type = sysv
		listen_addresses = '127.0.0.1'
		port = $port
		unix_socket_directories = '$dir'
		shared_buffers = 16MB
		huge_pages = off
	E
	start
	$bin/pgbench -i -s 2 -q
	sql 'create extension amcheck; create table marks (n int)'
}

sums='select (select sum(abalance) from pgbench_accounts), (select sum(bbalance) from pgbench_branches),
	(select sum(tbalance) from pgbench_tellers), (select sum(delta) from pgbench_history)'

check() {
	local on wrong=0
	for on in "$dir" 127.0.0.1; do
		PGHOST=$on sql "$sums" >sums.txt
		awk -F'|' 'NF != 4 || $1 == "" || $1 != $2 || $1 != $3 || $1 != $4 { exit 1 }' sums.txt || {
			echo "sums differ on $on: $(cat sums.txt)" >&2
			wrong=1
		}
	done
	timeout 120 $bin/pg_amcheck --heapallindexed postgres || wrong=1
	return $wrong
}

case $verb in
up | check) $verb ;;
load) PGHOST=$4 exec $bin/pgbench -n -c 2 -T 600 ;;
mark) sql "insert into marks values ($4)" ;;
marks) sql "select string_agg(n::text, ' ' order by n) from marks" ;;
again) start ;;
down)
	as_postgres $bin/pg_ctl -s -D "$data" -m fast -w stop
	LC_ALL=C $bin/pg_controldata "$data" | grep -q 'state: *shut down$'
	;;
keep) cp -a "$data" "$dir/data.$4" ;;
back)
	find "$data" -mindepth 1 -delete
	cp -a "$dir/data.$4/." "$data"
	;;
*) echo "what is $verb?" >&2; exit 2 ;;
esac
