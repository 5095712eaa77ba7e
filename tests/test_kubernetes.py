"""docs/kubernetes.md and its manifest: they fit together, and do what they say."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from flask import Flask

from backend.core.settings import ROOT, Settings, setting_names
from backend.core.settings_checks import require_safe
from backend.server.serving import DRAIN_SECONDS

from .support.apps import client_of
from .support.concurrency import until
from .support.people import Person, by_key
from .support.processes import Process, confined, copy_tree, free_port

PAGE = (ROOT / "docs" / "kubernetes.md").read_text("utf-8")
MANIFEST = {
    each["kind"]: each
    for each in yaml.safe_load_all((ROOT / "config" / "kubernetes.yaml").read_text("utf-8"))
}
NAME = MANIFEST["Deployment"]["metadata"]["name"]
POD = MANIFEST["Deployment"]["spec"]["template"]
[MIGRATE], [SERVE] = POD["spec"]["initContainers"], POD["spec"]["containers"]
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
VERIFY = re.compile(r"http://backend\.default\.svc(?:\.cluster\.local)?:8000(/v1/verify\?\S+)")


def blocks(language: str) -> list[str]:
    """The code blocks of the page in a language."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return [code for its_language, code in found if its_language == language]


def on_the_page(text: str) -> dict[str, Any]:
    """The YAML on the page that has this text."""
    [found] = [block for block in blocks("yaml") if text in block]
    return yaml.safe_load(found)


def commands_on_the_page() -> list[list[str]]:
    """Each call of kubectl on the page, as the shell passes it on."""
    script = "\n".join(["docker() { :; }", 'kubectl() { printf "%s\\n" call "$@"; }', *blocks("")])
    done = subprocess.run(["bash", "-euc", script], capture_output=True, text=True, check=True)
    return [call.splitlines() for call in done.stdout.split("call\n")[1:]]


def secret_on_the_page() -> dict[str, str]:
    """What the Secret contains."""
    [create] = [
        call for call in commands_on_the_page() if call[:3] == ["create", "secret", "generic"]
    ]
    assert create[3] == NAME
    return dict(each.removeprefix("--from-literal=").split("=", 1) for each in create[4:])


# --- the manifest and the page fit together ---


def test_the_config_map_and_the_secret_name_settings() -> None:
    secret, config = secret_on_the_page(), MANIFEST["ConfigMap"]["data"]
    assert set(secret) | set(config) <= setting_names()
    assert not any(f"{name}_FILE" in setting_names() for name in config)  # secrets have it
    for container in (MIGRATE, SERVE):
        named = [
            reference["name"] for source in container["envFrom"] for reference in source.values()
        ]
        assert named == [MANIFEST["ConfigMap"]["metadata"]["name"], NAME]
    settings = require_safe(Settings.load({**config, **secret}, dotenv=None))
    host = MANIFEST["Ingress"]["spec"]["rules"][0]["host"]
    assert settings.public_url == f"https://{host}"
    assert MANIFEST["Ingress"]["spec"]["tls"][0]["hosts"] == [host]
    assert SERVE["ports"][0]["containerPort"] == settings.port


def test_whatever_refers_to_the_pods_finds_them() -> None:
    labels, [port] = POD["metadata"]["labels"], SERVE["ports"]
    policy = on_the_page("kind: NetworkPolicy")["spec"]
    monitor = on_the_page("kind: PodMonitor")["spec"]
    [endpoint] = monitor["podMetricsEndpoints"]
    [served] = MANIFEST["Service"]["spec"]["ports"]
    for selector in (
        MANIFEST["Deployment"]["spec"]["selector"]["matchLabels"],
        MANIFEST["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        MANIFEST["Service"]["spec"]["selector"],
        policy["podSelector"]["matchLabels"],
        monitor["selector"]["matchLabels"],
    ):
        assert selector == labels
    probes = [SERVE[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")]
    assert {probe["port"] for probe in probes} == {port["name"]}
    assert served["targetPort"] == port["name"] == endpoint["port"]
    assert policy["ingress"][0]["ports"] == [{"port": port["name"]}]
    [path] = MANIFEST["Ingress"]["spec"]["rules"][0]["http"]["paths"]
    assert path["backend"]["service"] == {"name": NAME, "port": {"name": served["name"]}}
    assert endpoint["authorization"]["credentials"]["key"] in secret_on_the_page()


def test_the_commands_name_what_the_manifest_creates() -> None:
    text = " ".join(word for call in commands_on_the_page() for word in call)
    assert set(re.findall(r"deployment/(\S+)", text)) == {NAME}
    assert set(re.findall(r"app=(\S+)", text)) == {POD["metadata"]["labels"]["app"]}


# --- it does what the page says ---


@pytest.mark.slow
def test_a_pod_migrates_serves_and_ends_with_the_rights_that_the_manifest_gives(
    empty_database: str, tmp_path: Path
) -> None:
    tree = copy_tree(tmp_path)
    instance = tree / "instance"
    instance.mkdir()
    instance.chmod(0o770)
    port = free_port()
    environ = {**MANIFEST["ConfigMap"]["data"], **secret_on_the_page(), "PORT": str(port)}
    del environ["REDIS_URL"], environ["DATABASE_URL"]
    if not empty_database.startswith("sqlite:"):
        environ["DATABASE_URL"] = empty_database
    environ["PATH"] = f"{Path(sys.executable).parent}:/usr/bin:/bin:/usr/sbin:/sbin"
    how = {"cwd": tree, "env": {**environ, "FLASK_SKIP_DOTENV": "1"}}

    def run(*command: str) -> str:
        done = subprocess.run(
            confined(instance, *command), capture_output=True, text=True, check=False, **how
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "First administrator: admin" in run(*MIGRATE["command"])
    assert "There is an administrator already." in run(*MIGRATE["command"])
    [served] = re.findall(r"^CMD (.*)$", DOCKERFILE, re.MULTILINE)
    command = confined(instance, *json.loads(served))
    with Process(command, port, tmp_path / "output", **how) as process:
        asked = [SERVE[f"{name}Probe"]["httpGet"]["path"] for name in ("liveness", "readiness")]
        for path in (*asked, SERVE["startupProbe"]["httpGet"]["path"]):
            connection = process.connect()
            connection.request("GET", path, headers={"Host": f"10.244.0.7:{port}"})
            assert until(connection.getresponse).status == 200
            connection.close()
        for call in commands_on_the_page():
            if call[0] == "exec":
                run(*call[call.index("--") + 1 :])
        process.process.send_signal(signal.SIGTERM)
        assert process.process.wait(POD["spec"]["terminationGracePeriodSeconds"]) == 0


def test_a_pod_has_few_rights_and_mounts_what_is_written() -> None:
    assert POD["spec"]["securityContext"]["runAsNonRoot"] is True
    [volume] = re.findall(r"^VOLUME (.*)$", DOCKERFILE, re.MULTILINE)
    for container in (MIGRATE, SERVE):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert [mount["mountPath"] for mount in container["volumeMounts"]] == [volume]


def test_a_pod_has_time_to_finish_its_requests() -> None:
    [_, waits] = SERVE["lifecycle"]["preStop"]["exec"]["command"]
    grace = POD["spec"]["terminationGracePeriodSeconds"]
    assert grace >= int(waits) + DRAIN_SECONDS + 5


@pytest.mark.slow
def test_prometheus_scrapes_a_pod_by_its_address(make_bare_app: Callable[..., Flask]) -> None:
    token = secret_on_the_page()["METRICS_TOKEN"]
    headers = {"Host": "10.244.0.7:8000", "Authorization": f"Bearer {token}"}
    client = client_of(make_bare_app(metrics_enabled=True, metrics_token=token))
    assert client.get("/metrics").status_code == 401
    assert client.get("/metrics", headers=headers).status_code == 200
    choosy = client_of(
        make_bare_app(metrics_enabled=True, metrics_token=token, trusted_hosts="example.org")
    )
    assert choosy.get("/metrics", headers=headers).status_code == 400  # as the page says


def test_the_doors_of_the_ingress_controllers_let_a_key_pass(alice: Person) -> None:
    middleware = on_the_page("kind: Middleware")["spec"]["forwardAuth"]
    prefix = "nginx.ingress.kubernetes.io/auth-"
    annotations = on_the_page(prefix)["metadata"]["annotations"]
    headers = set(annotations[f"{prefix}response-headers"].split(","))
    key, weak = alice.new_key(scopes=["reports:read"]), alice.new_key()
    for address in (middleware["address"], annotations[f"{prefix}url"]):
        path = VERIFY.fullmatch(address)[1]
        passed = alice.client.get(path, headers=by_key(key["key"]))
        refused = alice.client.get(path, headers=by_key(weak["key"]))
        assert (passed.status_code, refused.status_code) == (200, 403)
        told = {
            name for name, _ in (*passed.headers, *refused.headers) if name.startswith("X-Auth")
        }
        assert told == headers
    routes = yaml.safe_load((ROOT / "config" / "proxy" / "traefik_routes.yml").read_text("utf-8"))
    verify = routes["http"]["middlewares"]["verify"]["forwardAuth"]
    assert {**middleware, "address": ""} == {**verify, "address": ""}
