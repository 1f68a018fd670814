-- The tables. Nobody has a right on them but the owner of the extension; the extension writes them below SQL.

-- The entries. Nothing of a row is outside its hash: docs/format.md says how the columns make the line that is hashed.
CREATE TABLE audit.log (
  id bigint NOT NULL,
  ledger uuid NOT NULL,
  chain integer NOT NULL,
  ledger_prefix integer NOT NULL,
  seq bigint NOT NULL,
  at timestamptz NOT NULL,
  xid xid8 NOT NULL,
  subxid xid8,
  command bigint,
  op text NOT NULL,
  table_oid oid,
  table_schema text,
  table_name text,
  key json,
  old json,
  new json,
  login_name text,
  session_name text,
  user_name text,
  application_name text,
  client_addr inet,
  context json,
  prev bytea NOT NULL,
  hash bytea NOT NULL,
  -- A chain that should ever fork is an error. Also serves the look-up of a chain's head. The chain comes first: it is what tells entries apart. No more than 16 bytes, see docs/design/0010-key-of-the-log.md.
  CONSTRAINT log_pkey PRIMARY KEY (chain, ledger_prefix, seq)
);
COMMENT ON TABLE audit.log IS 'Entries: one for each recorded change, linked by hash to the one before it in its chain. Append-only.';
COMMENT ON COLUMN audit.log.id IS 'Place among all entries of the ledger. Grows along a chain and for each row; gaps mean nothing.';
COMMENT ON COLUMN audit.log.ledger IS 'The ledger: all chains of one database.';
COMMENT ON COLUMN audit.log.chain IS 'The chain: one for each concurrent writer.';
COMMENT ON COLUMN audit.log.ledger_prefix IS 'First 32 bits of the ledger, as a signed number: its part of the primary key.';
COMMENT ON COLUMN audit.log.seq IS 'Place in the chain, from 1 without gaps.';
COMMENT ON COLUMN audit.log.at IS 'When it was recorded, by the server''s clock at that moment.';
COMMENT ON COLUMN audit.log.xid IS 'Transaction that made the change.';
COMMENT ON COLUMN audit.log.subxid IS 'Subtransaction (savepoint) that made the change, if it was one: what stands as xmin in the row.';
COMMENT ON COLUMN audit.log.command IS 'Command of that transaction that made this version of the row.';
COMMENT ON COLUMN audit.log.op IS 'INSERT, UPDATE, DELETE, TRUNCATE, BASELINE, PROTECT, UNPROTECT, INCARNATION, KEY, DDL, MAINTENANCE.';
COMMENT ON COLUMN audit.log.table_oid IS 'Object id of the table.';
COMMENT ON COLUMN audit.log.table_schema IS 'Schema of the table when the entry was made.';
COMMENT ON COLUMN audit.log.table_name IS 'Name of the table when the entry was made; of a partitioned table, the partition.';
COMMENT ON COLUMN audit.log.key IS 'Primary key of the row, before the change.';
COMMENT ON COLUMN audit.log.old IS 'Values before the change: of an UPDATE those that changed, of a DELETE all.';
COMMENT ON COLUMN audit.log.new IS 'Values after the change: of an UPDATE those that changed, of an INSERT all. Also the details of other operations.';
COMMENT ON COLUMN audit.log.login_name IS 'Role that authenticated the connection.';
COMMENT ON COLUMN audit.log.session_name IS 'Session user.';
COMMENT ON COLUMN audit.log.user_name IS 'Current user when the trigger fired: differs under SET ROLE and in SECURITY DEFINER functions.';
COMMENT ON COLUMN audit.log.application_name IS 'What the client calls itself: a claim.';
COMMENT ON COLUMN audit.log.client_addr IS 'Address of the client; null for a local socket.';
COMMENT ON COLUMN audit.log.context IS 'Who and why, by the setting audit.context: a claim.';
COMMENT ON COLUMN audit.log.prev IS 'Hash of the entry before it in its chain; zeros for the first.';
COMMENT ON COLUMN audit.log.hash IS 'SHA-256 of the entry''s line, see audit.line().';

-- Times and ids grow with the place in the table, so a summary of page ranges finds a span of either, at next to no cost for writers.
CREATE INDEX log_at_idx ON audit.log USING brin (at, id) WITH (pages_per_range = 32);

-- The log only grows: let vacuum freeze and summarize it by what was added.
ALTER TABLE audit.log SET (autovacuum_vacuum_insert_scale_factor = 0.02);
-- ANALYZE reads so many pages, here and there in the whole log, as the largest target of a column says (300 each). At the usual 100 it is felt by all
-- writers, time and again, for a log that is larger than memory; and there is little to know about columns that are all different.
ALTER TABLE audit.log
  ALTER id SET STATISTICS 10, ALTER ledger SET STATISTICS 10, ALTER chain SET STATISTICS 10, ALTER ledger_prefix SET STATISTICS 10, ALTER seq SET STATISTICS 10,
  ALTER at SET STATISTICS 10, ALTER xid SET STATISTICS 10, ALTER subxid SET STATISTICS 10, ALTER op SET STATISTICS 10, ALTER table_oid SET STATISTICS 10,
  ALTER table_schema SET STATISTICS 10, ALTER table_name SET STATISTICS 10, ALTER login_name SET STATISTICS 10,
  ALTER session_name SET STATISTICS 10, ALTER user_name SET STATISTICS 10, ALTER application_name SET STATISTICS 10,
  ALTER client_addr SET STATISTICS 10,
  ALTER command SET STATISTICS 0, ALTER key SET STATISTICS 0, ALTER old SET STATISTICS 0, ALTER new SET STATISTICS 0,
  ALTER context SET STATISTICS 0, ALTER prev SET STATISTICS 0, ALTER hash SET STATISTICS 0;

-- Entries too long for a page are compressed while the change waits: with lz4, where the server has it, in a fraction of the time.
DO $$
BEGIN
  IF EXISTS (SELECT FROM pg_catalog.pg_settings
               WHERE name OPERATOR(pg_catalog.=) 'default_toast_compression' AND 'lz4' OPERATOR(pg_catalog.=) ANY (enumvals)) THEN
    ALTER TABLE audit.log
      ALTER key SET COMPRESSION lz4, ALTER old SET COMPRESSION lz4, ALTER new SET COMPRESSION lz4, ALTER context SET COMPRESSION lz4;
  END IF;
END
$$;

REVOKE ALL ON TABLE audit.log FROM PUBLIC;
SELECT pg_catalog.pg_extension_config_dump('audit.log', '');

-- Not owned by the column: nobody needs a right on it, values are taken below SQL. Each stands for 64 ids, see src/pg/ids.rs.
CREATE SEQUENCE audit.log_id_seq AS bigint NO CYCLE CACHE 1;
COMMENT ON SEQUENCE audit.log_id_seq IS 'Runs of ids of entries: n stands for 64 * n - 63 to 64 * n.';
REVOKE ALL ON SEQUENCE audit.log_id_seq FROM PUBLIC;
SELECT pg_catalog.pg_extension_config_dump('audit.log_id_seq', '');

-- One row: which ledger this database writes. Made with the first protected table, not by this script, so that a dump can be restored.
CREATE TABLE audit.ledger (
  id uuid NOT NULL,
  created_at timestamptz NOT NULL,
  CONSTRAINT ledger_pkey PRIMARY KEY (id)
);
COMMENT ON TABLE audit.ledger IS 'The ledger of this database: one row once a table was protected.';
REVOKE ALL ON TABLE audit.ledger FROM PUBLIC;
SELECT pg_catalog.pg_extension_config_dump('audit.ledger', '');

-- A row from the first write of this database on, and one more whenever server, database, timeline or signing key change: a cache of the INCARNATION
-- and KEY entries. Deliberately not dumped: its emptiness tells a restored database that has not written yet.
CREATE TABLE audit.incarnation (
  after_id bigint NOT NULL,
  system_identifier numeric NOT NULL,
  database_oid oid NOT NULL,
  timeline integer NOT NULL,
  vkey text,
  disowned text,
  at timestamptz NOT NULL,
  CONSTRAINT incarnation_pkey PRIMARY KEY (after_id)
);
COMMENT ON TABLE audit.incarnation IS 'Since when this database writes to the ledger itself, and as whom; empty after a restore, until the first write.';
COMMENT ON COLUMN audit.incarnation.after_id IS 'The entry that tells of it; of the first row, the highest id before it.';
COMMENT ON COLUMN audit.incarnation.vkey IS 'The key of the last KEY entry.';
COMMENT ON COLUMN audit.incarnation.disowned IS 'A checkpoint given out before that is not of this tree, as an INCARNATION entry says.';
REVOKE ALL ON TABLE audit.incarnation FROM PUBLIC;

-- Which tables are protected how: a cache of the PROTECT and UNPROTECT entries. regclass, so that a dump carries names and not object ids.
CREATE TABLE audit.registry (
  relation regclass NOT NULL,
  known_as oid NOT NULL,
  kind "char" NOT NULL,
  protect_id bigint NOT NULL,
  is_root boolean NOT NULL,
  images text NOT NULL,
  baseline boolean NOT NULL,
  exclude text[] NOT NULL,
  exclude_numbers smallint[] NOT NULL,
  columns text[] NOT NULL,
  types text[] NOT NULL,
  key text[] NOT NULL,
  table_schema text NOT NULL,
  table_name text NOT NULL,
  CONSTRAINT registry_pkey PRIMARY KEY (relation)
);
COMMENT ON TABLE audit.registry IS 'Protected tables, as the triggers see them; audit.verify() holds it against the log. Use the view audit.protected.';
COMMENT ON COLUMN audit.registry.known_as IS 'Object id of the table in the log: after a restore, until the first write, that of the former database.';
COMMENT ON COLUMN audit.registry.protect_id IS 'Id of its PROTECT entry.';
COMMENT ON COLUMN audit.registry.is_root IS 'Whether it was named in audit.protect(), not reached through a parent.';
COMMENT ON COLUMN audit.registry.table_name IS 'Name of the table, in table_schema, as the log last said: what a DDL entry compares with.';
COMMENT ON COLUMN audit.registry.columns IS 'Recorded columns since its PROTECT entry; their types are in types, the primary key is in key.';
REVOKE ALL ON TABLE audit.registry FROM PUBLIC;
SELECT pg_catalog.pg_extension_config_dump('audit.registry', '');

-- The seals: each says how far all chains had come and binds that, and all before it, into one root. Written by audit.seal() alone.
CREATE TABLE audit.seal (
  number bigint NOT NULL,
  ledger uuid NOT NULL,
  at timestamptz NOT NULL,
  tree_size bigint NOT NULL,
  root bytea NOT NULL,
  system_identifier numeric NOT NULL,
  timeline integer NOT NULL,
  prev bytea NOT NULL,
  hash bytea NOT NULL,
  -- Two seals of the same number would be two histories.
  CONSTRAINT seal_pkey PRIMARY KEY (ledger, number)
);
COMMENT ON TABLE audit.seal IS 'Seals: one root over all entries of all chains up to then, linked by hash to the seal before. Append-only.';
COMMENT ON COLUMN audit.seal.number IS 'Place among the seals of the ledger, from 1 without gaps.';
COMMENT ON COLUMN audit.seal.ledger IS 'The ledger that was sealed.';
COMMENT ON COLUMN audit.seal.at IS 'When it was sealed, by the server''s clock.';
COMMENT ON COLUMN audit.seal.tree_size IS 'How many entries are sealed, this seal''s included.';
COMMENT ON COLUMN audit.seal.root IS 'Root of the tree over all of them.';
COMMENT ON COLUMN audit.seal.system_identifier IS 'Database cluster that sealed.';
COMMENT ON COLUMN audit.seal.timeline IS 'Timeline of the server then.';
COMMENT ON COLUMN audit.seal.prev IS 'Hash of the seal before; zeros for the first.';
COMMENT ON COLUMN audit.seal.hash IS 'SHA-256 of the seal''s line: docs/format.md, section 9.';
REVOKE ALL ON TABLE audit.seal FROM PUBLIC;
SELECT pg_catalog.pg_extension_config_dump('audit.seal', '');

-- Which entries a seal counted: one row for each chain that had grown.
CREATE TABLE audit.seal_range (
  seal bigint NOT NULL,
  ledger uuid NOT NULL,
  chain integer NOT NULL,
  first_seq bigint NOT NULL,
  last_seq bigint NOT NULL,
  first_leaf bigint NOT NULL,
  head bytea NOT NULL,
  -- Finds the range of an entry, and how far a chain is sealed.
  CONSTRAINT seal_range_pkey PRIMARY KEY (ledger, chain, last_seq),
  -- Finds the range of a leaf, and the ranges of a seal in their order. No entry is counted twice.
  CONSTRAINT seal_range_leaf_key UNIQUE (ledger, first_leaf)
);
COMMENT ON TABLE audit.seal_range IS 'The entries that each seal counted, and their places in the tree. Append-only.';
COMMENT ON COLUMN audit.seal_range.seal IS 'Number of the seal.';
COMMENT ON COLUMN audit.seal_range.first_seq IS 'First entry of the chain that the seal counted.';
COMMENT ON COLUMN audit.seal_range.last_seq IS 'Last one.';
COMMENT ON COLUMN audit.seal_range.first_leaf IS 'Place of the first one in the tree, from 0; the others follow it.';
COMMENT ON COLUMN audit.seal_range.head IS 'Hash of the last one.';
REVOKE ALL ON TABLE audit.seal_range FROM PUBLIC;
SELECT pg_catalog.pg_extension_config_dump('audit.seal_range', '');

-- The tree, in tiles of 256 hashes that never change once they are whole. What is not in a whole tile yet is computed from the log.
CREATE TABLE audit.tile (
  level smallint NOT NULL,
  index bigint NOT NULL,
  hashes bytea NOT NULL,
  root bytea NOT NULL,
  CONSTRAINT tile_pkey PRIMARY KEY (level, index)
);
-- Hashes do not compress, and out of line they are not in the way of whoever reads roots alone.
ALTER TABLE audit.tile ALTER COLUMN hashes SET STORAGE EXTERNAL;
COMMENT ON TABLE audit.tile IS 'Whole tiles of the tree over all sealed entries: docs/format.md, section 6.1. Append-only.';
COMMENT ON COLUMN audit.tile.level IS 'Each hash is the root over 256^level entries.';
COMMENT ON COLUMN audit.tile.index IS 'Place among the tiles of the level, from 0.';
COMMENT ON COLUMN audit.tile.hashes IS '256 hashes of 32 bytes.';
COMMENT ON COLUMN audit.tile.root IS 'The root over them: a hash of the tile above.';
REVOKE ALL ON TABLE audit.tile FROM PUBLIC;
SELECT pg_catalog.pg_extension_config_dump('audit.tile', '');
