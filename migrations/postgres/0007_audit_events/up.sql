-- What happened, for those who have to find out later. Rows are only added, until retention takes them.
CREATE TABLE audit_events (
    id TEXT NOT NULL PRIMARY KEY,
    time BIGINT NOT NULL,
    event TEXT NOT NULL,
    actor TEXT,
    target TEXT,
    client_id TEXT,
    address TEXT,
    request_id TEXT,
    detail TEXT NOT NULL
);
CREATE INDEX audit_events_by_time ON audit_events (time, id);
