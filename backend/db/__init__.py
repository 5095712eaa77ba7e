"""The database: opening it, its engines, migrations, backup."""
