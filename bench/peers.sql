-- The usual way to chain hashes in PostgreSQL without an extension: a PL/pgSQL trigger that takes an advisory lock, reads the last
-- hash, and writes the next row. The lock is held to the end of the transaction, so writers queue for each other's COMMIT;
-- without it two of them would link to the same predecessor. It does less than the extension: no check of what was recorded,
-- no guards, values rendered by row_to_json under the session's settings.
CREATE SCHEMA peer;

CREATE TABLE peer.log (
  seq      bigint PRIMARY KEY,
  at       timestamptz NOT NULL,
  xid      xid8 NOT NULL,
  op       text NOT NULL,
  relation text NOT NULL,
  old      json,
  new      json,
  actor    text NOT NULL,
  prev     bytea NOT NULL,
  hash     bytea NOT NULL
);

CREATE FUNCTION peer.record() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  last_seq  bigint;
  last_hash bytea;
  row_old   json;
  row_new   json;
  now_at    timestamptz := clock_timestamp();
BEGIN
  PERFORM pg_advisory_xact_lock(1635083369);
  SELECT l.seq, l.hash INTO last_seq, last_hash FROM peer.log AS l ORDER BY l.seq DESC LIMIT 1;
  last_seq := coalesce(last_seq, 0) + 1;
  last_hash := coalesce(last_hash, decode(repeat('00', 32), 'hex'));
  IF TG_OP <> 'INSERT' THEN
    row_old := row_to_json(OLD);
  END IF;
  IF TG_OP <> 'DELETE' THEN
    row_new := row_to_json(NEW);
  END IF;
  INSERT INTO peer.log (seq, at, xid, op, relation, old, new, actor, prev, hash)
  VALUES (
    last_seq, now_at, pg_current_xact_id(), TG_OP, TG_RELID::regclass::text, row_old, row_new, session_user, last_hash,
    sha256(convert_to(json_build_array(
      last_seq, now_at, pg_current_xact_id()::text, TG_OP, TG_RELID::regclass::text, row_old, row_new, session_user, encode(last_hash, 'hex')
    )::text, 'UTF8'))
  );
  RETURN NULL;
END
$$;
