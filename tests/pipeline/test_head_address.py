from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.config import RayOptions
from pipeline.head_address import host_and_port

_FORM = "expected auto or HOST:PORT"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("10.0.0.1:6379", ("10.0.0.1", 6379)),
        ("head_1.example-a.com:1", ("head_1.example-a.com", 1)),
        ("localhost:65535", ("localhost", 65535)),
        ("[::1]:6379", ("::1", 6379)),
        ("[fe80::1%eth0]:6379", ("fe80::1%eth0", 6379)),
    ],
)
def test_addresses_of_a_head(address: str, expected: tuple[str, int]) -> None:
    assert host_and_port(address) == expected
    assert RayOptions(address=address).address == address


def test_auto_and_none_are_no_addresses_of_a_head() -> None:
    assert RayOptions(address="auto").address == "auto"
    assert RayOptions().address is None


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("nonsense", _FORM),
        ("local", _FORM),
        ("AUTO", _FORM),
        ("127.0.0.1", _FORM),
        ("127.0.0.1:", _FORM),
        (":6379", _FORM),
        ("127.0.0.1:none", _FORM),
        ("127.0.0.1:0", _FORM),
        ("127.0.0.1:65536", _FORM),
        ("10.0.0.1:99999999", _FORM),
        ("127.0.0.1:06379", _FORM),
        ("127.0.0.1:-1", _FORM),
        ("127.0.0.1: 6379", _FORM),
        ("127.0.0.1:6379\n", _FORM),
        ("127.0.0.1:6379/x", _FORM),
        ("127.0.0.1:\u0661", _FORM),
        ("me@127.0.0.1:6379", _FORM),
        ("::1:6379", _FORM),
        ("http://127.0.0.1:8265", "ray job submit"),
        ("ray://127.0.0.1:10001", "ray job submit"),
    ],
)
def test_wrong_forms_end_a_command_before_any_work(
    address: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(
        f"input: {{path: {tmp_path}/in}}\noutput: {{path: {tmp_path}/out}}\nmodel: {{path: m}}\n"
    )
    assert main(["run", str(config), "--address", address]) == 2
    error = capsys.readouterr().err
    assert "ray.address=" in error
    assert message in error
    # The input does not exist, and was not looked for yet.
    assert "does not exist" not in error
    assert not (tmp_path / "out").exists()
