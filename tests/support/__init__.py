"""What the tests share, by subject. Fixtures are in conftest.py."""
