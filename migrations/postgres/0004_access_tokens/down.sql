DROP TABLE client_tokens;
ALTER TABLE access_tokens DROP COLUMN revoked_at;
ALTER TABLE access_tokens DROP COLUMN issued_at;
ALTER TABLE access_tokens DROP COLUMN resources;
ALTER TABLE access_tokens DROP COLUMN for_issuer;
