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

VACUUM ANALYZE;
