"""docs/compose.yaml: what it names is there, its command is one that accord takes, no secret stands in it, and behind a proxy that command lets nobody in unasked."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
import yaml

from accord.annotation.project import Project
from accord.arguments import parse
from accord.cli import COMMANDS
from accord.commands.project import _parser
from accord.config.options import AnnotateOptions
from accord.web.access import COOKIE
from accord.web.serve import Listening, hosts_of

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "docs" / "compose.yaml"
TEXT = FILE.read_text(encoding="utf-8")
VARIABLE = re.compile(r"\$\{(\w+):\?[^}]+\}")
VALUES = {"SITE": "label.example.org", "PASSWORD": "abc123"}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """The file, its variables put in as docker compose does."""
    return yaml.safe_load(VARIABLE.sub(lambda found: VALUES[found[1]], TEXT))


def annotate_options(compose: dict[str, Any]) -> AnnotateOptions:
    command = compose["services"]["labels"]["command"]
    assert command[:2] == ["accord", "annotate"]
    (options,) = parse(COMMANDS["annotate"], command[2:])
    return options


def test_what_it_names_is_there(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert set(compose) == {"name", "services", "volumes"} and set(services) == {"db", "labels", "proxy"}
    mounted = {volume.split(":")[0] for service in services.values() for volume in service["volumes"]}
    assert {name for name in mounted if not name.startswith("./")} == set(compose["volumes"])
    for service in services.values():
        assert service["image"] and set(service.get("depends_on", ())) <= set(services) - {"labels"}
        for volume in service["volumes"]:
            assert volume.split(":")[1].startswith("/")
    labels, db = services["labels"], services["db"]
    assert labels["network_mode"] == "service:proxy" and "ports" not in labels and "ports" not in db
    assert labels["depends_on"]["db"] == {"condition": "service_healthy"} and db["healthcheck"]["test"][0] == "CMD"
    project = annotate_options(compose).project
    assert any(
        project.startswith(volume.split(":")[1] + "/") for volume in labels["volumes"]
    )  # in a folder of the volume: a mount is not empty


def test_the_image_is_made_of_what_the_repository_has(compose: dict[str, Any]) -> None:
    build = compose["services"]["labels"]["build"]
    context = (FILE.parent / build["context"]).resolve()
    package = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = build["dockerfile_inline"].splitlines()
    copied = {name: target for line in lines if line.startswith("COPY ") for *names, target in [line.split()[1:]] for name in names}
    assert context == ROOT and {"pyproject.toml", "src", package["readme"]} <= set(copied)
    assert all((context / name).exists() and target.startswith("/accord/") for name, target in copied.items())
    (extras,) = re.findall(r"pip install [^'\n]*'/accord\[([\w,]+)\]'", build["dockerfile_inline"])
    assert {"annotate", "postgres"} == set(extras.split(",")) <= set(package["optional-dependencies"])
    python = re.search(r"FROM python:(\d+)\.(\d+)", lines[0])
    assert python is not None and (int(python[1]), int(python[2])) >= (3, 11)


def test_no_secret_stands_in_it(compose: dict[str, Any]) -> None:
    """Passwords come from the environment and are refused when empty; the database they open is nobody's outside; .env is ignored by git."""
    plain = yaml.safe_load(TEXT)
    for service in plain["services"].values():
        for name, value in service.get("environment", {}).items():
            assert VARIABLE.fullmatch(value) or "PASSWORD" not in name
    assert set(VARIABLE.findall(TEXT)) == set(VALUES) and "/join/" not in TEXT
    assert len(VARIABLE.findall(TEXT)) == TEXT.count("${")
    assert ".env" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()


def test_the_proxy_leads_to_where_accord_listens(compose: dict[str, Any]) -> None:
    options, proxy = annotate_options(compose), compose["services"]["proxy"]["command"]
    listening = Listening(options.host, options.port, behind=options.behind)
    given = dict(zip(proxy[2::2], proxy[3::2], strict=True))
    assert proxy[:2] == ["caddy", "reverse-proxy"] and given == {"--from": VALUES["SITE"], "--to": f"{options.host}:{options.port}"}
    assert hosts_of(listening, options.port) == {given["--from"]} and not options.open_browser
    assert {port.split(":")[1] for port in compose["services"]["proxy"]["ports"]} == {"80", "443"}


def test_the_page_gives_commands_that_exist(compose: dict[str, Any]) -> None:
    """Each line with docker compose: known services, and after them a command of accord with options that it has, in the project of the file."""
    page = (ROOT / "docs" / "team.md").read_text(encoding="utf-8")
    lines = [line.split("  #")[0] for line in page.splitlines() if line.startswith("docker compose ")]
    project, volume = annotate_options(compose).project, compose["services"]["labels"]["volumes"][0].split(":")[1]
    verbs = []
    for words in map(shlex.split, lines):
        assert words[2] in ("up", "run", "exec")
        services = [word for word in words[3:] if word in compose["services"]]
        assert services
        if words[2] == "up":
            continue
        command = words[words.index("labels") + 1 :]
        assert command[:2] == ["accord", "project"]
        chosen = _parser().parse_args(command[2:])
        verbs.append(chosen.verb)
        assert chosen.project == project and str(getattr(chosen, "file", project)).startswith(volume)
    assert verbs == ["new", "import-tasks", "invite", "export-tasks", "backup"]
    new = next(shlex.split(line) for line in lines if " project new " in line)
    environment, database = compose["services"]["db"]["environment"], new[new.index("--database") + 1]
    assert database == f"postgresql://{environment['POSTGRES_USER']}:${{PASSWORD}}@db/{environment['POSTGRES_DB']}"


def test_the_command_behind_the_proxy(compose: dict[str, Any], tmp_path: Path) -> None:
    """Asked as the proxy asks: nobody without an invitation, its session for https alone, no other name."""
    project = Project.new(tmp_path / "labels")
    with project.open_store() as store:
        store.add_annotator("Ada", secret="the secret of an invitation")
    command = [str(project.folder) if word == "/data/labels" else word for word in compose["services"]["labels"]["command"][1:]]
    command[command.index("--port") + 1] = "0"
    process = subprocess.Popen([sys.executable, "-m", "accord", *command, "--debug"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        told = process.stdout.readline()
        assert f"https://{VALUES['SITE']}" in told
        port = listening_port(process.pid)
        forwarded = {"Host": VALUES["SITE"], "X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.9"}
        client = httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=forwarded)
        assert client.get("/").status_code == 401
        joined = client.get("/join/the secret of an invitation")
        assert joined.status_code == 303 and joined.cookies[COOKIE] and "Secure" in joined.headers["set-cookie"]
        assert client.get("/", headers={"Host": "127.0.0.1:8321"}).status_code == 421
    finally:
        process.kill()
        process.wait()


def listening_port(pid: int) -> int:
    import psutil

    return next(one.laddr.port for one in psutil.Process(pid).net_connections("tcp") if one.status == psutil.CONN_LISTEN)
