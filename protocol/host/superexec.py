"""Flower's SuperExec, which starts a process for every task of a node or server, with our own commands for them.

`fedoel.protocol.host.flower.superexec_command` is the command that runs it. In front of the options of
``flower-superexec`` it has a JSON object of what takes the place of each of Flower's own commands, such as
``flwr-clientapp``: a command, as a list, or the name of a module whose ``main`` is called in a process that has
imported it already (`fedoel.protocol.host.forked`). A task of another type is refused.

Flower 1.41 gives a process the token of its task as an argument, which every user of the machine can read; whoever has
the token takes the task, with all that the node keeps for it. Here the token is in a file of the owner.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from flwr.supercore.cli.flower_superexec import flower_superexec
from flwr.supercore.constant import TASK_TYPE_TO_APPIO_API_ADDRESS_ARG, TASK_TYPE_TO_COMMAND
from flwr.supercore.superexec import run_superexec
from flwr.supercore.superexec.executor.subprocess_executor import SubprocessExecutor
from flwr.supercore.superexec.executor.types import ExecutionSpec, LaunchResult

from ..errors import FedoelError
from .files import replace_file
from .flower import Commands, put_in_place
from .forked import Forked, Running, import_for_processes, start_command, start_module


class TaskExecutor(SubprocessExecutor):
    """Starts the process of a task.

    Parameters
    ----------
    commands
        The command, or the name of a module, by the name of Flower's own command.
    folder
        Folder that only its owner can enter, for the tokens of running tasks.
    """

    def __init__(self, commands: Commands, folder: Path) -> None:
        self._commands, self._folder = commands, folder
        self._running: dict[Path, Running] = {}
        import_for_processes([command for command in commands.values() if isinstance(command, str)])

    def launch(self, spec: ExecutionSpec) -> LaunchResult:
        """Start the process of a task, which reads its token from a file."""
        command = self._commands.get(TASK_TYPE_TO_COMMAND[spec.task_type])
        if command is None:
            return LaunchResult.failed(f"a task of type {spec.task_type} does not belong here")
        token = self._folder / f"{spec.task_id}.token"
        replace_file(token, spec.token, secret=True)
        arguments = [TASK_TYPE_TO_APPIO_API_ADDRESS_ARG[spec.task_type], spec.runtime_api_address]
        arguments += ["--token-file", str(token)]
        if spec.insecure:
            arguments.append("--insecure")
        elif spec.root_certificates_path is not None:
            arguments += ["--root-certificates", spec.root_certificates_path]
        if spec.parent_pid is not None:
            arguments += ["--parent-pid", str(spec.parent_pid)]
        try:
            if isinstance(command, str):
                self._running[token] = start_module(command, arguments, spec.suppress_output)
            else:
                self._running[token] = start_command([*command, *arguments], spec.suppress_output)
        except FedoelError as error:
            token.unlink()
            return LaunchResult.failed(str(error))
        return LaunchResult.accepted()

    def reconcile(self) -> None:
        """Delete the tokens of processes that have ended."""
        for token, process in list(self._running.items()):
            if process.poll() is not None:
                token.unlink(missing_ok=True)
                del self._running[token]

    def close(self) -> None:
        """Kill what was forked: Python would wait for it before this process can end, and be started again."""
        for process in self._running.values():
            if isinstance(process, Forked):
                process.kill()


def main() -> None:
    """Run Flower's SuperExec with a `TaskExecutor`."""
    commands: Commands = json.loads(sys.argv.pop(1))
    with tempfile.TemporaryDirectory() as folder:
        executor = TaskExecutor(commands, Path(folder))
        put_in_place(run_superexec, "get_executor", lambda *_, **__: executor)
        flower_superexec()


if __name__ == "__main__":
    main()
