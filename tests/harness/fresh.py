"""Code that runs in a fresh interpreter, in which nothing but the import of the two packages has happened.

An import of transformers takes seconds. So one interpreter for each order of imports does it once, and a copy of it
runs each piece of code. Where vidformers comes last, each copy imports it.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryDirectory


TRANSFORMERS = (
    "import transformers\nfrom transformers import AutoConfig, AutoImageProcessor, AutoModel, "
    "AutoModelForVideoClassification, AutoProcessor, AutoTokenizer, AutoVideoProcessor, VJEPA2Config, VJEPA2Model\n"
)
OURS = "import vidformers\n"
IMPORTS = {"transformers first": TRANSFORMERS + OURS, "vidformers first": OURS + TRANSFORMERS}
ALONE = "transformers alone"
# The state of torchvision, as code that runs before anything else.
NO_TORCHVISION = "import sys\nsys.modules['torchvision'] = None\n"
# Any function that a version of transformers imports.
ANY_FUNCTION = """
from torchvision.transforms import InterpolationMode

def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
"""
FAKE_MODULES = {
    "torchvision/__init__.py": "__version__ = '0.28.0'\n",
    "torchvision/io.py": ANY_FUNCTION,
    "torchvision/transforms/__init__.py": (
        "from enum import Enum\n\n"
        "InterpolationMode = Enum('InterpolationMode', 'NEAREST NEAREST_EXACT BILINEAR BICUBIC BOX HAMMING LANCZOS')\n"
    ),
    "torchvision/transforms/functional.py": ANY_FUNCTION,
    "torchvision/transforms/v2/__init__.py": "",
    "torchvision/transforms/v2/functional.py": ANY_FUNCTION,
    "torchvision-0.28.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: torchvision\nVersion: 0.28.0\n",
}
# Reads requests from its input, a line each: code, its arguments, and a file for what it prints. Answers with the
# exit status.
SERVER = """
import json, os, sys, traceback
{imports}
print("ready", flush=True)
for line in sys.stdin:
    request = json.loads(line)
    child = os.fork()
    if not child:
        status = 1
        try:
            with open(request["output"], "wb", buffering=0) as output:
                os.dup2(output.fileno(), 1)
                os.dup2(output.fileno(), 2)
            sys.argv = ["-c", *request["arguments"]]
            exec(compile(request["code"], "fresh", "exec"), globals())
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def fake_torchvision(folder: Path, **changed: str) -> Path:
    """Write an installed package `torchvision` that offers the names that transformers imports."""
    for name, text in (FAKE_MODULES | changed).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def succeed_afresh(code: str, *arguments: object, order: str = "vidformers first", torchvision: bool = False) -> str:
    """Run code whose assertions must hold where both packages have just been imported.

    Args:
        code: may use what `IMPORTS` imports.
        arguments: `sys.argv[1:]`.
        order: key of `IMPORTS`, or `ALONE` for code that imports vidformers itself, if at all.
        torchvision: whether a package of that name is installed, as `fake_torchvision` writes it.

    Returns:
        What the code printed.
    """
    imports = TRANSFORMERS if order == ALONE else IMPORTS[order]
    first = imports.removesuffix(OURS)
    server = _server(first, torchvision)
    with NamedTemporaryFile("r") as output:
        request = {"code": imports.removeprefix(first) + code, "arguments": list(map(str, arguments))}
        request["output"] = output.name
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        status = server.stdout.readline().strip()
        printed = output.read()
    assert status == "0", printed
    return printed


def run_in_two_processes(function: Callable[..., None], *arguments: object) -> None:
    """Call a function of a test file in two processes at once that have just imported both packages.

    Args:
        function: takes the number of its process and the arguments as strings.
    """
    code = f"""
import sys
from torch.multiprocessing import start_processes
from {function.__module__} import {function.__name__} as function
start_processes(function, tuple(sys.argv[1:]), nprocs=2, start_method="fork")
"""
    succeed_afresh(code, *arguments)


@cache
def _server(imports: str, torchvision: bool) -> subprocess.Popen:
    """An interpreter that waits for code; it ends with this process, which holds its input."""
    environment = {name: value for name, value in os.environ.items() if name != "VIDFORMERS_AUTO"}
    if torchvision:
        paths = [str(fake_torchvision(Path(_FAKE.name))), environment.get("PYTHONPATH")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    else:
        imports = NO_TORCHVISION + imports
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER.format(imports=imports)],
        env=environment,
        cwd=Path(__file__).parents[2],  # whose tests can be imported
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout.readline() == "ready\n", f"this failed in a fresh interpreter:\n{imports}"
    return server


_FAKE = TemporaryDirectory(prefix="vidformers-torchvision-")
