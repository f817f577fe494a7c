-- Seals over audit events: each holds a digest of up to 500 of them and the seal before, under a key that is not in the database.
ALTER TABLE audit_events ADD COLUMN seal BIGINT;
CREATE INDEX audit_events_by_seal ON audit_events (seal);
CREATE TABLE audit_seals (
    number BIGINT NOT NULL PRIMARY KEY,
    newest BIGINT NOT NULL,
    events BIGINT NOT NULL,
    digest BLOB NOT NULL,
    previous BLOB NOT NULL,
    mac BLOB NOT NULL
);
