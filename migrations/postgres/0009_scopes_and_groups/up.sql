-- Scopes beside those of OpenID Connect, and groups with a description; people name their groups themselves.
CREATE TABLE scopes (
    name TEXT NOT NULL PRIMARY KEY,
    description TEXT,
    claims TEXT NOT NULL,
    managed BOOLEAN NOT NULL
);
CREATE TABLE groups (
    name TEXT NOT NULL PRIMARY KEY,
    description TEXT,
    managed BOOLEAN NOT NULL
);
