"""One of several processes that take steps together, in which something goes wrong on purpose.

`member.py PROCESSES FAULT RANK STAGE`, for `test_faults.py`: the fault befalls one rank, or "all",
at a stage: before (they join), setup, step, write (while the others wait at a barrier) or end.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from stepsight import distributed, signals
from stepsight.cli.entry import guarded
from stepsight.errors import UserError

STEPS = 4


class Member:
    def __init__(self, processes: str, fault: str, rank: str, stage: str) -> None:
        self.processes, self.fault, self.rank, self.stage = int(processes), fault, rank, stage

    def reach(self, stage: str) -> None:
        """A stage; the fault if this is its place."""
        if stage != self.stage or self.rank not in ("all", str(distributed.rank())):
            return
        if "FAULTS" in os.environ:
            time.sleep(1)  # two beats: the others know the stage
            (Path(os.environ["FAULTS"]) / "fault").write_text(str(time.time()))
        if self.fault == "refused":
            raise UserError(f"{stage}.png is damaged.")
        if self.fault == "bug":
            raise KeyError("no such thing")
        if self.fault == "torch":
            raise RuntimeError("shapes cannot be multiplied")
        if self.fault == "hang":
            time.sleep(1000)
        if self.fault == "SIGUSR1 to the parent":
            os.kill(os.getppid(), signal.SIGUSR1)
            time.sleep(3)
        elif self.fault.startswith("SIG"):
            os.kill(os.getpid(), getattr(signal, self.fault))

    def run(self) -> int:
        import torch

        self.reach("before")
        distributed.join()
        distributed.phase("setup", patience=distributed.step_timeout())
        self.reach("setup")
        distributed.barrier()
        with signals.caught(), distributed.watching():
            for step in range(STEPS):
                distributed.phase(f"step {step}")
                if step == STEPS - 1:
                    self.reach("step")
                asked = torch.tensor([float(bool(signals.requested()))])
                if distributed.world() > 1:
                    torch.distributed.all_reduce(asked)
                if asked.item():
                    raise signals.Preempted(f"saved at step {step}. Go on with --resume auto.")
                time.sleep(0.3 if self.fault == "SIGTERM" else 0.01)
            distributed.phase("save")
            self.reach("write")
            distributed.barrier()
            distributed.phase("end")
            self.reach("end")
            assert distributed.gathered(distributed.rank()) == list(range(distributed.world()))
        distributed.leave()
        print("done")
        return 0


def body(arguments: list[str]) -> int:
    member = Member(*arguments)
    with signals.heeded():
        distributed.start(member.processes, [__file__, *arguments])
        return member.run()


def main(arguments: list[str] | None = None) -> int:
    return guarded(body, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
