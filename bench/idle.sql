-- Case "connections": a session that has written what is recorded, and then does nothing until it is ended.
\set id random(1, 100000)
\set amount random(1, 99999)
BEGIN;
UPDATE purchase SET status = 'changed', amount = :amount / 100.0, items = items + 1, updated_at = now() WHERE id = :id;
INSERT INTO purchase_event (purchase_id, kind, amount, at) VALUES (:id, 'change', :amount / 100.0, now());
END;
\sleep 2000 s
