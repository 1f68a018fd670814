-- The tables of the benchmark, beside those of pgbench. Each has a primary key, as a table under audit should.

-- Case "pair": one row of it is updated in each transaction.
CREATE TABLE purchase (
  id         bigint PRIMARY KEY,
  customer   integer NOT NULL,
  status     text NOT NULL,
  amount     numeric(12,2) NOT NULL,
  items      integer NOT NULL,
  note       text,
  created_at timestamptz NOT NULL,
  updated_at timestamptz NOT NULL
);

-- Case "pair": one row is inserted into it in each transaction.
CREATE TABLE purchase_event (
  id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  purchase_id bigint NOT NULL,
  kind        text NOT NULL,
  amount      numeric(12,2) NOT NULL,
  at          timestamptz NOT NULL
);

-- Case "wide": 40 columns of mixed types, of which one is updated.
CREATE TABLE customer (
  id          bigint PRIMARY KEY,
  number_1    integer,
  account_1   bigint,
  remark_1    text,
  name_1      varchar(40),
  amount_1    numeric(12,2),
  seen_at_1   timestamptz,
  born_1      date,
  active_1    boolean,
  token_1     uuid,
  settings_1  jsonb,
  score_1     double precision,
  level_1     smallint,
  address_1   inet,
  number_2    integer,
  account_2   bigint,
  remark_2    text,
  name_2      varchar(40),
  amount_2    numeric(12,2),
  seen_at_2   timestamptz,
  born_2      date,
  active_2    boolean,
  token_2     uuid,
  settings_2  jsonb,
  score_2     double precision,
  level_2     smallint,
  address_2   inet,
  number_3    integer,
  account_3   bigint,
  remark_3    text,
  name_3      varchar(40),
  amount_3    numeric(12,2),
  seen_at_3   timestamptz,
  born_3      date,
  active_3    boolean,
  token_3     uuid,
  settings_3  jsonb,
  score_3     double precision,
  level_3     smallint,
  address_3   inet
);

-- Cases "insert" and "update".
CREATE TABLE measurement (
  id     bigint PRIMARY KEY,
  sensor integer NOT NULL,
  at     timestamptz NOT NULL,
  value  double precision NOT NULL,
  note   text
);

-- Case "copy".
CREATE TABLE measurement_import (LIKE measurement INCLUDING ALL);

INSERT INTO purchase
  SELECT i, i % 5000, 'new', i % 1000 + 0.99, 0, 'purchase ' || i, now(), now()
  FROM generate_series(1, 100000) AS i;

INSERT INTO customer
  SELECT g.n, v.*, v.*, v.*
  FROM generate_series(1, 50000) AS g (n),
    LATERAL (SELECT n, n * 1000003::bigint, 'text of customer ' || n, 'name ' || n, n / 100.0, timestamptz '2026-01-01' + n * interval '1 second',
      date '2026-01-01' + n % 1000, n % 2 = 0, md5(n::text)::uuid, jsonb_build_object('tags', ARRAY['a', 'b'], 'score', n), n / 7.0::float8,
      (n % 100)::smallint, inet '10.0.0.0' + n) AS v;

VACUUM ANALYZE;
