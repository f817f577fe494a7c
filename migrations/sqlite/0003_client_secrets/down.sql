ALTER TABLE client_secrets DROP COLUMN expires_at;
ALTER TABLE client_secrets DROP COLUMN last_used_at;
ALTER TABLE client_secrets DROP COLUMN prefix;
ALTER TABLE client_secrets DROP COLUMN from_file;
