DROP TABLE audit_seals;
DROP INDEX audit_events_by_seal;
ALTER TABLE audit_events DROP COLUMN seal;
