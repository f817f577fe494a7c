CREATE INDEX authorization_codes_by_expiry ON authorization_codes (expires_at);
CREATE INDEX refresh_tokens_by_expiry ON refresh_tokens (expires_at);
DROP INDEX sessions_by_prune_after;
ALTER TABLE sessions DROP COLUMN prune_after;
DROP INDEX grants_by_prune_after;
ALTER TABLE grants DROP COLUMN prune_after;
