-- The first five minutes.
\pset null '(null)'
CREATE TABLE account (id int PRIMARY KEY, owner text NOT NULL, balance numeric(12, 2) NOT NULL);
INSERT INTO account VALUES (1, 'ann', 100), (2, 'bob', 50);

SELECT audit.protect('account');

BEGIN;
UPDATE account SET balance = balance - 30 WHERE id = 1;
UPDATE account SET balance = balance + 30 WHERE id = 2;
COMMIT;
BEGIN;
DELETE FROM account;
ROLLBACK;
INSERT INTO account VALUES (3, 'cy', 0);
DELETE FROM account WHERE id = 3;

SELECT op, table_name, key, old, regexp_replace(new::text, '"next_xid":"[0-9]+"', '"next_xid":"..."') AS new FROM audit.log ORDER BY id;
SELECT what, ok, problems, detail FROM audit.verify();
SELECT * FROM audit.findings();
SELECT entries, chains, protected, last_entry > now() - interval '1 hour' AS recent, ledger = (SELECT id FROM audit.ledger) AS same_ledger
  FROM audit.status();

-- What a superuser can do, and what comes of it. One chain here, so that the place is always the same.
SET audit.chains = 1;
BEGIN;
ALTER TABLE audit.log DISABLE TRIGGER ALL;
UPDATE audit.log SET new = '{"balance":7000.00}' WHERE op = 'UPDATE' AND key ->> 'id' = '1';
SELECT what, ok, problems FROM audit.verify();
SELECT kind, relation FROM audit.findings() WHERE kind <> 'coverage';
ROLLBACK;
SELECT what, ok, problems FROM audit.verify();

-- Nothing to verify is not a fault.
SELECT audit.unprotect('account', 'the five minutes are over');
SELECT what, ok, problems FROM audit.verify();
