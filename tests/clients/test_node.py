"""Libraries of other people, for Node, that verify, introspect and revoke our tokens."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ..support.people import PASSWORD
from ..support.processes import free_port, program
from ..support.servers import serving_an_admin

CALLS = Path(__file__).with_name("oauth.mjs")


@pytest.fixture
def issuer(tmp_path: Path) -> Iterator[str]:
    """Where a service listens that signs with a key pair, which is also its issuer."""
    key = tmp_path / "key.pem"
    key.touch(mode=0o600)
    pair = Ed25519PrivateKey.generate()
    key.write_bytes(pair.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with serving_an_admin(
        tmp_path, port, public_url=url, jwt_algorithm="EdDSA", jwt_private_key_file=key
    ):
        yield url


def test_strict_verifiers_and_oauth_clients_for_node_work_with_it(issuer: str) -> None:
    done = subprocess.run(
        [program("node"), CALLS, issuer, PASSWORD], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
