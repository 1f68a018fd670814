-- Case "bytes": an ordinary table with one index that holds what an entry of the log says of a change, in the same words: who, when, in which transaction, to which table and row, and the
-- images of the row as the log has them, so of an UPDATE only what changed. What is left out is what makes the log one: chain, number in it, hashes, the ledger's id.
-- The trigger is slow. Only bytes are compared.
CREATE SCHEMA facts;

CREATE TABLE facts.change (
  id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at               timestamptz NOT NULL,
  xid              xid8 NOT NULL,
  op               text NOT NULL,
  table_oid        oid NOT NULL,
  table_schema     text NOT NULL,
  table_name       text NOT NULL,
  key              json,
  old              json,
  new              json,
  login_name       text NOT NULL,
  session_name     text NOT NULL,
  user_name        text NOT NULL,
  application_name text,
  client_addr      inet,
  context          json
) WITH (autovacuum_enabled = off);

-- A row as the log writes it: times with a blank, and the zone as short as can be.
CREATE FUNCTION facts.image(image json) RETURNS json
LANGUAGE sql IMMUTABLE AS $$
  SELECT regexp_replace(image::text, '"(\d{4}-\d\d-\d\d)T([0-9:.]+[+]00):00"', '"\1 \2"', 'g')::json
$$;

-- Those columns of `image` that are not the same in `other`.
CREATE FUNCTION facts.changed(image json, other json) RETURNS json
LANGUAGE sql IMMUTABLE AS $$
  SELECT ('{' || string_agg(to_json(i.key) || ':' || i.value, ',') || '}')::json
  FROM json_each(image) AS i JOIN json_each(other) AS o ON o.key = i.key
  WHERE o.value::text <> i.value::text
$$;

CREATE FUNCTION facts.record() RETURNS trigger
LANGUAGE plpgsql SET TimeZone = 'UTC' AS $$
DECLARE
  before json;
  after  json;
  id     json;
BEGIN
  IF TG_OP <> 'INSERT' THEN
    before := facts.image(row_to_json(OLD));
  END IF;
  IF TG_OP <> 'DELETE' THEN
    after := facts.image(row_to_json(NEW));
  END IF;
  -- Each table of the benchmark that this is put on has the key "id".
  id := ('{"id":' || (coalesce(after, before) -> 'id') || '}')::json;
  INSERT INTO facts.change (at, xid, op, table_oid, table_schema, table_name, key, old, new, login_name, session_name, user_name, application_name, client_addr)
  VALUES (
    clock_timestamp(), pg_current_xact_id(), TG_OP, TG_RELID, TG_TABLE_SCHEMA, TG_TABLE_NAME, id,
    CASE TG_OP WHEN 'UPDATE' THEN facts.changed(before, after) ELSE before END,
    CASE TG_OP WHEN 'UPDATE' THEN facts.changed(after, before) ELSE after END,
    session_user, session_user, current_user, current_setting('application_name'), inet_client_addr()
  );
  RETURN NULL;
END
$$;
