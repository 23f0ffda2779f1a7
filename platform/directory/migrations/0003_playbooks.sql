-- Versioned definitions. A playbook is a name; its versions are immutable and numbered from 1 without gap.
CREATE TABLE playbooks (
    tenant         BLOB    NOT NULL REFERENCES tenants (id),
    name           TEXT    NOT NULL,
    latest         INTEGER NOT NULL CHECK (latest >= 1),
    created_at_ms  INTEGER NOT NULL,
    changed_at_ms  INTEGER NOT NULL,
    archived_at_ms INTEGER,
    archived_by    BLOB             CHECK (length(archived_by) = 16),
    PRIMARY KEY (tenant, name)
) STRICT, WITHOUT ROWID;

-- `digest` is blake3 of the compiled definition; `source` is what its author wrote.
CREATE TABLE playbook_versions (
    tenant        BLOB    NOT NULL,
    name          TEXT    NOT NULL,
    version       INTEGER NOT NULL CHECK (version >= 1),
    digest        BLOB    NOT NULL CHECK (length(digest) = 32),
    description   TEXT,
    note          TEXT,
    source        BLOB    NOT NULL,
    created_at_ms INTEGER NOT NULL,
    created_by    BLOB             CHECK (length(created_by) = 16),
    PRIMARY KEY (tenant, name, version),
    FOREIGN KEY (tenant, name) REFERENCES playbooks (tenant, name)
) STRICT;
