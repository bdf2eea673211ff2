"""A Python that starts at once: a process that has imported the libraries of others is forked for every script.

A tiny run has fifty jobs, and most of its time would go into importing torch and transformers fifty times. What a
script imports of this project is read anew in every process, from where the script says. Environment, folder and
standard streams are the caller's; where libraries would have read that environment otherwise, a new Python starts.
Hashes of strings are those of the one process: what looks for an order that depends on them runs in a new Python.

Run as a script, this is the process that is forked.
"""

from __future__ import annotations

import atexit
import functools
import gc
import importlib
import json
import os
import re
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

LIBRARIES = (
    "torch", "transformers.models.auto.modeling_auto", "transformers.models.auto.tokenization_auto",
    "transformers.models.gpt2.modeling_gpt2", "transformers.models.llama.modeling_llama",
    "transformers.generation.utils", "safetensors.torch", "safetensors.numpy", "tokenizers", "numpy", "pandas",
    "pyarrow.parquet", "scipy.stats", "scipy.special", "scipy.linalg", "matplotlib.figure",
    "matplotlib.backends.backend_svg", "jinja2", "typst", "lxml.html", "fontTools.ttLib", "nbformat", "nbclient",
    "jupytext", "lingua", "py3langid.langid", "stopwordsiso", "regex", "jsonschema", "yaml", "tqdm.auto", "httpx",
    "huggingface_hub", "rapidfuzz", "snakemake.cli", "snakemake.executors.local",
)  # fmt: skip
"""What scripts and snakemake import of others. What is missing here is imported by those that need it."""

ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "GOTO", "OPENBLAS", "MKL", "NUMEXPR")}
ONE_THREAD["VECLIB_MAXIMUM_THREADS"] = "1"
"""How many threads snakemake tells libraries to use in nearly all jobs."""
READ_BEFORE = re.compile(
    r"(HF|TRANSFORMERS|TORCH|PYTORCH|OMP|GOTO|OPENBLAS|MKL|NUMEXPR|VECLIB|KMP|CUDA|TOKENIZERS|VLLM|XDG|LC|LD)_.*"
    r"|MPL.*|MATPLOTLIB.*|LANG|HOME|PYTHON(?!PATH).*"
)
"""Variables that libraries read when they are imported."""

CLIENT = """#!{python} -IS
import array, json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({path!r})
    server.sendmsg([b"."], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))])
    asked = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
    server.sendall(len(asked).to_bytes(4, "big") + asked)
    status = server.recv(4)
sys.exit(int.from_bytes(status, "big") if status else "the process that is forked has ended")
"""


@functools.cache
def python() -> Path:
    """The Python to call, first in a folder of its own. Its process ends with this one."""
    folder = Path(tempfile.mkdtemp(prefix="warm-"))  # short: the path of a socket has at most 107 characters
    environment = {**os.environ, **ONE_THREAD, "PYTHONHASHSEED": "random", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, __file__, str(folder / "socket")]
    server = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0)
    assert server.stdout is not None
    assert server.stdout.readline() == b"ready\n", "the process that is forked has not started"
    client = folder / "python"
    client.write_text(CLIENT.format(python=sys.executable, path=str(folder / "socket")))
    client.chmod(0o755)
    atexit.register(end, server, folder)
    return client


def end(server: subprocess.Popen, folder: Path) -> None:
    """Close the server's standard input, at which it ends."""
    server.communicate()
    shutil.rmtree(folder)


def serve(path: str) -> list[str]:
    """Wait for callers; return in every process that is forked for one, with the arguments of its Python."""
    own = dict(os.environ)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen(64)
        print("ready", flush=True)
        watching: set[int] = set()
        while True:
            readable, _, _ = select.select([listening, sys.stdin], [], [])
            if sys.stdin in readable:  # whoever started this has ended
                os._exit(0)
            caller, _ = listening.accept()
            watcher = os.fork()
            if not watcher:
                break
            caller.close()
            watching = {number for number in watching | {watcher} if not os.waitpid(number, os.WNOHANG)[0]}
    _, streams, _, _ = socket.recv_fds(caller, 1, 3)
    with caller.makefile("rb") as stream:
        arguments, folder, environment = json.loads(stream.read(int.from_bytes(stream.read(4), "big")))
    script = os.fork()
    if script:
        watch(script, caller)
    caller.close()
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(folder)
    paths = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    module = arguments[:2] == ["-m", "snakemake"]
    names = filter(READ_BEFORE.fullmatch, own.keys() | environment.keys())
    changed = any(own.get(name) != environment.get(name) for name in names)
    fault = any(Path(path, "sitecustomize.py").exists() for path in paths)
    if not module and (changed or fault or arguments[0].startswith("-")):
        os.execve(sys.executable, [sys.executable, *arguments], environment)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:1] = [folder if module else str(Path(arguments[0]).resolve().parent), *paths]
    return arguments


def watch(script: int, caller: socket.socket) -> None:
    """Tell the caller how the script ended, and end it if the caller has gone. Does not return."""
    running = os.pidfd_open(script)
    readable, _, _ = select.select([caller, running], [], [])
    if running not in readable:
        os.kill(script, signal.SIGKILL)
    _, status = os.waitpid(script, 0)
    code = os.waitstatus_to_exitcode(status)
    try:
        caller.sendall((code if code >= 0 else 128 - code).to_bytes(4, "big"))
    finally:
        os._exit(0)


if __name__ == "__main__":
    for name in LIBRARIES:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # shared with all that are forked
    sys.argv[:] = serve(sys.argv[1])
    if sys.argv[0] == "-m":
        del sys.argv[0]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(sys.argv[0], run_name="__main__")
