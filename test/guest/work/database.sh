#!/bin/sh
# database.sh move-log: puts the log (WAL) on the data disk, before the first start.
# database.sh start: starts PostgreSQL and waits until it answers, recovery included.
# database.sh work SEED: pgbench in the background, and a client that inserts numbered rows, each a transaction of its
# own, reported as `ROW <number>` once it is committed.
# database.sh check SEED: prints what came back: rows, the last of them, rows that are not as written; pgbench's three sums and the one
# of its history; then has every table and index checked, and every page's checksum. PostgreSQL is stopped then.
#
# The database is on the system's disk and its log (WAL) on the other one: it needs both at one instant.
export PATH=/usr/lib/postgresql/15/bin:"$PATH" PGDATA=/var/lib/postgresql/guest PGHOST=/tmp PGDATABASE=postgres PGUSER=postgres
as_postgres() { setpriv --reuid postgres --regid postgres --init-groups "$@"; }
cd / || exit 1

case $1 in
move-log)
  mv $PGDATA/pg_wal /data/pg_wal
  ln -s /data/pg_wal $PGDATA/pg_wal
  ;;
start)
  as_postgres pg_ctl --silent --wait --timeout=600 --log=/tmp/database.log start || {
    cat /tmp/database.log
    exit 1
  }
  ;;
work)
  psql --quiet --command='CREATE TABLE promised (number int PRIMARY KEY, body text NOT NULL)' || exit 1
  # Rows of many sizes, from what the seed and the number say.
  seq 1 1000000 |
    sed "s|.*|INSERT INTO promised VALUES (&, repeat(md5('$2/&'), 1 + & % 40));\n\\\\echo ROW &|" |
    {
      stdbuf -oL psql --quiet --no-psqlrc --set=ON_ERROR_STOP=1 >&3 2>/run/rows.log
      echo "FAILED database.sh, rows: $(tail -n 20 /run/rows.log | tr '\n' ' ')" >&3
    } &
  {
    pgbench --client=2 --no-vacuum --time=100000 >/run/pgbench.log 2>&1
    echo "FAILED database.sh, pgbench: $(tail -n 20 /run/pgbench.log | tr '\n' ' ')" >&3
  } &
  ;;
check)
  psql --no-align --tuples-only --field-separator=' ' --command="
    SELECT count(*), min(number), max(number), count(*) FILTER (WHERE body <> repeat(md5('$2/' || number), 1 + number % 40)) FROM promised" || exit 1
  psql --no-align --tuples-only --field-separator=' ' --command="
    SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(tbalance) FROM pgbench_tellers),
      (SELECT sum(bbalance) FROM pgbench_branches), (SELECT coalesce(sum(delta), 0) FROM pgbench_history)" || exit 1
  pg_amcheck --heapallindexed --table=promised --table='pgbench_*' || exit 1
  as_postgres pg_ctl --silent --wait --mode=fast stop || exit 1
  as_postgres pg_checksums --check >/run/checksums.log 2>&1 || {
    cat /run/checksums.log
    exit 1
  }
  ;;
esac
