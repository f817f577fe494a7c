-- When it is worth looking whether a row is over: what was issued in a grant goes on for as long as it is used, and a
-- sign-in too, so nothing is written at each use; whoever looks too early notes when to look again.
ALTER TABLE grants ADD COLUMN prune_after BIGINT NOT NULL DEFAULT 0;
CREATE INDEX grants_by_prune_after ON grants (prune_after);
ALTER TABLE sessions ADD COLUMN prune_after BIGINT NOT NULL DEFAULT 0;
CREATE INDEX sessions_by_prune_after ON sessions (prune_after);

-- Codes and refresh tokens go with their grant. Nobody asks for them by time, and every use paid for these.
DROP INDEX refresh_tokens_by_expiry;
DROP INDEX authorization_codes_by_expiry;
