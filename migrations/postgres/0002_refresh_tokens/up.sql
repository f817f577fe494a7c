-- Refresh tokens. A grant is a family; of each token only the hash is kept, and spent ones stay as long as the family, so
-- that clean-up never makes a replayed token an unknown one.

CREATE TABLE refresh_tokens (
    token_hash BYTEA NOT NULL PRIMARY KEY,
    grant_id TEXT NOT NULL REFERENCES grants (id) ON DELETE CASCADE,
    issued_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    redeemed_at BIGINT,
    redeemed_from BYTEA,
    retried_elsewhere BOOLEAN NOT NULL,
    elsewhere_before BIGINT NOT NULL
);
CREATE INDEX refresh_tokens_by_grant ON refresh_tokens (grant_id);
CREATE INDEX refresh_tokens_by_expiry ON refresh_tokens (expires_at);
