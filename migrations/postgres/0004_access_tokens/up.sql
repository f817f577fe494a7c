-- Whom an access token is meant for, and its end when it alone is revoked.
ALTER TABLE access_tokens ADD COLUMN for_issuer BOOLEAN NOT NULL DEFAULT TRUE;
ALTER TABLE access_tokens ADD COLUMN resources TEXT NOT NULL DEFAULT '[]';
ALTER TABLE access_tokens ADD COLUMN issued_at BIGINT NOT NULL DEFAULT 0;
ALTER TABLE access_tokens ADD COLUMN revoked_at BIGINT;

-- What clients get for themselves: opaque tokens, and those JWTs that were revoked; of other JWTs nothing needs to be known.
CREATE TABLE client_tokens (
    token_hash BYTEA NOT NULL PRIMARY KEY,
    client_id TEXT NOT NULL REFERENCES clients (client_id) ON DELETE CASCADE,
    scope TEXT NOT NULL,
    resources TEXT NOT NULL,
    issued_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    revoked_at BIGINT
);
CREATE INDEX client_tokens_by_client ON client_tokens (client_id);
CREATE INDEX client_tokens_by_expiry ON client_tokens (expires_at);
