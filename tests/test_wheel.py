"""What is handed out: wheel and source archive, tried in an empty environment."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def run(*command: object, cwd: Path) -> str:
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=clean, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_wheel_and_source_archive_work_outside_the_repository(tmp_path: Path) -> None:
    builder, clean = tmp_path / "builder", tmp_path / "clean"
    for place in (builder, clean):
        venv.create(place, with_pip=True)
    pip = ("-m", "pip", "--disable-pip-version-check", "-q", "install")
    run(builder / "bin/python", *pip, "build", "hatchling", cwd=tmp_path)
    build = ("-m", "build", "--no-isolation", "--outdir", tmp_path / "dist")
    run(builder / "bin/python", *build, ROOT, cwd=tmp_path)
    (archive,) = (tmp_path / "dist").glob("*.tar.gz")
    with tarfile.open(archive) as held:
        names = {name.partition("/")[2] for name in held.getnames()}
    assert {"README.md", "CITATION.cff", "examples/convert_cnn.py", "docs/start.md"} <= names
    # dependencies are those of this interpreter, without what is installed as editable
    site = clean / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    run(clean / "bin/python", *pip, "--no-deps", wheel, cwd=tmp_path)
    where = run(clean / "bin/python", "-c", "import firstspike as f; print(f)", cwd=tmp_path)
    assert str(clean) in where
    assert "mnist_cnn" in run(clean / "bin/firstspike", "train", "--list", cwd=tmp_path)
    out = tmp_path / "digits"
    train = ("train", "--recipe", "digits_cnn", "--epochs", "1", "--out", out, "--threads", "1")
    run(clean / "bin/firstspike", *train, cwd=tmp_path)
    run(clean / "bin/firstspike", "convert", out, cwd=tmp_path)
    run(clean / "bin/firstspike", "report", out, "--samples", "50", cwd=tmp_path)
    assert "<svg" in (out / "report.html").read_text()
