-- Several secrets at once, so that one can be changed without a gap. Of each the first characters are kept, by which an
-- operator recognises it; from_file marks the one that a file manages.

-- Whatever is there came from a file or gave way to one: as before, the file's next secret takes its place.
ALTER TABLE client_secrets ADD COLUMN from_file BOOLEAN NOT NULL DEFAULT TRUE;
ALTER TABLE client_secrets ADD COLUMN prefix TEXT NOT NULL DEFAULT '';
ALTER TABLE client_secrets ADD COLUMN last_used_at BIGINT;
ALTER TABLE client_secrets ADD COLUMN expires_at BIGINT;
