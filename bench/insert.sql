-- One row is inserted: one entry a transaction.
\set id random(1, 100000)
\set amount random(1, 99999)
INSERT INTO purchase_event (purchase_id, kind, amount, at) VALUES (:id, 'change', :amount / 100.0, now());
