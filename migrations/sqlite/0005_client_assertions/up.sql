-- Client assertions that were used: each is good once until it expires. The hash is of client and jti.
CREATE TABLE client_assertions (
    assertion_hash BLOB NOT NULL PRIMARY KEY,
    expires_at BIGINT NOT NULL
);
CREATE INDEX client_assertions_by_expiry ON client_assertions (expires_at);
