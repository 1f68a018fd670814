-- The usual audit trigger: each change is copied, as jsonb, into one table with one index. It keeps no order that can be checked, no hash and no guard, renders values
-- under the session's settings, and records an UPDATE that changes nothing.
CREATE SCHEMA history;

CREATE TABLE history.change (
  id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at       timestamptz NOT NULL DEFAULT clock_timestamp(),
  xid      xid8 NOT NULL DEFAULT pg_current_xact_id(),
  actor    text NOT NULL DEFAULT session_user,
  relation text NOT NULL,
  op       text NOT NULL,
  old      jsonb,
  new      jsonb
);

CREATE FUNCTION history.record() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF TG_OP = 'INSERT' THEN
    INSERT INTO history.change (relation, op, new) VALUES (TG_RELID::regclass::text, TG_OP, to_jsonb(NEW));
  ELSIF TG_OP = 'UPDATE' THEN
    INSERT INTO history.change (relation, op, old, new) VALUES (TG_RELID::regclass::text, TG_OP, to_jsonb(OLD), to_jsonb(NEW));
  ELSE
    INSERT INTO history.change (relation, op, old) VALUES (TG_RELID::regclass::text, TG_OP, to_jsonb(OLD));
  END IF;
  RETURN NULL;
END
$$;
