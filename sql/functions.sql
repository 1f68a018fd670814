-- What people call. Nobody but a superuser may, until EXECUTE and USAGE on the schema are granted.

CREATE FUNCTION audit.protect(
  relation regclass,
  exclude text[] DEFAULT '{}',
  images text DEFAULT 'changed',
  baseline boolean DEFAULT true
) RETURNS bigint
  LANGUAGE c VOLATILE PARALLEL UNSAFE
  AS 'MODULE_PATHNAME', 'audit_protect';
COMMENT ON FUNCTION audit.protect(regclass, text[], text, boolean) IS
  'Puts a table, with its partitions and children, under protection; gives the number of tables.';
REVOKE ALL ON FUNCTION audit.protect(regclass, text[], text, boolean) FROM PUBLIC;

CREATE FUNCTION audit.unprotect(relation regclass, reason text) RETURNS bigint
  LANGUAGE c VOLATILE PARALLEL UNSAFE
  AS 'MODULE_PATHNAME', 'audit_unprotect';
COMMENT ON FUNCTION audit.unprotect(regclass, text) IS
  'Ends the protection of a table, with its partitions and children; the reason is recorded.';
REVOKE ALL ON FUNCTION audit.unprotect(regclass, text) FROM PUBLIC;

CREATE FUNCTION audit.maintenance(reason text) RETURNS bigint
  LANGUAGE c VOLATILE PARALLEL UNSAFE
  AS 'MODULE_PATHNAME', 'audit_maintenance';
COMMENT ON FUNCTION audit.maintenance(text) IS
  'Opens the guards for the rest of the transaction, to superusers only; the reason is recorded. Gives the id of the entry.';
REVOKE ALL ON FUNCTION audit.maintenance(text) FROM PUBLIC;

-- Stable: changes nothing. Unsafe in parallel mode: a table that cannot be read is a finding, for which a subtransaction is needed.
CREATE FUNCTION audit.verify(checkpoint text DEFAULT NULL, tables boolean DEFAULT true, since_seal bigint DEFAULT NULL)
  RETURNS TABLE (what text, ok boolean, checked bigint, problems bigint, detail text)
  LANGUAGE c STABLE PARALLEL UNSAFE ROWS 10
  AS 'MODULE_PATHNAME', 'audit_verify';
COMMENT ON FUNCTION audit.verify(text, boolean, bigint) IS 'Verifies log, seals, checkpoint, coverage and tables: one row per aspect.';
REVOKE ALL ON FUNCTION audit.verify(text, boolean, bigint) FROM PUBLIC;

CREATE FUNCTION audit.findings(checkpoint text DEFAULT NULL, tables boolean DEFAULT true, since_seal bigint DEFAULT NULL)
  RETURNS TABLE (kind text, relation text, chain integer, seq bigint, id bigint, detail text, hint text)
  LANGUAGE c STABLE PARALLEL UNSAFE ROWS 10
  AS 'MODULE_PATHNAME', 'audit_findings';
COMMENT ON FUNCTION audit.findings(text, boolean, bigint) IS 'Verifies as audit.verify() does: one row per fault.';
REVOKE ALL ON FUNCTION audit.findings(text, boolean, bigint) FROM PUBLIC;

CREATE FUNCTION audit.seal() RETURNS bigint
  LANGUAGE c VOLATILE PARALLEL UNSAFE
  AS 'MODULE_PATHNAME', 'audit_seal';
COMMENT ON FUNCTION audit.seal() IS 'Seals all entries committed since the last seal; gives the number of the seal, NULL when there is nothing new.';
REVOKE ALL ON FUNCTION audit.seal() FROM PUBLIC;

CREATE FUNCTION audit.inclusion_proof(chain integer, seq bigint) RETURNS text
  LANGUAGE c STABLE PARALLEL UNSAFE
  AS 'MODULE_PATHNAME', 'audit_inclusion_proof';
COMMENT ON FUNCTION audit.inclusion_proof(integer, bigint) IS
  'Proof that an entry is in the tree of the newest checkpoint, with that checkpoint: a c2sp.org/tlog-proof.';
REVOKE ALL ON FUNCTION audit.inclusion_proof(integer, bigint) FROM PUBLIC;

CREATE FUNCTION audit.consistency_proof(checkpoint text) RETURNS text
  LANGUAGE c STABLE PARALLEL UNSAFE
  AS 'MODULE_PATHNAME', 'audit_consistency_proof';
COMMENT ON FUNCTION audit.consistency_proof(text) IS 'Proof that the tree of the newest checkpoint continues that of an older one.';
REVOKE ALL ON FUNCTION audit.consistency_proof(text) FROM PUBLIC;

CREATE FUNCTION audit.verify_inclusion(line text, proof text, vkey text DEFAULT NULL) RETURNS boolean
  LANGUAGE c IMMUTABLE PARALLEL SAFE
  AS 'MODULE_PATHNAME', 'audit_verify_inclusion';
COMMENT ON FUNCTION audit.verify_inclusion(text, text, text) IS
  'Whether an inclusion proof holds for the line of an entry and, with a key, whether that key has signed its checkpoint.';
REVOKE ALL ON FUNCTION audit.verify_inclusion(text, text, text) FROM PUBLIC;

CREATE FUNCTION audit.line(chain integer, seq bigint) RETURNS text
  LANGUAGE c STABLE PARALLEL RESTRICTED
  AS 'MODULE_PATHNAME', 'audit_line';
COMMENT ON FUNCTION audit.line(integer, bigint) IS 'The text of an entry that was hashed.';
REVOKE ALL ON FUNCTION audit.line(integer, bigint) FROM PUBLIC;

CREATE FUNCTION audit.export(since_id bigint DEFAULT 0)
  RETURNS TABLE (chain integer, seq bigint, hash text, line text)
  LANGUAGE c STABLE PARALLEL RESTRICTED ROWS 1000000
  AS 'MODULE_PATHNAME', 'audit_export';
COMMENT ON FUNCTION audit.export(bigint) IS 'Hash and line of each entry with a greater id, in the order of chain and seq.';
REVOKE ALL ON FUNCTION audit.export(bigint) FROM PUBLIC;

CREATE FUNCTION audit.checkpoint() RETURNS text
  LANGUAGE c VOLATILE PARALLEL UNSAFE
  AS 'MODULE_PATHNAME', 'audit_checkpoint';
COMMENT ON FUNCTION audit.checkpoint() IS 'The newest seal as a text to be kept outside; signed when there is a key.';
REVOKE ALL ON FUNCTION audit.checkpoint() FROM PUBLIC;

-- No row: checkpoints are not signed.
CREATE FUNCTION audit.public_key() RETURNS TABLE (vkey text, pem text)
  LANGUAGE c STABLE PARALLEL RESTRICTED ROWS 1
  AS 'MODULE_PATHNAME', 'audit_public_key';
COMMENT ON FUNCTION audit.public_key() IS 'The key that verifies checkpoints, for auditors: as the vkey of signed notes and as PEM.';
REVOKE ALL ON FUNCTION audit.public_key() FROM PUBLIC;

CREATE FUNCTION audit.export_seals(since bigint DEFAULT 0)
  RETURNS TABLE (seal bigint, hash text, line text)
  LANGUAGE c STABLE PARALLEL RESTRICTED ROWS 10000
  AS 'MODULE_PATHNAME', 'audit_export_seals';
COMMENT ON FUNCTION audit.export_seals(bigint) IS 'Hash and line of each seal with a greater number, in their order.';
REVOKE ALL ON FUNCTION audit.export_seals(bigint) FROM PUBLIC;

CREATE FUNCTION audit.trigger_states()
  RETURNS TABLE (relation regclass, row_trigger text, truncate_trigger text)
  LANGUAGE c STABLE PARALLEL RESTRICTED ROWS 100
  AS 'MODULE_PATHNAME', 'audit_trigger_states';
COMMENT ON FUNCTION audit.trigger_states() IS 'For the view audit.protected.';
REVOKE ALL ON FUNCTION audit.trigger_states() FROM PUBLIC;

-- One row a protected table. entries and last_entry read the log, and only when they are asked for.
CREATE VIEW audit.protected AS
SELECT
  r.relation,
  r.kind,
  r.images,
  r.exclude,
  r.baseline,
  r.protect_id,
  s.row_trigger,
  s.truncate_trigger,
  (SELECT pg_catalog.count(*) FROM audit.log AS l
    WHERE l.table_oid OPERATOR(pg_catalog.=) r.known_as AND l.id OPERATOR(pg_catalog.>=) r.protect_id) AS entries,
  (SELECT pg_catalog.max(l.at) FROM audit.log AS l
    WHERE l.table_oid OPERATOR(pg_catalog.=) r.known_as AND l.id OPERATOR(pg_catalog.>=) r.protect_id) AS last_entry
FROM audit.registry AS r
JOIN audit.trigger_states() AS s ON s.relation::pg_catalog.oid OPERATOR(pg_catalog.=) r.relation::pg_catalog.oid;
COMMENT ON VIEW audit.protected IS 'Protected tables, how they are recorded, and the state of their triggers.';
REVOKE ALL ON TABLE audit.protected FROM PUBLIC;

CREATE FUNCTION audit.sealer()
  RETURNS TABLE (preloaded boolean, pid integer, command_at timestamptz, command_ok boolean, command_size bigint, command_result text)
  LANGUAGE c VOLATILE PARALLEL RESTRICTED ROWS 1
  AS 'MODULE_PATHNAME', 'audit_sealer';
COMMENT ON FUNCTION audit.sealer() IS 'What the sealer of this database does, and how the last run of audit.checkpoint_command ended since the server started.';
REVOKE ALL ON FUNCTION audit.sealer() FROM PUBLIC;

CREATE FUNCTION audit.log_state()
  RETURNS TABLE (entries bigint, chains integer, last_entry timestamptz, unsealed bigint, waiting_since timestamptz)
  LANGUAGE c STABLE PARALLEL RESTRICTED ROWS 1
  AS 'MODULE_PATHNAME', 'audit_log_state';
COMMENT ON FUNCTION audit.log_state() IS 'For audit.status().';
REVOKE ALL ON FUNCTION audit.log_state() FROM PUBLIC;

CREATE FUNCTION audit.guard_level() RETURNS text
  LANGUAGE c STABLE PARALLEL RESTRICTED
  AS 'MODULE_PATHNAME', 'audit_guard_level';
COMMENT ON FUNCTION audit.guard_level() IS 'What refuses that protection is taken away: hooks, event triggers, or none.';
REVOKE ALL ON FUNCTION audit.guard_level() FROM PUBLIC;

-- SQL, not C: a plain question to our own tables, with every name qualified.
CREATE FUNCTION audit.status()
  RETURNS TABLE (ledger uuid, entries bigint, chains integer, protected integer, last_entry timestamptz,
                 sealed bigint, unsealed bigint, last_seal bigint, last_seal_at timestamptz, seal_lag interval,
                 preloaded boolean, sealer integer, command_at timestamptz, command_ok boolean, command_result text,
                 guards text)
  LANGUAGE sql VOLATILE PARALLEL RESTRICTED
  SET search_path = pg_catalog, pg_temp
  AS $$
    SELECT
      (SELECT l.id FROM audit.ledger AS l),
      e.entries, e.chains, (SELECT count(*)::integer FROM audit.registry), e.last_entry,
      coalesce(s.tree_size, 0), e.unsealed, s.number, s.at,
      -- How long the oldest entry that no seal has counted has been waiting.
      coalesce(greatest(clock_timestamp() - e.waiting_since, interval '0'), interval '0'),
      w.preloaded, w.pid, w.command_at, w.command_ok, w.command_result,
      audit.guard_level()
    FROM audit.log_state() AS e
    LEFT JOIN LATERAL (
      SELECT q.number, q.at, q.tree_size FROM audit.seal AS q
        WHERE q.ledger = (SELECT l.id FROM audit.ledger AS l) ORDER BY q.number DESC LIMIT 1
    ) AS s ON true
    CROSS JOIN audit.sealer() AS w
  $$;
COMMENT ON FUNCTION audit.status() IS 'One row for monitoring.';
REVOKE ALL ON FUNCTION audit.status() FROM PUBLIC;

-- A service may say who and why without any right on the log: PUBLIC may set the setting itself, so this is a convenience.
CREATE FUNCTION audit.set_context(context jsonb) RETURNS void
  LANGUAGE sql VOLATILE PARALLEL UNSAFE
  SET search_path = pg_catalog, pg_temp
  AS $$ SELECT set_config('audit.context', coalesce(context::text, ''), true) $$;
COMMENT ON FUNCTION audit.set_context(jsonb) IS 'Says who makes the changes of this transaction, and why.';
REVOKE ALL ON FUNCTION audit.set_context(jsonb) FROM PUBLIC;

-- C, not SQL: GRANT takes no parameters.
CREATE FUNCTION audit.grant_auditor(role regrole) RETURNS void
  LANGUAGE c VOLATILE PARALLEL UNSAFE
  AS 'MODULE_PATHNAME', 'audit_grant_auditor';
COMMENT ON FUNCTION audit.grant_auditor(regrole) IS 'Grants a role what it needs to read and verify the log, and nothing that changes anything.';
REVOKE ALL ON FUNCTION audit.grant_auditor(regrole) FROM PUBLIC;
