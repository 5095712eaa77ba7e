"""The database: opening it, its engines, migrations, backup. Skip it on a first reading."""
