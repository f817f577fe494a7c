ALTER TABLE clients DROP COLUMN managed;
ALTER TABLE users DROP COLUMN managed;
