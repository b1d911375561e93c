"""The package as a whole: import, public names, README."""

import re
import subprocess
import sys
from pathlib import Path

import firstspike

ROOT = Path(__file__).parent.parent


def test_import_is_silent_and_loads_nothing_heavy() -> None:
    code = (
        "import sys, firstspike\n"
        "assert 'torch' not in sys.modules and 'numba' not in sys.modules\n"
        "firstspike.TTFS\n"
        "assert 'numba' not in sys.modules and 'matplotlib' not in sys.modules\n"
        "firstspike.load('digits-cnn-ttfs4')\n"  # torch's meta device would import seconds
        "import torch; old = [int(n) for n in torch.__version__.split('.')[:2]] < [2, 10]\n"
        "assert old or not {'sympy', 'torch._dynamo'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == done.stderr == ""


def test_every_public_name_resolves() -> None:
    for name in firstspike.__all__:
        assert getattr(firstspike, name) is not None
    assert set(firstspike.__all__) == set(dir(firstspike))


def test_the_face_of_the_package() -> None:
    verbs = "check check_engines compare convert evaluate fit from_nir load load_record register"
    codes = "Burst ExactReLU FewStep LIF Phase Rate ReLPSP Reverse TTFS TemporalSwitch"
    types = "ConversionError Recipe Record Result Run SpikingNetwork StreamRecord TrainConfig"
    spaces = "chip codes data energy engines exchange inputs kernels methods models"
    verbs = f"{verbs} prepare save_pretrained save_record simulate simulate_stream to_c to_nir"
    verbs = f"{verbs} to_onnx trace train tune view"
    spaces = (
        f"{spaces} networks plots quantized report scales stopping thresholds training tuning zoo"
    )
    assert set(firstspike.__all__) == {"__version__", *f"{verbs} {codes} {types} {spaces}".split()}


def test_every_space_lists_names_that_it_has() -> None:
    for name in firstspike._SPACES:
        space = getattr(firstspike, name)
        assert space.__doc__ and all(hasattr(space, public) for public in space.__all__), name


def test_documents_import_nothing_deeper_than_a_space() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *ROOT.glob("examples/*.py")]:
        for deep in re.findall(r"(?:from|import) firstspike\.(\w+)\.", page.read_text()):
            raise AssertionError(f"{page.name} imports from inside firstspike.{deep}")


def test_the_project_speaks_only_of_itself() -> None:
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split()
    words = ("/" + "work/", "/" + "tmp/")
    for name in tracked:
        if name.endswith((".py", ".md", ".yaml", ".toml", ".sh")) and (ROOT / name).is_file():
            text = (ROOT / name).read_text()
            assert not any(word in text for word in words), name
