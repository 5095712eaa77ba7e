"""PostgreSQL behind PgBouncer in transaction mode, and by TLS."""

from __future__ import annotations

import ipaddress
import shutil
import tempfile
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from flask import Flask

from backend.core import clock

from ..support.apps import client_of
from ..support.commands import assert_refused, flask_of
from ..support.concurrency import until
from ..support.long_runs import Site
from ..support.people import add_user, sign_in
from ..support.problems import assert_problem
from ..support.processes import Process, free_port, program, run
from .cluster import Postgres, as_user
from .load import Load, counts, spread, wait

CONF = """
[databases]
* = host=127.0.0.1 port={port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
unix_socket_dir =
auth_type = trust
auth_file = {folder}/users
pool_mode = transaction
default_pool_size = 4
max_client_conn = 200
"""


@pytest.fixture
def pgbouncer(cluster: Postgres) -> Iterator[int]:
    """The port of a PgBouncer in transaction mode, with four connections for all."""
    folder, listen = Path(tempfile.mkdtemp(prefix="pgbouncer")), free_port()
    (folder / "users").write_text('"postgres" ""\n')
    conf = folder / "pgbouncer.ini"
    conf.write_text(CONF.format(port=cluster.port, listen=listen, folder=folder))
    for path in (folder, *folder.iterdir()):
        shutil.chown(path, "postgres")
    command = as_user("postgres", program("pgbouncer"), "--quiet", str(conf))
    with Process(command, listen, folder / "log"):
        yield listen
    shutil.rmtree(folder)


def test_pgbouncer_in_transaction_mode(
    cluster: Postgres,
    pgbouncer: int,
    tree: Path,
    site_on: Callable[..., Site],
    load_on: Callable[..., Load],
    figure: Callable[[str, str], None],
) -> None:
    name = cluster.new_database(migrated=False).rpartition("/")[2]
    url = cluster.url(name, pgbouncer)
    upgrade = ["flask", "--app", "wsgi", "db", "upgrade"]
    done = run(tree, *upgrade, database_url=url, database_prepared_statements="false")
    assert done.returncode == 0, done.stderr
    client, servers = site_on(url, processes=2, database_prepared_statements="false")
    load = load_on(client, servers[0].port)
    wait(3)
    found = load.finish()
    figure("answers, 4 connections for 2 processes", counts(found))
    figure("verification", spread([each.milliseconds for each in found if each.kind == "verify"]))
    load.never({0})
    assert {each.status for each in found if each.kind != "login"} <= {200, 201, 204, 401}
    assert not load.missing(client, sign_in(client, "root"))


def test_a_pooler_that_takes_no_session_settings_is_told_by_the_name_of_the_setting(
    cluster: Postgres, pgbouncer: int, tree: Path, app_on: Callable[..., Flask]
) -> None:
    url = cluster.url(cluster.new_database().rpartition("/")[2], pgbouncer)
    said = "a pooler such as PgBouncer answers, with 'unsupported startup parameter: options'"
    sentence = f"{said}: set DATABASE_PREPARED_STATEMENTS=false."
    for command in (["db", "upgrade"], ["users", "list"]):
        assert_refused(flask_of(app_on(url))(*command), sentence)
    told = flask_of(app_on(url))("doctor")
    assert told.stderr == f"fatal: DATABASE_URL: {sentence}\n"
    started = run(tree, "python", "wsgi.py", database_url=url)
    assert (started.returncode, started.stderr.splitlines()[-1]) == (4, f"DATABASE_URL: {sentence}")
    pooled = f"{url}?options=-csearch_path%3Dpublic"
    refused = flask_of(app_on(pooled, database_prepared_statements="false"))("db", "current")
    assert_refused(refused, f"{said}: remove it from DATABASE_URL.")


@pytest.mark.parametrize(
    ("setting", "value", "remedy"),
    [
        ("datestyle", "German", "SET datestyle = 'ISO'"),
        ("standard_conforming_strings", "off", "SET standard_conforming_strings = on"),
        (
            "default_transaction_isolation",
            "serializable",
            "SET default_transaction_isolation = 'read committed'",
        ),
    ],
)
def test_behind_a_pooler_doctor_says_which_defaults_the_role_must_have(
    setting: str,
    value: str,
    remedy: str,
    cluster: Postgres,
    pgbouncer: int,
    app_on: Callable[..., Flask],
) -> None:
    name = cluster.new_database().rpartition("/")[2]
    with psycopg.connect(cluster.url(name), autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} SET {setting} TO {value}")
    app = app_on(cluster.url(name, pgbouncer), database_prepared_statements="false")
    assert f"`ALTER ROLE ... {remedy}`" in flask_of(app)("doctor").output


def test_parameters_of_tls_come_in_the_url(
    cluster: Postgres, app_on: Callable[..., Flask], tmp_path: Path
) -> None:
    url = cluster.new_database().replace("127.0.0.1", "localhost")
    assert_problem(client_of(app_on(f"{url}?sslmode=require")).get("/readyz"), 503, "unavailable")
    certificate = make_certificate(cluster.data)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET ssl = on")
        connection.execute("SELECT pg_reload_conf()")
    mine, other = tmp_path / "mine.pem", tmp_path / "other.pem"
    shutil.copy(certificate, mine)
    other.write_bytes(make_certificate(tmp_path).read_bytes())
    verified = f"{url}?sslmode=verify-full&application_name=mine&sslrootcert="
    client = client_of(app_on(f"{verified}{mine}"))
    until(lambda: client.get("/readyz").status_code == 200)
    add_user(client, "alice")
    assert sign_in(client, "alice").get("/v1/auth/me").status_code == 200
    with psycopg.connect(url) as connection:
        asked = connection.execute(
            "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)"
            " WHERE application_name = 'mine'"
        )
        assert asked.fetchone() == (True,)
    refused = client_of(app_on(f"{verified}{other}")).get("/readyz")
    assert_problem(refused, 503, "unavailable")


def make_certificate(folder: Path) -> Path:
    """A certificate of localhost that it signed itself, beside its key, where PostgreSQL looks."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(clock.now() - timedelta(days=1))
        .not_valid_after(clock.now() + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "server.key").write_bytes(secret)
    (folder / "server.key").chmod(0o600)
    (folder / "server.crt").write_bytes(made.public_bytes(pem))
    owner = folder.stat()
    for each in (folder / "server.key", folder / "server.crt"):
        shutil.chown(each, owner.st_uid, owner.st_gid)
    return folder / "server.crt"
