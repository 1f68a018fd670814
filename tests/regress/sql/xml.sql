-- xml values. Servers built without libxml have their own expected file.
CREATE TABLE page (id int PRIMARY KEY, body xml, attributes xml);
SELECT audit.protect('page');
SET xmlbinary = 'hex';
SET xmloption = 'document';
INSERT INTO page VALUES (1, '<?xml version="1.0"?><p a="1">&lt;b&gt;</p>', xmlelement(name x, '\x00ff'::bytea));
SET xmloption = 'content';
UPDATE page SET body = 'text <b/> only';
SELECT op, key, old, new FROM audit.log WHERE op <> 'PROTECT' ORDER BY id;
SELECT what, ok, problems FROM audit.verify();
