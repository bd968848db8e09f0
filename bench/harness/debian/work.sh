# What is done in the booted guest before it is powered off: a database at work, files written, deleted and packed.
set -eu
export PATH=/usr/lib/postgresql/15/bin:"$PATH" PGDATA=/var/lib/postgresql/guest PGHOST=/tmp PGDATABASE=postgres PGUSER=postgres
as_postgres() { setpriv --reuid postgres --regid postgres --init-groups "$@"; }

cd /
as_postgres pg_ctl --silent --wait --timeout=600 --log=/var/log/postgresql/guest.log start
psql --quiet --command='CREATE TABLE notes AS SELECT n AS number, repeat(md5(n::text), 4) AS body FROM generate_series(1, 100000) AS n'
pgbench --client=2 --no-vacuum --transactions=1000 >/var/log/pgbench.log 2>&1
psql --quiet --command='DELETE FROM notes WHERE number % 3 = 0' --command='VACUUM'
as_postgres pg_ctl --silent --wait --mode=fast stop

find /usr/lib /usr/share -xdev -type f -exec sha256sum '{}' + >/var/log/inventory
tar -C / -czf /var/backups/etc.tar.gz etc var/lib/dpkg
mkdir -p /srv/photos
for n in $(seq 24); do head -c $((n * 100003)) /dev/urandom >/srv/photos/"$n".jpg; done
cp -a /usr/share/perl /srv/perl
# Without a trim: what was in these files stays on the disk, as it does in most guests.
rm -r /usr/share/zoneinfo /srv/photos/1?.jpg
sync
