"""docs/rights.md: its table is what the start examines. That it is enough and minimal is shown on a real broker."""

from __future__ import annotations

import re

from daemon.config import Settings
from daemon.transport.connection import transactional_id
from daemon.transport.topics import RIGHTS
from tests.deploy.compose_file import ROOT

PAGE = (ROOT / "docs" / "rights.md").read_text("utf-8")


def daemon_rights() -> set[tuple[str, str, str]]:
    """Return resource, name and operation of each row of the first table."""
    table = PAGE.partition("| resource | name | operation | why |")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    return {(resource, name, operation) for resource, name, operation, _ in rows}


def test_the_table_holds_what_the_start_examines() -> None:
    group = "`[kafka] group_id`"
    assert daemon_rights() == {
        *(("topic", f"`[topics] {role}`", each) for role, rights in RIGHTS.items() for each in rights),
        ("group", group, "READ"),
        ("transactional id", f"{group} + `/`, prefixed", "WRITE"),
    }


def test_the_commands_grant_the_table_for_the_default_names() -> None:
    settings = Settings()
    names = {f"`[topics] {role}`": name for role, name in settings.topics.model_dump().items()}
    names["`[kafka] group_id`"] = settings.kafka.group_id
    names["`[kafka] group_id` + `/`, prefixed"] = transactional_id(settings.kafka.group_id, "")
    wanted = {
        (resource.replace(" ", "-"), names[name], each) for resource, name, each in daemon_rights() if names[name]
    }
    granted = {
        (resource, name, operation)
        for command in re.findall(r"^kafka-acls.sh (.*)$", PAGE.replace("\\\n", " "), flags=re.MULTILINE)
        for resource, name in re.findall(r"--(topic|group|transactional-id) (\S+)", command)
        for operation in re.findall(r"--operation (\w+)", command)
    }
    assert granted == wanted
    assert "--transactional-id tickcast/ --resource-pattern-type prefixed" in PAGE
