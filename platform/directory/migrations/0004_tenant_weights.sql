-- What a tenant weighs when tenants share nodes: its share of free slots is its weight over that of all that wait.
ALTER TABLE tenants ADD COLUMN weight INTEGER NOT NULL DEFAULT 1 CHECK (weight BETWEEN 1 AND 1000);
