DROP TABLE groups;
DROP TABLE scopes;
