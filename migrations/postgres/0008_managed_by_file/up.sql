-- Who came from a file goes when the file names them no more, if whoever applies it wants that; nobody else does.
ALTER TABLE users ADD COLUMN managed BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE clients ADD COLUMN managed BOOLEAN NOT NULL DEFAULT FALSE;
