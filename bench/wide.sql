-- One column of a table of 40 is updated, by key: one entry a transaction. It grows each time, so that no UPDATE leaves its row as it was.
\set id random(1, 50000)
UPDATE customer SET account_2 = account_2 + 1 WHERE id = :id;
